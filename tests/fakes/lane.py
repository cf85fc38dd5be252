"""A lane that records what it is asked to serve, and a client that talks to it over bytes alone."""

from __future__ import annotations

import asyncio
import re
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from hms_addons.config.snapshot import Limits
from hms_addons.engine.http1_server import Http1Server
from hms_addons.errors import problem
from hms_addons.http_message import Answer
from tests.fakes.clock import FakeClock
from tests.fakes.transport import FakeTransport

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping

    from hms_addons.engine.framing import Refusal, RequestHead
    from hms_addons.errors import Failure
    from hms_addons.http_message import Fields


type Handler = Callable[[Http1Server, RequestHead], Coroutine[None, None, Answer | None]]
"""Serves a request; None when it has answered by itself."""


class Seen(NamedTuple):
    """A request that was served, with its whole body."""

    method: str
    target: str
    body: bytes = b""


async def echo(connection: Http1Server, request: RequestHead) -> Answer:
    """Take the whole body; answer with it."""
    body = await whole_body(request)
    return Answer(200, b"OK", ((b"X-Target", request.target),), body)


async def whole_body(request: RequestHead) -> bytes:
    """A request's body, held or streamed."""
    if request.stream is None:
        return request.body or b""
    return b"".join([piece async for piece in request.stream])


