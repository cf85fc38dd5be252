"""Bytes from an upstream to a response: pure parsing and framing, no I/O.

The caller announces each request with `begin`, feeds what arrives, and looks at the attributes after
each `feed`: whole or bytewise, they come out the same. llhttp (strict) refuses what is not HTTP/1.1
syntax; what remains to be decided about a response's framing (RFC 9112 section 6.3) is here:

1. HEAD, 204 and 304 have no body, whatever their fields say. llhttp cannot be told that the request
   was a HEAD; its parser is replaced after one.
2. 101 ends HTTP on the connection, in favour of a protocol that was offered; other 1xx precede the
   response.
3. `Transfer-Encoding` must be `chunked` and nothing else: we never ask for another (section 7.4),
   and never beside `Content-Length` or from HTTP/1.0 (section 6.1).
4. `Content-Length` is the length; without one the end of the connection ends the body.
"""

from __future__ import annotations

from typing import Any, Final

import httptools

from hms_addons.errors import MeshError
from hms_addons.http_message import lower_name

MAX_HEAD_BYTES: Final = 64 * 1024
"""Bytes an upstream may send between two pieces of body: heads, interim ones too, and trailers."""

MAX_FIELDS: Final = 200
"""Fields in a response head, or in its trailer section. More than is accepted of requests: an
answer that an upstream is used to give should not break because a mesh stands before it."""

_CONNECTION_FIELDS: Final = frozenset(
    {
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"transfer-encoding",
        b"upgrade",
    }
)
"""Fields about this connection (RFC 9110 section 7.6.1) and about framing; they end here."""

_NO_BODY: Final = frozenset({204, 304})
_SPACE: Final = 0x20
_LOWEST: Final = 100
_SWITCHING: Final = 101
_FINAL: Final = 200
_HIGHEST: Final = 599
_OWN_TOKENS: Final = frozenset({b"", b"close", b"keep-alive", b"upgrade"})

type FieldList = list[tuple[bytes, bytes]]


class ViolationError(MeshError):
    """What the upstream sent is not the HTTP/1.1 response it should be; the message says how."""


