# ruff: noqa: INP001 - one module is all there is, so it needs no package
"""A header on every answer that passed the sidecar; the example of an HMS plugin.

plugins:
  stamp: { value: "sidecar of claims-svc" }     # X-Stamp: sidecar of claims-svc
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.errors import ConfigError
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import set_field

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange


class Stamp:
    """Sets `X-Stamp`, on the upstream's answers and on the mesh's own."""

    def __init__(self) -> None:
        self._value = b"hms"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Check the options; everything that can be made once is made here."""
        options = snapshot.plugins.get("stamp", {})
        for name in options.keys() - {"value"}:
            raise ConfigError(f"plugins.stamp.{name}: there is no such option; there is: value")
        value = options.get("value", "hms")
        if not isinstance(value, str) or not value.isascii() or not value.isprintable():
            raise ConfigError("plugins.stamp.value: give a text of printable ASCII characters")
        self._value = value.encode()

    @hookimpl
    def hms_respond(self, exchange: Exchange) -> None:
        """Stamp the answer; one that came with a stamp gets ours instead."""
        answer = exchange.answer
        if answer is not None:
            answer.fields = set_field(answer.fields, b"X-Stamp", self._value)