class FakeLane:
    """Implements `engine.lane.Lane`: each request goes to `handler`, which gives the answer.

    It keeps the contract that `FastLane` keeps: `finished` is called once for each, whatever happens.
    """

    def __init__(self, handler: Handler = echo, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.handler = handler
        self.heads: list[RequestHead] = []
        self.seen: list[Seen] = []
        self.refusals: list[Failure] = []
        self.failures: list[BaseException] = []
        self.trailers: list[Fields] = []
        self.connections: set[Http1Server] = set()
        self.in_flight = 0
        self.welcome = True

    def opened(self, connection: Http1Server) -> bool:
        self.connections.add(connection)
        return self.welcome

    def closed(self, connection: Http1Server) -> None:
        self.connections.remove(connection)

    def refused(self, connection: Http1Server, refusal: Refusal) -> None:
        self.refusals.append(refusal.failure)

    def clean_trailers(self, trailers: Fields) -> Fields:
        return tuple(field for field in trailers if field[0].lower() != b"x-caller-role")

    async def handle(self, connection: Http1Server, request: RequestHead) -> None:
        self.heads.append(request)
        self.in_flight += 1
        try:
            answer = await self._answer(connection, request)
            if answer is not None:
                await connection.respond(request, answer)
        except asyncio.CancelledError as error:
            self.failures.append(error)
            raise
        except Exception as error:  # noqa: BLE001 - as FastLane: the connection must end
            self.failures.append(error)
            connection.abort()
        finally:
            self.in_flight -= 1
            if request.stream is not None and not request.stream.ended:
                request.stream.close()
            connection.finished(request)

    async def _answer(self, connection: Http1Server, request: RequestHead) -> Answer | None:
        try:
            answer = await self.handler(connection, request)
        except OSError as error:
            # As FastLane: a body that broke off fails the forwarding, not the connection.
            self.failures.append(error)
            if request.failure is None:
                raise
            reason, fields, body = problem(request.failure, "")
            return Answer(request.failure.status, reason, fields, body, local=True)
        body = request.body or b""
        if request.stream is not None:
            self.trailers.append(request.stream.trailers)
            body = answer.body if answer and isinstance(answer.body, bytes) else b""
        self.seen.append(Seen(request.method.decode(), request.target.decode(), body))
        return answer


class Response(NamedTuple):
    """One response as a strict client reads it."""

    status: int
    headers: dict[str, str]
    body: bytes = b""
    trailers: Mapping[str, str] = MappingProxyType({})
    reason: str = ""


class Wire:
    """A client's end of a connection served by `lane`, on a clock that stands still.

    Args:
        lane: what serves it.
        tls: behave as over TLS.
    """

    def __init__(self, lane: FakeLane | None = None, *, tls: bool = False) -> None:
        self.lane = lane or FakeLane()
        self.clock = FakeClock()
        self.connection = Http1Server(self.lane, self.clock)
        self.transport = FakeTransport(self.connection, tls=tls)

    def feed(self, data: bytes, cuts: Iterable[int] = ()) -> None:
        """Bytes arrive, cut at these offsets; not one more once the server has closed."""
        start = 0
        for end in (*cuts, len(data)):
            if start < end and not self.transport.is_closing():
                self.connection.data_received(data[start:end])
            start = max(start, end)

    async def send(self, data: bytes, step: int | None = None) -> None:
        """Bytes arrive `step` at a time (None: all at once), as fast as the server reads."""
        step = step or len(data) or 1
        for start in range(0, len(data), step):
            for _ in range(20_000):
                if self.transport.reading or self.transport.is_closing():
                    break
                await asyncio.sleep(0)
            if self.transport.is_closing():
                break
            assert self.transport.reading, "the server does not read any more"
            self.connection.data_received(data[start : start + step])
        await settle()

    def responses(self, methods: Iterable[str] = ()) -> list[Response]:
        """All that was answered so far; fails on a byte that is no part of a response.

        Args:
            methods: of the requests, where one is HEAD.
        """
        return read_responses(
            bytes(self.transport.sent), methods, ended=self.transport.is_closing()
        )

    async def gone(self) -> bool:
        """Whether the connection has ended, and left nothing behind."""
        await settle()
        clean = not self.lane.connections and self.lane.in_flight == 0 and self.clock.pending == 0
        return self.transport.lost and clean


async def settle(turns: int = 30) -> None:
    """Let everything run that can run without time passing."""
    for _ in range(turns):
        await asyncio.sleep(0)


_HEAD = re.compile(rb"HTTP/1\.1 ([1-5]\d\d) ([^\r\n]*)\r\n((?:[^\r\n:]+: ?[^\r\n]*\r\n)*)\r\n")
_CHUNK = re.compile(rb"([0-9a-f]+)\r\n")


def read_responses(
    data: bytes, methods: Iterable[str] = (), *, ended: bool = True
) -> list[Response]:
    """Every response in `data`, interim ones included, by the rules of RFC 9112 section 6.3."""
    found = []
    left = list(methods)
    while data:
        head = _HEAD.match(data)
        assert head is not None, f"not the head of a response: {data[:120]!r}"
        data = data[head.end() :]
        status, headers = int(head[1]), _fields(head[3])
        if 100 <= status < 200:
            found.append(Response(status, headers, reason=head[2].decode()))
            if status == 101:
                found[-1] = found[-1]._replace(body=data)
                return found
            continue
        method = left.pop(0) if left else "GET"
        body = b""
        trailers: dict[str, str] = {}
        if method == "HEAD" or status in {204, 304}:
            pass
        elif headers.get("transfer-encoding") == "chunked":
            assert "content-length" not in headers
            body, trailers, data = _dechunk(data)
        elif "content-length" in headers:
            length = int(headers["content-length"])
            assert len(data) >= length, f"{len(data)} of {length} bytes of a body: {data[:80]!r}"
            body, data = data[:length], data[length:]
        else:
            assert ended, "a body that ends with the connection, which goes on"
            body, data = data, b""
        found.append(Response(status, headers, body, trailers, head[2].decode()))
    return found


def _fields(block: bytes) -> dict[str, str]:
    pairs = [line.decode("latin-1").split(":", 1) for line in block.split(b"\r\n") if line]
    return {name.lower(): value.strip() for name, value in pairs}


def _dechunk(data: bytes) -> tuple[bytes, dict[str, str], bytes]:
    body = b""
    while True:
        size = _CHUNK.match(data)
        assert size is not None, f"no chunk: {data[:80]!r}"
        data = data[size.end() :]
        length = int(size[1], 16)
        if not length:
            break
        assert len(data) >= length + 2
        assert data[length : length + 2] == b"\r\n"
        body, data = body + data[:length], data[length + 2 :]
    block, end, rest = (b"\r\n" + data).partition(b"\r\n\r\n")
    assert end, f"the trailer section does not end: {data[:80]!r}"
    return body, _fields(block), rest