class ResponseParser:
    """The responses of one connection, one at a time.

    Attributes:
        status, reason, fields: the final response's head, once `head_complete`. `fields` are less
            those that concern this connection alone.
        length: of the body if declared; that of a HEAD or 304 is what a GET would have had.
        bodyless: no body follows, whatever `length` says.
        pieces: body bytes that have arrived; the caller takes them out.
        ended: the response is whole.
        keep_alive: once `ended`: the connection may carry another exchange.
        trailers: once `ended`.
        interim: (status, reason, fields) of 1xx responses; the caller takes them out.
        protocol: after a 101, what it switches to.
        rest: after a 101, what followed its head; None otherwise.
        started: a byte has arrived since `begin`.
    """

    __slots__ = (
        "_current",
        "_llhttp",
        "_offer",
        "_quiet",
        "_stale",
        "_to_head",
        "_tokens",
        "bodyless",
        "chunked",
        "ended",
        "fields",
        "head_complete",
        "interim",
        "keep_alive",
        "length",
        "pieces",
        "protocol",
        "reason",
        "rest",
        "status",
        "trailers",
    )

    def __init__(self) -> None:
        self._llhttp: Any = httptools.HttpResponseParser(self)
        self._stale = False  # this llhttp still waits for the body of a HEAD
        self._to_head = False
        self._offer: bytes | None = None
        self._current: FieldList = []  # where the next field goes
        self._tokens: frozenset[bytes] = frozenset()  # of `Connection`
        self._quiet = 0  # bytes since the last piece of body
        self.status = 0
        self.reason = b""
        self.fields: FieldList = []
        self.length: int | None = None
        self.chunked = False
        self.bodyless = False
        self.head_complete = False
        self.pieces: list[bytes] = []
        self.ended = True  # nothing has been asked for
        self.keep_alive = True
        self.trailers: FieldList = []
        self.interim: list[tuple[int, bytes, FieldList]] = []
        self.protocol = b""
        self.rest: bytes | None = None

    def __repr__(self) -> str:
        if self.head_complete:
            return f"<ResponseParser {self.status} {'ended' if self.ended else 'in body'}>"
        return f"<ResponseParser {'at rest' if self.ended else 'in head'}>"

    @property
    def started(self) -> bool:
        """A byte has arrived since `begin`."""
        return self._quiet > 0 or self.head_complete

    def begin(self, *, to_head: bool = False, upgrade: bytes | None = None) -> None:
        """A request is on its way.

        Args:
            to_head: its method is HEAD.
            upgrade: the protocols it offers to upgrade to, one of which a 101 may take; None if it
                asks for no upgrade.
        """
        if self._stale:
            self._stale = False
            self._llhttp = httptools.HttpResponseParser(self)
        self._to_head = to_head
        self._offer = upgrade
        if upgrade is not None:
            self.protocol = b""
        self._quiet = 0
        self.head_complete = False
        self.ended = False

    def feed(self, data: bytes) -> None:
        """More bytes; afterwards look at the attributes.

        Raises:
            ViolationError: the upstream broke the protocol. If `ended` is set the response before
                the violation is whole and good; the connection is not, either way.
        """
        self._quiet += len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self.protocol = _chosen(self.protocol, self._offer)
            self.status = _SWITCHING
            self.head_complete = True
            self.rest = data[upgrade.args[0] :]
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, ViolationError):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise ViolationError(str(error) or type(error).__name__) from None
        if self._quiet > MAX_HEAD_BYTES and not self.ended:
            raise ViolationError(f"more than {MAX_HEAD_BYTES} bytes of header or trailer fields")

    def eof(self) -> bool:
        """The upstream will send no more; True if that is how this response ends."""
        if self.ended or not self.head_complete or self.chunked or self.length is not None:
            return False
        self.ended = True
        self.keep_alive = False
        self.trailers = []
        return True

    # -- llhttp's callbacks ---------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """The first byte of a response, or of an interim one."""
        if self.ended:
            raise ViolationError("bytes that belong to no response")
        self.reason = b""
        self.length = None
        self.chunked = False
        self.fields = self._current = []
        if self._tokens:
            self._tokens = frozenset()

    def on_status(self, reason: bytes) -> None:
        """(A piece of) the reason phrase."""
        self.reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header or trailer field."""
        if value and value[-1] <= _SPACE:
            value = value.rstrip(
                b" \t"
            )  # no part of it (RFC 9110 section 5.5), but llhttp leaves it
        lower = lower_name(name)
        if lower in _CONNECTION_FIELDS:
            if not self.head_complete:
                self._on_connection_field(lower, value)
        else:
            self._current.append((name, value))

    def _on_connection_field(self, lower: bytes, value: bytes) -> None:
        if lower == b"content-length":
            self.length = int(value)  # llhttp has checked that it is digits, and the only one
        elif lower == b"transfer-encoding":
            if self.chunked or value.strip().lower() != b"chunked":
                raise ViolationError(f"transfer coding {value[:40]!r} was not asked for")
            self.chunked = True
        elif lower == b"connection":
            tokens = value.lower().split(b",")
            self._tokens |= {token.strip() for token in tokens}
        elif self._offer is not None and lower == b"upgrade":
            self.protocol += b"," + value

    def on_headers_complete(self) -> None:
        """A head is whole: decide how the body ends."""
        status: int = self._llhttp.get_status_code()
        fields = self._current
        if len(fields) > MAX_FIELDS or (
            self._quiet > MAX_HEAD_BYTES
            and sum(len(name) + len(value) + 4 for name, value in fields) > MAX_HEAD_BYTES
        ):
            raise ViolationError(
                f"a response head of more than {MAX_HEAD_BYTES} bytes or {MAX_FIELDS} fields"
            )
        if self._tokens and not self._tokens <= _OWN_TOKENS:
            named = self._tokens
            self.fields = [field for field in fields if field[0].lower() not in named]
        if _LOWEST <= status < _FINAL:
            if status != _SWITCHING:
                self.protocol = b""  # it may say what it could switch to; that is no answer
            return
        if not _FINAL <= status <= _HIGHEST:
            raise ViolationError(f"status {status} is not an HTTP status")
        if self.chunked and self._llhttp.get_http_version() != "1.1":
            raise ViolationError("Transfer-Encoding in a response that is not HTTP/1.1")
        self.status = status
        self.head_complete = True
        self._current = []
        self.bodyless = self._to_head or status in _NO_BODY
        if self._to_head:
            self.ended = True
            self.trailers = []
            self.keep_alive = self._outlives_head()
            self._stale = True

    def _outlives_head(self) -> bool:
        """As `llhttp_should_keep_alive`, which would wait for the body that a HEAD has not."""
        if self._llhttp.get_http_version() == "1.1":
            return b"close" not in self._tokens
        return b"keep-alive" in self._tokens and b"close" not in self._tokens

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.ended:
            raise ViolationError("a body after the response to a HEAD")
        self._quiet = 0
        self.pieces.append(data)

    def on_message_complete(self) -> None:
        """A response, or an interim one, is whole."""
        if self.ended:  # at the head of the response to a HEAD
            if self.chunked:
                raise ViolationError("a body after the response to a HEAD")
            return
        if not self.head_complete:
            status: int = self._llhttp.get_status_code()
            if status != _SWITCHING:
                self.interim.append((status, self.reason, self.fields))
            elif not self._llhttp.should_upgrade():
                raise ViolationError("101 Switching Protocols without the Upgrade it switches to")
            return
        if len(self._current) > MAX_FIELDS:
            raise ViolationError(f"more than {MAX_FIELDS} trailer fields")
        self.trailers = self._current
        self.keep_alive = self._llhttp.should_keep_alive()
        self.ended = True


def _chosen(answer: bytes, offer: bytes | None) -> bytes:
    """What a 101 switches to, as it says itself (RFC 9110 section 7.8).

    Args:
        answer: its `Upgrade`; more than one protocol if they lie on one another.
        offer: that of the request.

    Raises:
        ViolationError: it names none, or one that was not offered.
    """
    if offer is None:
        raise ViolationError("101 Switching Protocols was not asked for")
    chosen = _elements(answer)
    if not chosen:
        raise ViolationError("101 Switching Protocols does not say to which")
    offered = _elements(offer.lower())
    for protocol in chosen:
        if not any(_is_same(protocol.lower(), other) for other in offered):
            raise ViolationError(f"a 101 switches to {protocol[:40]!r}, which was not offered")
    return b", ".join(chosen)


def _elements(value: bytes) -> list[bytes]:
    return [element for part in value.split(b",") if (element := part.strip())]


def _is_same(protocol: bytes, other: bytes) -> bool:
    """Of one name, and of one version where both say theirs."""
    name, _, version = protocol.partition(b"/")
    other_name, _, other_version = other.partition(b"/")
    return name == other_name and (not version or not other_version or version == other_version)
