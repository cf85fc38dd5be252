"""What both ends of the proxy share of an HTTP message: header fields, a body, an answer.

- `Fields`: a tuple of `(name, value)` byte pairs, as mitmproxy's `Headers.fields` holds them; the
  helpers here work on it directly, at a tenth of the cost of `Headers[...]`.
- `BodyStream`: a bounded pipe from the connection that receives a body to the one that sends it.
- `Answer`: a response, from an upstream, a plugin or the mesh itself.
- `Tunnel`: the raw bytes behind a `101 Switching Protocols`.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

type Fields = tuple[tuple[bytes, bytes], ...]
"""Header fields in wire order, names in the sender's spelling, several of one name allowed."""

HIGH_WATER = 256 * 1024
"""Bytes a `BodyStream` holds before it asks its producer to stop."""

SENT_ONCE: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"expect", b"authorization"}
)
"""Fields of which a second one makes the request ambiguous."""

_lowered: Final[dict[bytes, bytes]] = {}
_MOST_LOWERED: Final = 1024
_LONGEST_LOWERED: Final = 64


def lower_name(name: bytes) -> bytes:
    """`name.lower()` of a field's name; remembered, for names come again and again."""
    found = _lowered.get(name)
    if found is None:
        found = name.lower()
        if len(name) <= _LONGEST_LOWERED:
            if len(_lowered) >= _MOST_LOWERED:
                _lowered.clear()
            _lowered[name] = found
    return found


def spellings(names: Iterable[bytes]) -> frozenset[bytes]:
    """`names` in lower case, with every mix of `-` and `_`: CGI and WSGI cannot tell them apart."""
    found = set()
    for name in names:
        first, *others = name.lower().replace(b"_", b"-").split(b"-")
        spelled = [first]
        for part in others:
            spelled = [before + joint + part for before in spelled for joint in (b"-", b"_")]
        found.update(spelled)
    return frozenset(found)


def append_lines(parts: list[bytes], fields: Iterable[tuple[bytes, bytes]]) -> None:
    """Append the header lines of `fields`, each with its line break, to be joined with the rest."""
    for name, value in fields:
        parts.append(name)
        parts.append(b": ")
        parts.append(value)
        parts.append(b"\r\n")


def get_field(fields: Fields, lower_name: bytes) -> bytes | None:
    """The first value of `lower_name` (given in lower case), or None."""
    for name, value in fields:
        if name.lower() == lower_name:
            return value
    return None


def without_fields(fields: Fields, lower_names: Iterable[bytes]) -> Fields:
    """`fields` less those whose lower-cased name is in `lower_names`."""
    return tuple(field for field in fields if field[0].lower() not in lower_names)


def set_field(fields: Fields, name: bytes, value: bytes) -> Fields:
    """`fields` with exactly one `name`, at the end."""
    lower = name.lower()
    return (*(field for field in fields if field[0].lower() != lower), (name, value))


