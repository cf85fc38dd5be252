"""A request as bytes, with the framing that its body really has.

Whatever framing fields the request carries are dropped: a person may have edited the body, a plugin
may have replaced it, and a `Content-Length` that lies is how requests are smuggled. Nothing that
could end a line early gets through (RFC 9112 section 11.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError
from hms_addons.http_message import append_lines

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Fields

CHUNKED: Final = b"Transfer-Encoding: chunked\r\n"
NO_FRAMING: Final = b""

_LENGTH_EXPECTED: Final = frozenset({b"POST", b"PUT", b"PATCH"})
"""Methods that anticipate content: an empty body is announced (RFC 9110 section 8.6)."""

_FRAMING: Final = frozenset({b"content-length", b"transfer-encoding", b"expect"})
_UPGRADE: Final = frozenset({b"connection", b"upgrade"})

_pair = b": ".join


class UnsendableError(MeshError):
    """A request cannot be written as HTTP/1.1; the message says which part and why."""


def content_length(method: bytes, length: int) -> bytes:
    """The framing of a body of `length` bytes."""
    if length or method in _LENGTH_EXPECTED:
        return b"Content-Length: %d\r\n" % length
    return NO_FRAMING


def encode_head(
    method: bytes, target: bytes, fields: Fields, framing: bytes, *, vouched: bool = False
) -> tuple[bytes, bytes | None]:
    """The request line and header section, up to and including the empty line.

    Args:
        method, target, fields: as in `flow.request.data`. `Connection` and `Upgrade` are kept if
            both are there, else dropped, as are framing fields and `Expect`.
        framing: `content_length(...)`, `CHUNKED` or `NO_FRAMING`.
        vouched: it is known that `fields` hold no line break, no framing and no upgrade.

    Returns:
        The bytes, and the protocols that they offer to upgrade to; None if they ask for no upgrade.

    Raises:
        UnsendableError: a line break, NUL or stray space would change where a part ends.
    """
    line = b"%b %b HTTP/1.1\r\n" % (method, target)
    if line.count(b" ") != 2 or line.count(b"\n") != 1 or line.count(b"\r") != 1:  # noqa: PLR2004
        raise UnsendableError(
            f"the request line {line!r} has a space or line break too many; "
            "percent-encode them in the path"
        )
    if vouched:
        parts = [line]
        append_lines(parts, fields)
        parts.append(framing)
        parts.append(b"\r\n")
        return b"".join(parts), None
    upgrade: bytes | None = None
    block = b"\r\n".join(map(_pair, fields))
    # A search for each name in one lowered block is several times cheaper than lowering each name;
    # and `find` than `in`, which first tries, and fails, to take the bytes for a number.
    find = block.lower().find
    if (
        find(b"connection:") >= 0
        or find(b"upgrade:") >= 0
        or find(b"content-length:") >= 0
        or find(b"transfer-encoding:") >= 0
        or find(b"expect:") >= 0
    ):
        fields, upgrade = _without_framing(fields)
        block = b"\r\n".join(map(_pair, fields))
    if not fields:
        return b"%b%b\r\n" % (line, framing), upgrade
    breaks = len(fields) - 1
    if block.count(b"\n") != breaks or block.count(b"\r") != breaks or block.find(b"\0") >= 0:
        raise UnsendableError(_blame(fields))
    return b"%b%b\r\n%b\r\n" % (line, block, framing), upgrade


def _without_framing(fields: Fields) -> tuple[Fields, bytes | None]:
    names = {name.lower() for name, _ in fields}
    if names >= _UPGRADE:
        drop = _FRAMING
        upgrade = b", ".join([value for name, value in fields if name.lower() == b"upgrade"])
        return tuple(field for field in fields if field[0].lower() not in drop), upgrade
    drop = _FRAMING | _UPGRADE
    return tuple(field for field in fields if field[0].lower() not in drop), None


def _blame(fields: Fields) -> str:
    for name, value in fields:
        if any(byte in name or byte in value for byte in (b"\r", b"\n", b"\0")):
            return (
                f"the request header {name[:80]!r} holds a line break or NUL; "
                "whoever set it (a plugin, a script, a person) must encode it"
            )
    return "a request header holds a line break or NUL"


def encode_request(exchange: Exchange) -> tuple[bytes, int | None, bytes | None]:
    """What is sent of an exchange before any streaming body.

    Returns:
        The head, with the body where that is held; the length a streaming body was announced with
        (the pump sees to it that it is kept), None if it goes in chunks; the protocols that are
        offered for an upgrade, None if none is asked for.

    Raises:
        UnsendableError: as `encode_head`.
    """
    length: int | None = None
    body = b""
    if exchange.body is not None:
        announced = exchange.head.get(b"content-length")
        framing = CHUNKED
        if announced is not None and announced.isdigit():
            length = int(announced)
            framing = b"Content-Length: %d\r\n" % length
    else:
        body = exchange.content or b""
        trailers = exchange.trailers
        if trailers:
            framing = CHUNKED
            if body:
                body = encode_chunk(body)
            body += encode_last_chunk(trailers)
        else:
            framing = content_length(exchange.method_bytes, len(body))
    fields = exchange.fields
    head, upgrade = encode_head(
        exchange.method_bytes,
        exchange.target,
        fields,
        framing,
        vouched=fields is exchange.vouched,
    )
    return (head + body if body else head), length, upgrade


def encode_chunk(data: bytes) -> bytes:
    """One chunk of a chunked body (RFC 9112 section 7.1).

    In one piece: `writelines` of asyncio's own loop knows no backpressure, and after the end of the
    connection it leaves a descriptor being polled that by then is another connection's (Python 3.13).
    """
    return b"%x\r\n%b\r\n" % (len(data), data)


def encode_last_chunk(trailers: Fields) -> bytes:
    """The end of a chunked body, with its trailer section.

    Raises:
        UnsendableError: as `encode_head`.
    """
    if not trailers:
        return b"0\r\n\r\n"
    block = b"\r\n".join(map(_pair, trailers))
    breaks = len(trailers) - 1
    if block.count(b"\n") != breaks or block.count(b"\r") != breaks or b"\0" in block:
        raise UnsendableError(_blame(trailers))
    return b"0\r\n%b\r\n\r\n" % block
