"""How an attempt at an upstream can go wrong, in the words that retry conditions are written in."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from hms_addons.errors import Fault, MeshError


class Outcome(StrEnum):
    """Ends of an attempt other than a response. Values are recorded in `Attempt.outcome`."""

    CONNECT_FAILURE = "connect-failure"
    """No connection, or no TLS session with the right peer: nothing was delivered."""
    RESET_BEFORE_REQUEST = "reset-before-request"
    """The connection was gone before the first byte of the request was written."""
    RESET = "reset"
    """The connection ended before the response head was whole. The request may have been executed."""
    TIMEOUT = "timeout"
    """No response head within `per_try_timeout` or the route's `timeout`."""
    PROTOCOL_ERROR = "protocol-error"
    """What came back is not an HTTP/1.1 response."""
    REQUEST_BODY = "request-body"
    """The caller's body broke off while it was being sent on; the upstream is not to blame."""
    LOCAL = "local"
    """No connection, for want of something on this side (file descriptors, ports, memory), or an
    addon's leave. The endpoint is not to blame, and another would fare no better."""


NOT_DELIVERED: Final = frozenset(
    {Outcome.CONNECT_FAILURE, Outcome.RESET_BEFORE_REQUEST, Outcome.LOCAL}
)
"""After these the request has provably not been executed."""

FAULTS: Final = {
    Outcome.CONNECT_FAILURE: Fault.CONNECT_FAILURE,
    Outcome.RESET_BEFORE_REQUEST: Fault.UPSTREAM_RESET,
    Outcome.RESET: Fault.UPSTREAM_RESET,
    Outcome.TIMEOUT: Fault.TIMEOUT,
    Outcome.PROTOCOL_ERROR: Fault.UPSTREAM_PROTOCOL,
    Outcome.REQUEST_BODY: Fault.CLIENT_GONE,
    Outcome.LOCAL: Fault.LOCAL_FAILURE,
}
"""What the caller is told when no retry is left."""

STATUS_EQUIVALENT: Final = {
    Outcome.CONNECT_FAILURE: 503,
    Outcome.RESET_BEFORE_REQUEST: 503,
    Outcome.RESET: 503,
    Outcome.TIMEOUT: 504,
    Outcome.PROTOCOL_ERROR: 502,
}
"""The status that outlier detection counts each as (Envoy maps local-origin failures likewise).

Those that are missing say nothing about the endpoint."""


WRONG_PEER: Final = "it is not the right peer"
"""How a detail begins where TLS was fine but somebody else answered."""


class UpstreamError(MeshError):
    """An attempt failed without a (whole) response.

    Args:
        outcome: the kind of failure.
        detail: what happened, for people; does not name the endpoint.
        stale: a pooled connection died before the first byte of the response: most likely the
            upstream had closed it while idle, just as the request was being written.
    """

    def __init__(self, outcome: Outcome, detail: str, *, stale: bool = False) -> None:
        super().__init__(detail)
        self.outcome = outcome
        self.detail = detail
        self.stale = stale