class BodyStream:
    """A bounded pipe of body bytes: pushed by a protocol callback, pulled by a coroutine.

    The producer calls `feed`, then `feed_eof` or `fail`. The consumer calls `read` until it returns
    `b""`, or iterates. When more than `HIGH_WATER` bytes wait, `pause` is called (the producer stops
    reading its socket); when the consumer has taken them all, `resume` is. So memory per body is
    bounded by the high-water mark plus one socket read, however long the body is.

    Args:
        pause: stops the producer.
        resume: lets it go on.
        abandon: called once if the consumer closes the stream before its end.
    """

    __slots__ = (
        "_abandon",
        "_chunks",
        "_ended",
        "_error",
        "_pause",
        "_paused",
        "_resume",
        "_size",
        "_waiter",
        "received",
        "trailers",
    )

    def __init__(
        self,
        pause: Callable[[], object],
        resume: Callable[[], object],
        abandon: Callable[[], object] | None = None,
    ) -> None:
        self._pause = pause
        self._resume = resume
        self._abandon = abandon
        self._chunks: deque[bytes] = deque()
        self._size = 0
        self._paused = False
        self._ended = False
        self._error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self.received = 0
        """Bytes fed so far."""
        self.trailers: Fields = ()
        """The trailer section; complete once `read` has returned `b""`."""

    def __repr__(self) -> str:
        state = "failed" if self._error else "ended" if self._ended else "open"
        return f"<BodyStream {state} buffered={self._size}{' paused' if self._paused else ''}>"

    @property
    def ended(self) -> bool:
        """True once the producer has finished or failed, whether or not all was read."""
        return self._ended

    @property
    def complete(self) -> bool:
        """True once the producer has finished without failing."""
        return self._ended and self._error is None

    @property
    def paused(self) -> bool:
        """The producer has been asked to stop, and not yet to go on."""
        return self._paused

    def feed(self, data: bytes) -> None:
        """Producer: more bytes. After the end, or after `close`, they are dropped."""
        if self._ended:
            return
        self._chunks.append(data)
        self._size += len(data)
        self.received += len(data)
        if self._size > HIGH_WATER and not self._paused:
            self._paused = True
            self._pause()
        self._wake()

    def feed_eof(self, trailers: Fields = ()) -> None:
        """Producer: the body is whole."""
        if not self._ended:
            self._ended = True
            self.trailers = trailers
            self._wake()

    def fail(self, error: BaseException) -> None:
        """Producer: the body will never be whole. The reader gets `error` after what has arrived."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None:
            self._waiter = None
            if not waiter.done():
                waiter.set_result(None)

    async def read(self) -> bytes:
        """Consumer: the next piece, `b""` at the end.

        Raises:
            BaseException: what the producer failed with, or `ConnectionAbortedError` after `close`.
        """
        while not self._chunks:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunk = self._chunks.popleft()
        self._size -= len(chunk)
        if self._paused and not self._chunks:
            self._paused = False
            self._resume()
        return chunk

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self.read()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    def close(self) -> None:
        """Consumer: no more will be read. Tells the producer if the body was not yet whole.

        Whoever reads on all the same gets a `ConnectionAbortedError`: what is missing must not look
        like the end.
        """
        abandoned = not self._ended
        if abandoned or self._chunks:
            self._error = self._error or ConnectionAbortedError("the body was given up unread")
        self._chunks.clear()
        self._size = 0
        self._ended = True
        self._wake()
        if self._paused:
            self._paused = False
            self._resume()
        if abandoned and self._abandon is not None:
            self._abandon()


class FilteredStream(BodyStream):
    """What a function makes of another stream.

    A class of its own here, as none that is not compiled may be derived from one that is.

    Args:
        source: closed when this one is.
        pull: gives the next piece, `b""` at the end; it is given this stream, to set its trailers.
    """

    __slots__ = ("_pull", "_source")

    def __init__(
        self, source: BodyStream, pull: Callable[[FilteredStream], Awaitable[bytes]]
    ) -> None:
        super().__init__(_nothing, _nothing)
        self._source = source
        self._pull = pull

    async def read(self) -> bytes:
        """See `BodyStream.read`."""
        return await self._pull(self)

    def close(self) -> None:
        """See `BodyStream.close`."""
        self._source.close()


def _nothing() -> None:
    """Nobody is to be paused: the source is read only when this is."""


class Tunnel(Protocol):
    """The far side of an upgraded connection: raw bytes both ways."""

    incoming: BodyStream
    """What the far side sends."""
    protocol: bytes
    """What the far side has switched to, as its `Upgrade` says."""

    def write(self, data: bytes) -> None:
        """Send; never blocks."""

    async def drain(self) -> None:
        """Wait until what was written has left the buffer."""

    def write_eof(self) -> None:
        """No more will be sent; the far side may go on sending."""

    def close(self) -> None:
        """End it at once, both ways."""


class Answer:
    """A response on its way to the caller.

    Attributes:
        status: 200 to 599, or 101 together with `tunnel`.
        reason: the reason phrase, possibly empty.
        fields: header fields, without the hop-by-hop ones of the connection it came over.
        body: the whole body when it is held, else a stream.
        trailers: the trailer section of a held body (a stream carries its own).
        length: the body's length if known from framing, None for a stream that ends when it ends.
            An answer to HEAD has an empty body and the length that a GET would have had.
        tunnel: set on 101 only.
        local: the mesh made it; no upstream was involved.
        vouched: the `fields` as the parser has read them, which hold no line break; see
            `Exchange.vouched`.
    """

    __slots__ = (
        "body",
        "fields",
        "length",
        "local",
        "reason",
        "status",
        "trailers",
        "tunnel",
        "vouched",
    )

    def __init__(
        self,
        status: int,
        reason: bytes,
        fields: Fields,
        body: bytes | BodyStream = b"",
        *,
        trailers: Fields = (),
        length: int | None = None,
        tunnel: Tunnel | None = None,
        local: bool = False,
    ) -> None:
        self.status = status
        self.reason = reason
        self.fields = fields
        self.body = body
        self.trailers = trailers
        self.length = len(body) if length is None and isinstance(body, bytes) else length
        self.tunnel = tunnel
        self.local = local
        self.vouched: Fields | None = None

    def __repr__(self) -> str:
        body = f"{len(self.body)} bytes" if isinstance(self.body, bytes) else repr(self.body)
        return f"<Answer {self.status} {body}{' local' if self.local else ''}>"

    def release(self) -> None:
        """Give up a body that nobody will read, so that its connection is not left waiting."""
        if isinstance(self.body, BodyStream):
            self.body.close()
        if self.tunnel is not None:
            self.tunnel.close()

    def state(self) -> tuple[Any, ...]:
        """What is sent of it, for `flaw` and `put_back`."""
        return (
            self.status,
            self.reason,
            self.fields,
            self.body,
            self.trailers,
            self.length,
            self.tunnel,
        )

    def put_back(self, state: tuple[Any, ...]) -> None:
        """Make it what it was when `state` was taken."""
        self.status = state[0]
        self.reason = state[1]
        self.fields = state[2]
        self.body = state[3]
        self.trailers = state[4]
        self.length = state[5]
        self.tunnel = state[6]


def flaw(state: tuple[Any, ...]) -> str | None:
    """Why an answer of this `Answer.state` cannot be sent, or None.

    Whoever changed it last was free to leave anything there, whatever the annotations say.
    """
    status, reason, fields, body, trailers, length, tunnel = state
    if not isinstance(status, int) or not (
        200 <= status <= 599 if tunnel is None else status == 101  # noqa: PLR2004 - see `Answer`
    ):
        return f"its status is {status!r}"
    if not isinstance(reason, bytes):
        return f"its reason is of {type(reason)}, not bytes"
    if type(body) is not bytes and not isinstance(body, BodyStream):
        return f"its body is of {type(body)}, not bytes or BodyStream"
    if length is not None and (not isinstance(length, int) or length < 0):
        return f"its length is {length!r}"
    if not _are_fields(fields) or not _are_fields(trailers):
        return "its fields are no tuple of pairs of bytes"
    return None


def _are_fields(fields: Any) -> bool:
    return isinstance(fields, tuple) and all(
        isinstance(field, tuple)
        and len(field) == 2  # noqa: PLR2004 - name and value
        and isinstance(field[0], bytes)
        and isinstance(field[1], bytes)
        for field in fields
    )
