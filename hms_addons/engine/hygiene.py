"""What a request may bring across a hop, and what the hop adds (SEMANTICS, "Header hygiene").

Removed, whoever sent them: the headers the mesh owns, hop-by-hop fields (RFC 9110 section 7.6.1)
and those that `Connection` names, the client-certificate header, and framing, which is written
anew. Added: `Via`, `X-Forwarded-*`, `X-Request-ID`, `traceparent`. A `traceparent` from which no trace can
be continued goes, and so does a `tracestate` without a good one (W3C Trace Context 4.3).

Each of the removed names goes in every spelling, with `_` for any `-`: CGI and WSGI turn both into
`_`, so an app could not tell a forged `X_Caller_Role` or `Content_Length` from the real one. Other
names with underscores pass (nginx drops them all, which breaks apps that use them).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.engine.identifiers import new_traceparent
from hms_addons.http_message import lower_name, spellings
from hms_addons.trace_context import is_traceparent

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.http_message import Fields

HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    }
)
"""Fields that end at the hop."""

_ALWAYS = HOP_BY_HOP | {b"content-length", b"expect", b"x-forwarded-client-cert"}

_FORWARDING = frozenset(
    {b"via", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"forwarded"}
)

_PROTECTED = frozenset(
    {b"host", b"authorization", b"content-type", b"cookie", b"x-request-id", b"traceparent"}
)
"""Fields that a `Connection` header cannot have removed: that would change what is authorised, or
leave the request without what every request has."""

_TRACE = frozenset({b"traceparent", b"tracestate"})


class Hygiene:
    """The rules for one set of mesh-owned header names; made once per snapshot.

    Args:
        owned: the names that only the mesh may set, in any spelling.
    """

    __slots__ = ("_drop", "_owned")

    def __init__(self, owned: tuple[bytes, ...]) -> None:
        self._owned = spellings((*owned, b"x-forwarded-client-cert"))
        self._drop = spellings(_ALWAYS | _FORWARDING) | self._owned

    def clean(
        self,
        fields: Fields,
        head: dict[bytes, bytes],
        own: Fields,
        request_id: bytes,
        *,
        peer: str | None,
        upgrade: bytes | None = None,
    ) -> Fields:
        """The fields to forward; the last is the `traceparent`, if one was made.

        Args:
            fields: as received, or as a person left them.
            head: the same by lower-cased name; loses the mesh's own names, which no caller may supply:
                neither a route nor a plugin may go by what he says there. It also loses a bad trace context.
            own: the connection's `Via`, `X-Forwarded-For` and `-Proto`, made once (`own_fields`).
            request_id: used when the caller sent no `X-Request-ID`.
            peer: the caller's SPIFFE ID: a mesh sidecar's word on forwarding is kept.
            upgrade: the protocol to ask the upstream for, if this is an upgrade.
        """
        drop = self._dropped(head)
        if drop is not self._drop or not drop.isdisjoint(head):
            kept: list[tuple[bytes, bytes]] = []
            for field in fields:  # a loop: compiled, a generator costs twice as much
                if lower_name(field[0]) not in drop:
                    kept.append(field)  # noqa: PERF401
            fields = tuple(kept)
            if not self._owned.isdisjoint(head):
                for name in self._owned.intersection(head):
                    del head[name]
            if not _FORWARDING.isdisjoint(head):
                own = _append_forwarding(own, head, trusted=peer is not None)
        cleaned = [*fields, *own]
        if b"x-forwarded-host" not in head and (host := head.get(b"host")):
            cleaned.append((b"X-Forwarded-Host", host))
        if b"x-request-id" not in head:
            cleaned.append((b"X-Request-ID", request_id))
        if upgrade is not None:
            cleaned.append((b"Connection", b"Upgrade"))
            cleaned.append((b"Upgrade", upgrade))
        if b"traceparent" not in head:
            cleaned.append((b"traceparent", new_traceparent()))
        return tuple(cleaned)

    def _dropped(self, head: dict[bytes, bytes]) -> frozenset[bytes]:
        """The names of what does not go on; a bad trace context goes out of `head` at once."""
        drop = self._drop
        named = head.get(b"connection")
        if named is not None:
            drop = drop | _connection_tokens(named)
        if _forget_bad_trace(head):
            drop = drop | _TRACE
        return drop

    def clean_trailers(self, trailers: Fields) -> Fields:
        """Trailer fields that may be forwarded (RFC 9110 section 6.5.1).

        None that the mesh owns, none that frames or authorises.
        """
        drop = self._drop
        return tuple(
            field
            for field in trailers
            if (lower := field[0].lower()) not in drop and lower not in _NOT_IN_TRAILERS
        )


def _connection_tokens(value: bytes) -> frozenset[bytes]:
    tokens = value.lower().replace(b" ", b"").replace(b"\t", b"").split(b",")
    return frozenset(tokens) - _PROTECTED


_NOT_IN_TRAILERS = spellings(
    {b"host", b"authorization", b"cookie", b"content-type", b"content-encoding", b"set-cookie"}
)
"""Fields that change routing, framing or authority when a recipient merges trailers."""


def _forget_bad_trace(head: dict[bytes, bytes]) -> bool:
    """Take a trace context that cannot be continued out of `head`; whether there was one."""
    parent = head.get(b"traceparent")
    if parent is None:
        return head.pop(b"tracestate", None) is not None
    if is_traceparent(parent):
        return False
    del head[b"traceparent"]
    head.pop(b"tracestate", None)
    return True


def own_fields(client_ip: str, scheme: str) -> Fields:
    """What every request of one downstream connection carries on; made once per connection."""
    return (
        (b"Via", b"1.1 hms"),
        (b"X-Forwarded-For", client_ip.encode()),
        (b"X-Forwarded-Proto", scheme.encode()),
    )


def _append_forwarding(own: Fields, head: Mapping[bytes, bytes], *, trusted: bool) -> Fields:
    """Continue the lists the caller sent; single values are kept only from a mesh sidecar."""
    merged = []
    client = b""
    for name, value in own:
        lower = name.lower()
        before = head.get(lower)
        if lower == b"x-forwarded-for":
            client = value
        if before is None:
            merged.append((name, value))
        elif lower == b"x-forwarded-proto":
            merged.append((name, before if trusted else value))
        else:
            merged.append((name, before + b", " + value))
    if (before := head.get(b"x-forwarded-host")) is not None:
        host = before if trusted else head.get(b"host", before)
        if host:
            merged.append((b"X-Forwarded-Host", host))
    if (before := head.get(b"forwarded")) is not None:
        node = b'"[%b]"' % client if b":" in client else client
        merged.append((b"Forwarded", before + b", for=" + node))
    return tuple(merged)
