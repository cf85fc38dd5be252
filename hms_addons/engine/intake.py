"""Where a request becomes the mesh's: its target normalised, its service named, its fields cleaned.

The one place where both lanes do this, after people and scripts have edited the request and before
any plugin sees it. What stands in `flow.request` afterwards is what is matched, authorised and sent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.request_target import TargetError, named_service, take_apart
from hms_addons.config.snapshot import Direction
from hms_addons.errors import Fault
from hms_addons.http_message import get_field, set_field

if TYPE_CHECKING:
    from hms_addons.engine.connection_context import ConnectionContext
    from hms_addons.engine.hygiene import Hygiene
    from hms_addons.exchange import Exchange


def take_over(
    exchange: Exchange,
    head: dict[bytes, bytes],
    context: ConnectionContext,
    hygiene: Hygiene,
    upgrade: bytes | None = None,
    *,
    parsed: bool = False,
) -> None:
    """Fill in what the phases read of the request; a bad target is recorded as the failure.

    Args:
        exchange: with its flow; gets `head`, `path`, `query`, `service`, `request_id`, `traceparent`.
        head: the request's fields by lower-cased name, as they stand in the flow now.
        context: the connection it came over.
        hygiene: the rules for what may cross the hop.
        upgrade: the protocol to ask the upstream for, if this is an upgrade.
        parsed: the fields are as the parser, which takes no line breaks, has read them.
    """
    exchange.head = head
    exchange.downstream = context
    given = head.get(b"x-request-id")
    exchange.request_id = exchange.id if given is None else given.decode("latin-1")
    try:
        path, query, authority = take_apart(exchange.target, exchange.method_bytes)
    except TargetError as error:
        exchange.fail(Fault.BAD_REQUEST, str(error), close=True)
        return
    fields = exchange.fields
    vouched = parsed and upgrade is None
    if authority is not None:
        # RFC 9112 section 3.2.2: the authority of an absolute-form target replaces Host.
        head[b"host"] = authority.encode()
        fields = set_field(fields, b"Host", head[b"host"])
    if exchange.listener.direction is Direction.OUTBOUND:
        # An intercepted call speaks to whom its Host names: a parameter of its query is not the mesh's.
        asked = query if context.original is None else ""
        try:
            service, rest = named_service(asked, head.get(b"host"))
        except TargetError as error:
            exchange.fail(Fault.BAD_REQUEST, str(error))
            return
        exchange.service = service
        if rest != asked:
            # `?host=auth-svc.svc` is for the mesh; the next hop reads it where it belongs.
            query = rest
            fields = set_field(fields, b"Host", f"{service}.svc".encode())
            vouched = vouched and _is_plain(service)
    if (exchange.interim is None or not parsed) and b"host" not in head:
        # HTTP/1.0, or somebody took it out: what the parser reads of HTTP/1.1 has one. What is sent
        # is HTTP/1.1, where an unknown authority is an empty Host (RFC 9112 section 3.2).
        named = get_field(fields, b"host")
        head[b"host"] = named or b""
        if named is None:
            fields = ((b"Host", b""), *fields)
    exchange.path = path
    exchange.query = query
    exchange.target = (f"{path}?{query}" if query else path).encode()
    exchange.fields = cleaned = hygiene.clean(
        fields,
        head,
        context.own,
        exchange.request_id.encode("latin-1"),
        peer=context.peer,
        upgrade=upgrade,
    )
    if vouched:
        exchange.vouched = cleaned
    parent = head.get(b"traceparent")
    exchange.traceparent = cleaned[-1][1] if parent is None else parent


def _is_plain(service: str | None) -> bool:
    """Letters, digits, `-` and `.`: nothing that could end a line early."""
    return service is None or service.replace("-", "a").replace(".", "a").isalnum()
