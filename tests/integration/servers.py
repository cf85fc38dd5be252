"""Upstreams on real sockets that do what a test says, byte by byte, and remember what they got.

An `Upstream` runs on an event loop in a thread of its own. By default it echoes: 200, with a JSON
description of the request as it arrived. For one path it can be told otherwise:

    upstream.on("/flaky", status(503), echo)     the first request, then all others
    upstream.on("/bad", garbage)

A behaviour is `async (Visit) -> bool | None`: it answers one request, and says whether the
connection goes on (None: yes). Requests are kept in `upstream.requests`.
"""

from __future__ import annotations

import abc
import asyncio
import contextlib
import json
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.integration.basics import Closing, Fields, Headed, parse_fields

if TYPE_CHECKING:
    import ssl
    from collections.abc import Awaitable, Callable, Coroutine

    type Behaviour = Callable[[Visit], Awaitable[bool | None]]

POLICY_VERSION = "1.3.4"


@dataclass
class Received(Headed):
    """A request as it arrived, `body` as far as it did."""

    method: str
    target: str
    version: str
    fields: Fields
    connection: int
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    whole: bool = False

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]


@dataclass
class Visit:
    """One request, for the behaviour that answers it."""

    upstream: Serving
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    request: Received

    async def read_body(self) -> bytes:
        """The rest of the request's body; keeps it in the request."""
        async for piece in self.pieces():
            self.request.body += piece
        return self.request.body

    async def pieces(self) -> Any:
        """The body as it arrives; nothing is kept."""
        request = self.request
        if request.header("transfer-encoding") == "chunked":
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                yield await self.reader.readexactly(size)
                assert await self.reader.readexactly(2) == b"\r\n"
            request.trailers = parse_fields(await _read_block(self.reader))
        else:
            left = int(request.header("content-length") or 0)
            while left:
                piece = await self.reader.read(min(left, 256 * 1024))
                if not piece:
                    raise asyncio.IncompleteReadError(b"", left)
                left -= len(piece)
                yield piece
        request.whole = True
        self.upstream.happened()

    async def send(self, data: bytes) -> None:
        """Write and wait until the kernel has taken it."""
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        """Wait for the other side to close."""
        with contextlib.suppress(OSError):
            while await self.reader.read(65536):
                pass


class LoopThread:
    """An event loop in a thread: `run` a coroutine there and wait for its result."""

    def __init__(
        self, factory: Callable[[], asyncio.AbstractEventLoop] = asyncio.new_event_loop
    ) -> None:
        self.loop = factory()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def run[T](self, coroutine: Coroutine[Any, Any, T], timeout: float = 30.0) -> T:
        """Run it on the loop; wait at most `timeout` seconds."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout)

    def close(self) -> None:
        """End the loop; nothing may be running on it any more."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(10)
        self.loop.close()


