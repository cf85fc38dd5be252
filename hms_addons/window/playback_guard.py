"""Gives clients no recorded answer that is not what was answered: one whose body was cut, or whose secrets are hidden.

mitmproxy's server playback (`replay.server`, `server_replay`) takes whatever flows it is given. Its commands
refuse such flows here; one that gets in all the same, or is cut while it is there, is passed over.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from mitmproxy.exceptions import CommandError
from mitmproxy.http import HTTPFlow

from hms_addons.window.kept_bodies import missing
from hms_addons.window.redaction import placeholders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mitmproxy.flow import Flow

logger = logging.getLogger(__name__)

_ADD: Final = "replay.server.add"


def why_not_played(flow: HTTPFlow) -> str | None:
    """Why a flow's answer must not be given to a client; None if it may, or if it has none."""
    if flow.response is None:
        return None
    if (lack := missing(flow, "response")) is not None:
        return lack
    if hidden := placeholders(flow, "response"):
        return (
            f"its answer was saved without its secrets, and {hidden[0]} stands in a header's place: "
            "write the secret itself there (hms_redact=false saves flows with their secrets)"
        )
    return None


class PlaybackGuard:
    """Stands before one mitmproxy program's server playback, if it has one.

    Args:
        master: mitmproxy's.
    """

    def __init__(self, master: Any) -> None:
        self._playback: Any = master.addons.get("serverplayback")
        # A command holds the method that it was declared with.
        self._command: Any = master.commands.commands.get(_ADD)
        self._before: Any = None

    def __repr__(self) -> str:
        return f"<PlaybackGuard {self._playback}>"

    def take_over(self) -> None:
        """From now on."""
        if self._playback is not None:
            self._playback.add_flows = self._add
            self._playback.next_flow = self._next
            self._before, self._command.func = self._command.func, self._add

    def give_back(self) -> None:
        """No more."""
        if self._playback is not None:
            del self._playback.add_flows, self._playback.next_flow
            self._command.func = self._before

    def _add(self, flows: Sequence[Flow]) -> None:
        flows = list(flows)  # of a file they come one by one
        for flow in flows:
            if isinstance(flow, HTTPFlow) and (reason := why_not_played(flow)) is not None:
                raise CommandError(f"{_name(flow)} cannot be played back: {reason}")
        type(self._playback).add_flows(self._playback, flows)

    def _next(self, flow: HTTPFlow) -> HTTPFlow | None:
        found: HTTPFlow | None = type(self._playback).next_flow(self._playback, flow)
        if found is None or (reason := why_not_played(found)) is None:
            return found
        logger.warning("%s is not played back: %s", _name(found), reason)
        return None


def _name(flow: HTTPFlow) -> str:
    return f"{flow.request.method} {flow.request.path.partition('?')[0]}"
