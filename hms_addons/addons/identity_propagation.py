"""`identity_propagation`: an app's own calls carry on the token of the request that it works for.

    inbound ──▶ app, with X-Request-ID and traceparent
                 └──one of them, no Authorization──▶ outbound: the inbound request's token is attached

Only while that request is in flight, only from this sidecar's own app (an outbound listener with
`propagate_identity`, on a loopback address), and only where it is certain whose it is: see
`identity.in_flight`. What is attached is verified like any token: policies judge the call by it,
`forward: false` takes it out again. An inbound request that gives an identifier of another's takes
that one's identity from it, and gains none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.snapshot import Direction
from hms_addons.errors import Fault
from hms_addons.exchange import ANONYMOUS
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import lower_name, spellings
from hms_addons.identity.in_flight import Held, InFlight
from hms_addons.identity.jwt_verifier import token_from_header

if TYPE_CHECKING:
    from collections.abc import Collection

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh

    type Fields = tuple[tuple[bytes, bytes], ...]

MAX_IDENTIFIERS: Final = 8
"""Of one request; one with more is refused, as nobody knows which of them its app will repeat."""

_NAME: Final = "identity_propagation"
_HOOKS: Final = ("hms_identify", "hms_prepare", "hms_complete")
_TRACE: Final = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""A `traceparent` (W3C Trace Context 3.2.2); an app goes on with its trace ID, in a span of its own."""
_ANY_TRACE: Final = spellings(
    b"traceparent b3 x-b3-traceid uber-trace-id x-cloud-trace-context x-amzn-trace-id "
    b"ot-tracer-traceid".split()
)
"""Fields from which an app's tracing may take the trace that it goes on with, B3's before the
`traceparent` where it reads both (OpenTelemetry's composite propagator: the last one counts)."""
_TRACE_ID: Final = re.compile(rb"1-([0-9a-f]{8})-([0-9a-f]{24})(?![0-9a-f])|([0-9a-f]{16,32})")
"""In lower case: AWS's of two parts, or the first number that is long enough."""
_IDS: Final = frozenset({b"x-request-id", b"x_request_id", b"x-request_id", b"x_request-id"})


class IdentityPropagation:
    """The built-in plugin `identity_propagation`.

    Args:
        clock: see `InFlight`.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._requests = InFlight(clock)
        self.attached = 0
        """Calls that a token was attached to."""
        self.ambiguous = 0
        """Calls that could have been any of several callers', so that none was."""
        self.overflows = 0
        """Inbound requests that came while too many were in flight."""

    def __repr__(self) -> str:
        return f"<IdentityPropagation {self._requests} attached={self.attached}>"

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """All of them, where no listener propagates identities."""
        if any(listener.propagate_identity for listener in snapshot.listeners):
            return ()
        return _HOOKS

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Show what is in flight."""
        mesh.add_status(_NAME, self._status)

    def _status(self) -> dict[str, int]:
        return {
            "in_flight": len(self._requests),
            "attached": self.attached,
            "ambiguous": self.ambiguous,
            "overflows": self.overflows,
        }

    @hookimpl
    def hms_identify(self, exchange: Exchange) -> None:
        """An outbound call without `Authorization`: attach what its identifiers stand for."""
        if not exchange.listener.propagate_identity or b"authorization" in exchange.head:
            return
        found = self._requests.find(_identifiers(exchange.fields))
        if found.token is not None:
            exchange.head[b"authorization"] = found.token
            exchange.set_request_header(b"Authorization", found.token)
            exchange.notes[_NAME] = "attached"
            self.attached += 1
        elif found.ambiguous:
            exchange.notes[_NAME] = "ambiguous"
            self.ambiguous += 1

    @hookimpl
    def hms_prepare(self, exchange: Exchange) -> None:
        """An inbound request goes to the app: from now on its identifiers stand for its token.

        So do those of an anonymous one, for none: otherwise it could call in another's name.
        """
        if exchange.listener.direction is not Direction.INBOUND:
            return
        identifiers = _identifiers(exchange.fields) | _other_traces(exchange.fields)
        if len(identifiers) > MAX_IDENTIFIERS:
            detail = f"the request has more than {MAX_IDENTIFIERS} X-Request-IDs and trace IDs"
            exchange.fail(Fault.BAD_REQUEST, detail)
            return
        value: Any = exchange.head.get(b"authorization")
        if (
            exchange.principal is ANONYMOUS
            or value is None
            or token_from_header(value.decode("latin-1")) is None
        ):
            value = None
        exchange.notes[_NAME] = self._requests.add(identifiers, value)
        if self._requests.overflowing:
            self.overflows += 1

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        """An inbound request is over, however it ended."""
        held = exchange.notes.get(_NAME)
        if isinstance(held, Held):
            del exchange.notes[_NAME]
            self._requests.remove(held)


def _identifiers(fields: Fields) -> set[bytes]:
    """All by which an app could take a request for another's, in any spelling of their names.

    CGI and WSGI turn `-` into `_`, lists may be taken apart, and letters folded.
    """
    found: set[bytes] = set()
    for name, value in fields:
        lower = lower_name(name)
        if lower == b"traceparent":
            trace = _TRACE.fullmatch(value.strip())
            if trace is not None:
                found.add(b"trace:" + trace[1])
        elif lower in _IDS:
            folded = value.lower()
            found.update(
                b"request:" + part for one in (folded, *folded.split(b",")) if (part := one.strip())
            )
    return found


def _other_traces(fields: Fields) -> set[bytes]:
    """The trace IDs that an app might read out of a request, however leniently it does.

    A caller who writes another's trace ID in capitals, or as B3, must not be taken for that one when the
    app writes it anew. They are held to be the request's; a call is recognised by `_identifiers` alone.
    """
    found: set[bytes] = set()
    for name, value in fields:
        if lower_name(name) not in _ANY_TRACE:
            continue
        for part in value.lower().split(b","):
            match = _TRACE_ID.search(part)
            if match is not None:
                found.add(b"trace:" + (match[3] or match[1] + match[2]).rjust(32, b"0"))
    return found