class Serving(abc.ABC):
    """A server on 127.0.0.1, on the loop that starts it. What it does with a request, a subclass says."""

    def __init__(self, tls: ssl.SSLContext | None = None, greeting: bytes = b"") -> None:
        self.opened = 0
        self.errors: list[Exception] = []
        self.port = 0
        self._tls = tls
        self._greeting = greeting
        self._open: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    @abc.abstractmethod
    def behaviour(self, request: Received) -> Behaviour:
        """What to do with a request whose head has come."""

    @property
    def connections(self) -> int:
        """Connections open now."""
        return len(self._open)

    def happened(self) -> None:  # noqa: B027 - most have nobody who waits
        """A head or the end of a body has come, or a connection ended."""

    async def start(self, port: int = 0) -> None:
        """Listen; 0 picks a free port."""
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", port, ssl=self._tls, backlog=512, limit=2**20
        )
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Stop, and cut every connection off."""
        if self._server is not None:
            self._server.close()
        for task in tuple(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
        # Transports close on later turns of the loop.
        for _ in range(3):
            await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._open.add(task)
        self.opened += 1
        number = self.opened
        try:
            if self._greeting:
                writer.write(self._greeting)
                await writer.drain()
                return
            while await self._serve_one(reader, writer, number):
                pass
        except (OSError, EOFError, asyncio.CancelledError):
            pass  # the other side has gone, or this server stops
        except Exception as error:  # noqa: BLE001 - the test that sees it says more
            self.errors.append(error)
        finally:
            self._open.discard(task)
            writer.transport.abort() if task.cancelling() else writer.close()
            self.happened()

    async def _serve_one(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int
    ) -> bool:
        block = await _read_block(reader)
        line, _, rest = block.partition(b"\r\n")
        method, target, version = line.decode("latin-1").split(" ")
        request = Received(method, target, version, parse_fields(rest), number)
        behave = self.behaviour(request)
        self.happened()
        return await behave(Visit(self, reader, writer, request)) is not False


class Upstream(Serving, Closing):
    """A server on 127.0.0.1, on a loop of its own.

    Args:
        default: what it does where no path says otherwise; `echo` if not given.
        tls: to speak TLS.
        port: 0 picks a free one.
        greeting: said to each connection before anything is read of it, and nothing after.
    """

    def __init__(
        self,
        default: Behaviour | None = None,
        *,
        tls: ssl.SSLContext | None = None,
        port: int = 0,
        greeting: bytes = b"",
    ) -> None:
        super().__init__(tls, greeting)
        self.default: Behaviour = default or echo
        self.requests: list[Received] = []
        self._scripts: dict[str, list[Behaviour]] = {}
        self._changed = threading.Condition()
        self._thread = LoopThread()
        self._thread.run(self.start(port))

    def close(self) -> None:
        """Stop, and cut every connection off."""
        if not self._thread.loop.is_closed():
            self._thread.run(self.stop())
            self._thread.close()

    def behaviour(self, request: Received) -> Behaviour:
        """By its path; the request is kept."""
        self.requests.append(request)
        script = self._scripts.get(request.path)
        if not script:
            return self.default
        return script.pop(0) if len(script) > 1 else script[0]

    # -- for the test ---------------------------------------------------------------------------

    def on(self, path: str, *behaviours: Behaviour) -> str:
        """What to do with requests to `path`: one after the other, the last for ever."""
        self._scripts[path] = list(behaviours)
        return path

    def got(self, path: str) -> list[Received]:
        """The requests to `path` so far."""
        return [request for request in self.requests if request.path == path]

    def one(self, path: str) -> Received:
        """The one request to `path` there has been."""
        (request,) = self.got(path)
        return request

    def wait(self, check: Callable[[], object], what: str, timeout: float = 10.0) -> None:
        """Wait until `check()` is true; it is asked whenever something has happened here.

        Raises:
            AssertionError: it is not, after `timeout` seconds.
        """
        with self._changed:
            done = self._changed.wait_for(check, timeout)
        assert done, f"the upstream has not seen it in {timeout:g} s: {what}"

    def happened(self) -> None:
        """Have those who `wait` look again."""
        with self._changed:
            self._changed.notify_all()


async def _read_block(reader: asyncio.StreamReader) -> bytes:
    """Lines up to an empty one, which may be the first."""
    block = b""
    while (line := await reader.readuntil(b"\r\n")) != b"\r\n":
        block += line
    return block


# -- behaviours that are right ---------------------------------------------------------------------


async def echo(visit: Visit) -> None:
    """200, with what arrived as JSON."""
    body = await visit.read_body()
    request = visit.request
    shown = {
        "port": visit.upstream.port,
        "method": request.method,
        "target": request.target,
        "fields": request.fields,
        "trailers": request.trailers,
        "length": len(body),
        "body": body.decode("latin-1") if len(body) < 4096 else "",
    }
    text = json.dumps(shown).encode()
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nX-From: upstream\r\n"
    await visit.send(head + b"Content-Length: %d\r\n\r\n" % len(text))
    if request.method != "HEAD":
        await visit.send(text)


def says(data: bytes, *, close: bool = False) -> Behaviour:
    """Exactly these bytes, after the whole request."""

    async def behave(visit: Visit) -> bool:
        await visit.read_body()
        await visit.send(data)
        return not close

    return behave


def status(code: int, *fields: str, body: bytes = b"upstream says so") -> Behaviour:
    """An answer of that status."""
    lines = [f"HTTP/1.1 {code} Status", *fields, f"Content-Length: {len(body)}"]
    return says("\r\n".join(lines).encode() + b"\r\n\r\n" + body)


def after(seconds: float, then: Behaviour = echo) -> Behaviour:
    """The same, later."""

    async def behave(visit: Visit) -> bool | None:
        await asyncio.sleep(seconds)
        return await then(visit)

    return behave


def when(event: threading.Event, then: Behaviour = echo) -> Behaviour:
    """The same, once the test sets `event`."""

    async def behave(visit: Visit) -> bool | None:
        await asyncio.get_running_loop().run_in_executor(None, event.wait, 30)
        return await then(visit)

    return behave


def chunks(*pieces: bytes, trailers: bytes = b"", fields: bytes = b"") -> Behaviour:
    """A chunked answer."""
    framed = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n" + fields + b"\r\n"
    return says(head + framed + b"0\r\n" + trailers + b"\r\n")


async def governance(visit: Visit) -> None:
    """HMS-GOV: the version of the policy in force."""
    answer = b'{"version": "%b"}' % POLICY_VERSION.encode()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(answer), answer))


# -- behaviours that are not -----------------------------------------------------------------------


async def silent(visit: Visit) -> bool:
    """Takes the request, never answers."""
    await visit.until_gone()
    return False


async def hang_up(visit: Visit) -> bool:
    """Takes the request, closes without a word."""
    await visit.read_body()
    return False


def reset(visit: Visit) -> bool:
    """End the connection with a TCP reset."""
    sock = visit.writer.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    visit.writer.transport.abort()
    return False


async def reset_at_once(visit: Visit) -> bool:
    """A reset instead of an answer."""
    return reset(visit)


def cut(data: bytes) -> Behaviour:
    """These bytes, then the end of the connection."""
    return says(data, close=True)


def cut_by_reset(data: bytes) -> Behaviour:
    """These bytes, a moment for them to be read, then a reset."""

    async def behave(visit: Visit) -> bool:
        await visit.read_body()
        await visit.send(data)
        await asyncio.sleep(0.05)
        return reset(visit)

    return behave


async def half_close(visit: Visit) -> bool:
    """Closes its sending side after half an answer, and goes on listening."""
    await visit.read_body()
    await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    visit.writer.write_eof()
    await visit.until_gone()
    return False


async def early_half_close(visit: Visit) -> bool:
    """Closes its sending side without an answer, and goes on listening."""
    visit.writer.write_eof()
    await visit.until_gone()
    return False


def trickle(data: bytes, pause: float, size: int = 1) -> Behaviour:
    """These bytes, `size` at a time."""

    async def behave(visit: Visit) -> None:
        await visit.read_body()
        for start in range(0, len(data), size):
            await visit.send(data[start : start + size])
            await asyncio.sleep(pause)

    return behave


GARBAGE = {
    "not http": b"220 mail.mpsa.mil ESMTP ready\r\n",
    "binary": bytes(range(256)) * 4,
    "tls alert": b"\x15\x03\x01\x00\x02\x02\x46",
    "no status": b"HTTP/1.1 \r\n\r\n",
    "status of words": b"HTTP/1.1 OK 200\r\n\r\n",
    "http/0.9": b"<html>hello</html>\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "length of words": b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n0123456789",
    "negative length": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\n",
    "huge header": b"HTTP/1.1 200 OK\r\nX-Huge: " + b"a" * 2**20 + b"\r\n\r\n",
    "endless header": b"HTTP/1.1 200 OK\r\n" + b"X-More: and more\r\n" * 60_000,
    "endless interim": b"HTTP/1.1 102 Processing\r\n\r\n" * 100_000,
    "101 unasked": b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n"
    b"Upgrade: chat\r\n\r\n",
}
"""Answers that are no HTTP/1.1 response, or one nobody should take."""


# -- ports without a server ------------------------------------------------------------------------


def refusing() -> socket.socket:
    """A bound socket that does not listen: its port refuses connections, and stays nobody else's."""
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    return sock


class Unreachable:
    """A port whose connection attempts hang: its backlog is full, so handshakes are dropped."""

    def __init__(self) -> None:
        self._listening = socket.socket()
        self._listening.bind(("127.0.0.1", 0))
        self._listening.listen(0)
        self.port: int = self._listening.getsockname()[1]
        self._filling = [socket.socket() for _ in range(4)]
        for sock in self._filling:
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self.port))

    def close(self) -> None:
        """Let go of it."""
        for sock in (*self._filling, self._listening):
            sock.close()
