"""Puts the window's parts into a running mitmproxy program, and takes them out again."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import PydanticCustomError

from hms_addons.config.schema_base import parse_size
from hms_addons.errors import MeshError
from hms_addons.window.browser_updates import BrowserUpdates
from hms_addons.window.by_hand import ByHand
from hms_addons.window.commands import Commands
from hms_addons.window.flow_ring import FlowRing, Limits
from hms_addons.window.page_focus import PageFocus
from hms_addons.window.playback_guard import PlaybackGuard
from hms_addons.window.redaction import Redactor
from hms_addons.window.replay_guard import ReplayGuard
from hms_addons.window.screens import Screens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.sidecar import Sidecar

FLOWS: Final = 2_000
BODY: Final = "64KiB"
TOTAL: Final = "32MiB"

LIVE: Final = frozenset(
    {"hms_flow_ring", "hms_flow_body_limit", "hms_flow_bytes", "hms_redact", "hms_redact_names"}
)
"""The options that may change while it runs."""
_SIZES: Final = ("hms_flow_body_limit", "hms_flow_bytes")


def add_options(loader: Any) -> None:
    """Declare the window's options; `loader` is mitmproxy's."""
    loader.add_option("hms_flow_ring", int, FLOWS, "Flows that mitmweb keeps; 0 for all.")
    loader.add_option(
        "hms_flow_body_limit",
        str,
        BODY,
        "How much of each body is kept once its flow is over; 0 for all.",
    )
    loader.add_option(
        "hms_flow_bytes", str, TOTAL, "How much is kept of all bodies together; 0 for all."
    )
    redact = "Hide secrets in what is shown and saved; what is sent has them."
    loader.add_option("hms_redact", bool, default=True, help=redact)
    loader.add_option(
        "hms_redact_names",
        str,
        "",
        "Further headers and query parameters that are secrets, comma-separated.",
    )


def size(name: str, value: str) -> int:
    """Bytes that an option says, as `64KiB`.

    Raises:
        MeshError: it says nothing of the kind.
    """
    try:
        return parse_size(int(value) if value.isdecimal() else value)
    except PydanticCustomError as error:
        message = f"{name}={value}: {error.message()}; as 64KiB, or 0 for all"
        raise MeshError(message) from None


class Window:
    """The window of one sidecar: open in one mitmproxy program at a time.

    Args:
        sidecar: what runs.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._master: Any = None
        self._redactor = Redactor()
        self._screens = Screens(self._redactor)
        self._by_hand = ByHand(sidecar)
        self._ring: FlowRing | None = None
        self._updates: BrowserUpdates | None = None
        self._focus: PageFocus | None = None
        self._playback: PlaybackGuard | None = None
        self._addons: list[Any] = []
        self._limits = Limits(0, 0, 0)
        sidecar.add_status("by_hand", self._by_hand.describe)
        sidecar.add_status("window", self.describe)
        sidecar.add_metrics("window", self)

    def __repr__(self) -> str:
        return f"<Window {self._limits} {self._redactor!r}>"

    def describe(self) -> dict[str, Any] | None:
        """How full the ring is, as JSON-ready types; None where there is none."""
        return None if self._ring is None else self._ring.describe()

    def collect(self) -> Iterable[Any]:
        """For `/metrics`: the ring's, while there is one."""
        return () if self._ring is None else self._ring.collect()

    def open(self, master: Any) -> None:
        """Put the parts into a program. Must be done before the native lane's addon.

        Args:
            master: mitmproxy's.

        Raises:
            MeshError: an option is wrong.
        """
        self._master = master
        self._read_options()
        clock = self._sidecar.clock
        self._screens.cover()
        self._playback = PlaybackGuard(master)
        self._playback.take_over()
        self._addons += [
            ReplayGuard(clock),
            Commands(master, self._sidecar, self._by_hand, self._redactor),
        ]
        if (view := master.addons.get("view")) is not None:
            self._ring = FlowRing(view, lambda: self._limits, clock)
            self._addons.append(self._ring)
        app = sys.modules.get("mitmproxy.tools.web.app")
        if app is not None and hasattr(master, "_sig_view_add"):
            self._updates = BrowserUpdates(master, app, clock)
            self._updates.take_over()
            self._focus = PageFocus(view, app)
            self._focus.follow()
        master.addons.add(*self._addons)

    def close(self) -> None:
        """Take them out."""
        for addon in self._addons:
            self._master.addons.remove(addon)
        self._addons.clear()
        if self._updates is not None:
            self._updates.give_back()
            self._updates = None
        if self._focus is not None:
            self._focus.leave()
            self._focus = None
        if self._playback is not None:
            self._playback.give_back()
            self._playback = None
        self._screens.uncover()
        self._ring = self._master = None

    def applied(self) -> None:
        """A configuration has been put in force."""
        self._by_hand.applied()

    def changed(self) -> None:
        """Options have changed.

        Raises:
            MeshError: one is wrong; what was said before goes on.
        """
        self._read_options()
        if (view := self._master.addons.get("view")) is not None:
            view.sig_view_refresh.send()  # pages show what they have been sent

    def _read_options(self) -> None:
        options = self._master.options
        body, total = (size(name, getattr(options, name)) for name in _SIZES)
        if options.hms_flow_ring < 0:
            message = f"hms_flow_ring={options.hms_flow_ring}: give a number of flows, or 0 for all"
            raise MeshError(message)
        self._limits = Limits(options.hms_flow_ring, body, total)
        self._redactor.enabled = options.hms_redact
        self._redactor.also(filter(None, map(str.strip, options.hms_redact_names.split(","))))
