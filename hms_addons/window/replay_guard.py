"""Sends nothing again that is not what was sent: a replay whose body was cut, or whose secrets are hidden."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.engine.flow_builder import build_response
from hms_addons.errors import Failure, Fault, problem
from hms_addons.window.kept_bodies import missing
from hms_addons.window.redaction import placeholders

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from hms_addons.clock import Clock


def why_not(flow: HTTPFlow) -> str | None:
    """Why a flow must not be sent again; None if it may."""
    if (lack := missing(flow)) is not None:
        return lack
    if hidden := placeholders(flow):
        return (
            f"it was saved without its secrets, and {hidden[0]} stands in a header's or parameter's place: "
            "write the secret itself there (hms_redact=false saves flows with their secrets)"
        )
    return None


class ReplayGuard:
    """A mitmproxy addon; before the native lane in the chain, which sends replays on.

    Args:
        clock: time.
    """

    name = "hms-replay-guard"

    def __init__(self, clock: Clock) -> None:
        self._clock = clock

    def request(self, flow: HTTPFlow) -> None:
        """mitmproxy event: answer a replay that must not be sent."""
        if flow.is_replay != "request" or flow.response is not None:
            return
        if (reason := why_not(flow)) is None:
            return
        failure = Failure.of(Fault.BAD_REQUEST, f"this replay was not sent: {reason}")
        words, fields, body = problem(failure, flow.id)
        fields = (*fields, (b"Content-Length", b"%d" % len(body)))
        flow.response = build_response(failure.status, words, fields, body, (), self._clock.wall())
