"""Which requests are well formed, and where their bodies end: pure rules, no I/O.

llhttp (strict) has already refused what is not HTTP/1.1 syntax: bare CR or LF, obs-fold, spaces
before a colon, NUL, `Content-Length` next to `Transfer-Encoding`, bad chunking. What is left to
decide is here, in the order of RFC 9112 section 6.3 and SEMANTICS "HTTP/1.1 safety".
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from hms_addons.errors import Failure, Fault
from hms_addons.http_message import SENT_ONCE, lower_name

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Limits
    from hms_addons.http_message import BodyStream, Fields

# RFC 3986 section 3.2.2 without user info, which a Host never carries (RFC 9110 section 7.2).
_HOST = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~!$&'()*+,;=%-]*)(?::[0-9]{0,5})?")

_HOST_NAME = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-"
"""What names and IPv4 addresses are made of."""
_KNOWN_HOSTS: Final = 1024
_KNOWN_LENGTH: Final = 256
_PORT_DIGITS = 5


class RequestHead:
    """A request as its head describes it, and its body as it arrives.

    Attributes:
        method, target: as sent.
        minor: 1 for HTTP/1.1, 0 for HTTP/1.0.
        fields: the header fields, in order.
        head: the same by lower-cased name; several of one name joined by `, ` (RFC 9110
            section 5.3), cookies by `; `.
        keep_alive: the caller wants to go on after this request.
        content_length: declared body length, None without a `Content-Length`.
        chunked: the body comes in chunks.
        expect_continue: the caller waits for `100 Continue` before it sends the body.
        upgrade: of the protocols asked for, those that can be tunnelled.
        body: the held body, or None while `stream` carries it.
        stream: the body as it arrives.
        trailers: of a held body; those of a streamed one are on `stream`.
        failure: what was found wrong with the body while it streamed: the answer to this request,
            unless one has begun.
    """

    __slots__ = (
        "body",
        "chunked",
        "content_length",
        "expect_continue",
        "failure",
        "fields",
        "head",
        "keep_alive",
        "method",
        "minor",
        "stream",
        "target",
        "trailers",
        "upgrade",
    )

    def __init__(self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]]) -> None:
        self.method = method
        self.target = target
        self.minor = 1
        self.fields = fields
        self.head: dict[bytes, bytes] = {}
        self.keep_alive = True
        self.content_length: int | None = None
        self.chunked = False
        self.expect_continue = False
        self.upgrade: bytes | None = None
        self.body: bytes | None = b""
        self.stream: BodyStream | None = None
        self.trailers: Fields = ()
        self.failure: Failure | None = None

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} HTTP/1.{self.minor}>"

    @property
    def has_body(self) -> bool:
        """A body of at least one byte, or of unknown length, follows."""
        return self.chunked or bool(self.content_length)


class Refusal:
    """A request that is none, in its place among those that wait.

    Attributes:
        failure: what is wrong with it.
        request_id: its own `X-Request-ID`, as far as it was read, else a new one.
    """

    __slots__ = ("failure", "request_id")

    def __init__(self, failure: Failure, request_id: str) -> None:
        self.failure = failure
        self.request_id = request_id

    def __repr__(self) -> str:
        return f"<Refusal {self.request_id} {self.failure!r}>"


def index_fields(fields: list[tuple[bytes, bytes]] | Fields) -> dict[bytes, bytes]:
    """Header fields by lower-cased name; repeated ones joined as their grammar allows."""
    head: dict[bytes, bytes] = {}
    for name, value in fields:
        lower = lower_name(name)
        if lower in head:
            head[lower] += (b"; " if lower == b"cookie" else b", ") + value
        else:
            head[lower] = value
    return head


def check_head(request: RequestHead, version: str, limits: Limits) -> Failure | None:
    """Complete `request` from its fields; a failure if it must not be served.

    Args:
        request: with method, target and fields; the rest is filled in here.
        version: the protocol version on the request line, as `1.1`.
        limits: the listener's bounds.
    """
    if version != "1.1":
        if version != "1.0":
            return _refuse(
                Fault.VERSION_UNSUPPORTED, f"HTTP/{version} is not spoken here; use HTTP/1.1"
            )
        request.minor = 0
    fields = request.fields
    if len(fields) > limits.header_count:
        return _refuse(
            Fault.HEADERS_TOO_LARGE, f"more than {limits.header_count} header fields were sent"
        )
    if len(request.target) > limits.target_bytes:
        return _refuse(
            Fault.TARGET_TOO_LONG, f"the request target is longer than {limits.target_bytes} bytes"
        )
    head = request.head = index_fields(fields)
    if len(head) != len(fields):
        lowered = [name.lower() for name, _ in fields]
        for name in SENT_ONCE:
            if lowered.count(name) > 1:
                return _refuse(
                    Fault.BAD_REQUEST, f"{name.decode().title()} was sent more than once"
                )
    host = head.get(b"host")
    if host is None:
        if request.minor:
            return _refuse(Fault.BAD_REQUEST, "the Host header is missing")
    elif host not in _known_hosts and not _is_host(host):
        return _refuse(Fault.BAD_REQUEST, "the Host header is not a host and port")
    if request.method == b"CONNECT":
        return _refuse(Fault.METHOD_NOT_ALLOWED, "CONNECT is refused: the mesh is no open proxy")
    return _check_body(request, head, limits)


_known_hosts: Final[set[bytes]] = set()
"""Hosts that were looked at lately and found to be good: there are few, and they come again."""


def _is_host(host: bytes) -> bool:
    if not _is_plain_host(host) and _HOST.fullmatch(host) is None:
        return False
    if len(host) <= _KNOWN_LENGTH:
        if len(_known_hosts) >= _KNOWN_HOSTS:
            _known_hosts.clear()
        _known_hosts.add(host)
    return True


def _is_plain_host(host: bytes) -> bool:
    """A name or an IPv4 address, perhaps with a port: a third of what the regex takes to say so."""
    name, colon, port = host.partition(b":")
    if name.translate(None, _HOST_NAME):
        return False
    return not colon or (len(port) <= _PORT_DIGITS and port.isdigit())


def _check_body(request: RequestHead, head: dict[bytes, bytes], limits: Limits) -> Failure | None:
    encoding = head.get(b"transfer-encoding")
    length = head.get(b"content-length")
    if encoding is not None:
        # RFC 9112 section 6.1: other codings, HTTP/1.0, and a Content-Length beside it are the
        # stuff of request smuggling.
        if length is not None:
            return _refuse(Fault.BAD_REQUEST, "Content-Length and Transfer-Encoding were both sent")
        if request.minor == 0 or encoding.lower() != b"chunked":
            return _refuse(
                Fault.BAD_REQUEST, "the only Transfer-Encoding taken is 'chunked', with HTTP/1.1"
            )
        request.chunked = True
    elif length is not None:
        if not length.isdigit() or len(length) > 18:  # noqa: PLR2004 - fits in 63 bits
            return _refuse(Fault.BAD_REQUEST, "Content-Length is not a length")
        request.content_length = int(length)
        if limits.max_body is not None and request.content_length > limits.max_body:
            return body_too_large(limits.max_body)
    expect = head.get(b"expect")
    if expect is not None and request.minor:
        if expect.lower() != b"100-continue":
            return _refuse(Fault.EXPECTATION_FAILED, "the only Expect taken is '100-continue'")
        request.expect_continue = request.has_body
    return None


def body_too_large(max_body: int) -> Failure:
    """The answer to a body past the listener's `max_body`."""
    return _refuse(
        Fault.BODY_TOO_LARGE, f"the body is larger than this listener's max_body, {max_body} bytes"
    )


def tunnelled_protocols(offer: bytes) -> bytes | None:
    """What of an `Upgrade` field can be tunnelled, as a list again; None if nothing can.

    h2c, wherever it stands, is simply not taken up (RFC 9110 section 7.8): behind it the mesh would
    see none of the requests that it is to decide on.
    """
    tokens = [token.strip() for token in offer.split(b",")]
    kept = [token for token in tokens if token and not token.lower().startswith(b"h2c")]
    return b", ".join(kept) or None


def _refuse(fault: Fault, detail: str) -> Failure:
    return Failure.of(fault, detail, close=True)


HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

_HTTP2_DEBUG = b"this listener speaks HTTP/1.1 only"
HTTP2_REFUSAL = (
    # An empty SETTINGS frame, which a server must send first (RFC 9113 section 3.4) …
    b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
    # … then GOAWAY on stream 0: last stream 0, error HTTP_1_1_REQUIRED (13), and why.
    + (8 + len(_HTTP2_DEBUG)).to_bytes(3)
    + b"\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x0d"
    + _HTTP2_DEBUG
)
"""What a client that opens with the HTTP/2 preface is told: use HTTP/1.1 (RFC 9113 section 7)."""
