"""The people of the soak: upstreams that misbehave as they are asked to, and callers that misbehave.

Everything runs on one event loop, on real sockets. A caller writes into `X-Do` what the upstream is to
do, and into `X-Id` who asks: an answer of the upstream's holds that id again, so that an answer to
somebody else's request does not go unseen.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

from tests.integration.basics import Headed, parse_fields
from tests.integration.servers import (
    GARBAGE,
    Received,
    Serving,
    Visit,
    cut,
    early_half_close,
    half_close,
    hang_up,
    reset,
    reset_at_once,
    says,
    silent,
)

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable
    from random import Random

    from tests.integration.basics import Fields
    from tests.integration.servers import Behaviour

BIG = 100_000
"""Bytes of a body that comes in several reads, and fits into `buffer_limit`."""
HELD = 60.0
"""Seconds after which a caller that waits takes the sidecar for hung."""


# -- upstreams -------------------------------------------------------------------------------------


def answer(code: int, body: bytes, *lines: bytes) -> bytes:
    """An answer of the upstream's."""
    head = [b"HTTP/1.1 %d Whatever" % code, b"Content-Length: %d" % len(body), *lines]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


async def ok(visit: Visit) -> None:
    await visit.read_body()
    await visit.send(answer(200, own_id(visit)))


def own_id(visit: Visit) -> bytes:
    return (visit.request.header("x-id") or "nobody").encode()


async def big(visit: Visit) -> None:
    await visit.read_body()
    await visit.send(answer(200, own_id(visit).ljust(BIG, b".")))


async def chunked(visit: Visit) -> None:
    await visit.read_body()
    who = own_id(visit)
    pieces = (b"%x\r\n%b\r\n" % (len(piece), piece) for piece in (who[:2], who[2:]))
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    await visit.send(head + b"".join(pieces) + b"0\r\nX-Sum: 1\r\n\r\n")


async def slow(visit: Visit) -> None:
    await visit.read_body()
    await asyncio.sleep(0.01)
    await visit.send(answer(200, own_id(visit)))


async def interim(visit: Visit) -> None:
    await visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 3)
    await ok(visit)


async def early(visit: Visit) -> bool:
    """Answers before the body has come, and closes."""
    await visit.send(answer(413, own_id(visit), b"Connection: close"))
    return False


async def closing(visit: Visit) -> bool:
    await ok(visit)
    return False


async def lost(visit: Visit) -> bool:
    """Half an answer, then a reset."""
    await visit.read_body()
    await visit.send(answer(200, b"x" * BIG)[: BIG // 2])
    return reset(visit)


async def switch(visit: Visit) -> bool:
    """Takes an upgrade, says back what it hears; declines everything else."""
    if visit.request.header("upgrade") is None:
        await ok(visit)
        return True
    await visit.send(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
    )
    while data := await visit.reader.read(4096):
        if data == b"bye":
            return False
        await visit.send(data)
    return False


async def governance(visit: Visit) -> None:
    await visit.read_body()
    await visit.send(answer(200, b'{"version": "1.3.4"}'))


GOOD: dict[str, Behaviour] = {
    "ok": ok,
    "big": big,
    "chunked": chunked,
    "slow": slow,
    "interim": interim,
    "closing": closing,
}
FAULTS: dict[str, Behaviour] = {
    "500": says(answer(500, b"")),
    "503": says(answer(503, b"", b"Retry-After: 0")),
    "early": early,
    "reset": reset_at_once,
    "lost": lost,
    "hang up": hang_up,
    "half": half_close,
    "early half": early_half_close,
    "silent": silent,
    "cut": cut(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort"),
    "cut head": cut(b"HTTP/1.1 200 OK\r\nContent-Le"),
    "cut chunk": cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nsho"),
    "lies": says(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nmore than two"),
    **{name: cut(data) for name, data in GARBAGE.items() if len(data) < BIG},
}
OTHER: dict[str, Behaviour] = {"switch": switch, "governance": governance}
BEHAVIOURS = GOOD | FAULTS | OTHER


class Fickle(Serving):
    """An upstream that does what each request asks for."""

    def behaviour(self, request: Received) -> Behaviour:
        wish = "governance" if request.path == "/policy-header" else request.header("x-do")
        return BEHAVIOURS[wish or "ok"]


# -- callers ---------------------------------------------------------------------------------------


class Reply(NamedTuple):
    """What a caller got."""

    status: int
    fields: Fields
    body: bytes
    closes: bool

    def header(self, name: str) -> str | None:
        headed = Headed()
        headed.fields = self.fields
        return headed.header(name)


class Ports(NamedTuple):
    """Where the sidecar listens."""

    out: int
    sometimes: int
    """A listener that comes and goes."""


BAD_HEADS = (
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost : a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"GET /\x00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
)


class Caller:
    """One client: makes its share of the requests, well-behaved and otherwise, one after the other.

    Args:
        name: unique; part of each request's id.
        rng: decides everything.
        ports: of the sidecar.
        tokens: `Authorization` values: good ones first, then as many bad ones.
        paths: routes to choose from.
        hooks: what `X-Mischief` may ask of the plugin.
        seen: counts outcomes, for all callers together.
    """

    def __init__(
        self,
        name: str,
        rng: Random,
        ports: Ports,
        tokens: tuple[list[str], list[str]],
        paths: list[str],
        hooks: list[str],
        seen: Counter[str],
    ) -> None:
        self.name = name
        self.rng = rng
        self.ports = ports
        self.good_tokens, self.bad_tokens = tokens
        self.paths = paths
        self.hooks = hooks
        self.seen = seen
        self.sent = 0
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter | None = None
        self._acts: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (40, self._ask),
            (12, self._ask_a_fault),
            (8, self._mischief),
            (5, self._bad_token),
            (5, self._pipeline),
            (4, self._leave_in_head),
            (4, self._leave_in_body),
            (6, self._leave_waiting),
            (4, self._leave_reading),
            (3, self._half_close),
            (3, self._dribble),
            (4, self._malformed),
            (3, self._tunnel),
            (2, self._expect),
        ]

    async def run(self, requests: int) -> None:
        """Make so many requests, whole or not."""
        weights = [weight for weight, _ in self._acts]
        while self.sent < requests:
            act = self.rng.choices(self._acts, weights)[0][1]
            try:
                async with asyncio.timeout(HELD):
                    await act()
            except TimeoutError:
                raise AssertionError(f"{self.name} hangs in {act.__name__}") from None
            except (OSError, EOFError) as error:
                self.seen[f"gone: {act.__name__}"] += 1
                self.seen[type(error).__name__] += 1
                self._drop()
        self._drop()

    # -- speaking -------------------------------------------------------------------------------

    async def _connected(self) -> asyncio.StreamWriter:
        if self._writer is None or self._writer.is_closing():
            port = self.ports.out
            if self.rng.random() < 0.1:
                port = self.ports.sometimes
            self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        return self._writer

    def _drop(self, *, hard: bool | None = None) -> None:
        """Leave: in good order, or by a reset."""
        writer, self._writer = self._writer, None
        if writer is None:
            return
        if self.rng.random() < 0.5 if hard is None else hard:
            sock = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        else:
            writer.close()

    def _request(
        self, do: str = "ok", *, path: str | None = None, lines: tuple[str, ...] = ()
    ) -> tuple[str, bytes]:
        """A request and its id; with a body of random size and framing, or none."""
        self.sent += 1
        who = f"{self.name}-{self.sent}"
        method = self.rng.choice(("GET", "GET", "GET", "POST", "PUT"))
        head = [
            f"{method} {path or self.rng.choice(self.paths)} HTTP/1.1",
            "Host: soak.test",
            f"X-Id: {who}",
            f"X-Do: {do}",
            *lines,
        ]
        body = b""
        if method != "GET":
            body = bytes(self.rng.choice((0, 10, 5_000, BIG)))
            if self.rng.random() < 0.3 and body:
                head.append("Transfer-Encoding: chunked")
                body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
            else:
                head.append(f"Content-Length: {len(body)}")
        return who, "\r\n".join(head).encode() + b"\r\n\r\n" + body

    async def _send(self, data: bytes) -> None:
        writer = await self._connected()
        writer.write(data)
        await writer.drain()

    async def _head(self) -> tuple[int, Fields]:
        block = await self._reader.readuntil(b"\r\n\r\n")
        line, _, rest = block.partition(b"\r\n")
        assert line.startswith(b"HTTP/1.1 "), line
        return int(line.split(b" ")[1]), parse_fields(rest)

    async def _reply(self) -> Reply:
        code, fields = await self._head()
        while 100 <= code < 200 and code != 101:
            code, fields = await self._head()
        reply = Reply(code, fields, b"", closes=False)
        body = b""
        if code != 101 and reply.header("transfer-encoding") == "chunked":
            while size := int(await self._reader.readuntil(b"\r\n"), 16):
                body += await self._reader.readexactly(size)
                await self._reader.readexactly(2)
            while await self._reader.readuntil(b"\r\n") != b"\r\n":
                pass
        elif code != 101:
            body = await self._reader.readexactly(int(reply.header("content-length") or 0))
        closes = (reply.header("connection") or "").lower() == "close"
        return reply._replace(body=body, closes=closes)

    async def _take(self, who: str) -> Reply:
        """The answer to the request `who`; it may be nobody else's."""
        reply = await self._reply()
        flag = reply.header("x-hms-flag")
        self.seen[f"{reply.status} {flag or 'upstream'}"] += 1
        if reply.status == 200:
            assert reply.body.rstrip(b".") in {who.encode(), b"mo", b"mischief"}, (who, reply)
        if reply.closes:
            self._drop(hard=False)
        return reply

    # -- acts -----------------------------------------------------------------------------------

    async def _ask(self) -> None:
        who, data = self._request(self.rng.choice(list(GOOD)))
        await self._send(data)
        await self._take(who)

    async def _ask_a_fault(self) -> None:
        who, data = self._request(self.rng.choice(list(FAULTS)))
        await self._send(data)
        await self._take(who)

    async def _mischief(self) -> None:
        line = f"X-Mischief: {self.rng.choice(self.hooks)}"
        who, data = self._request(self.rng.choice(("ok", "500")), lines=(line,))
        await self._send(data)
        await self._take(who)

    async def _bad_token(self) -> None:
        bad = self.rng.random() < 0.7
        token = self.rng.choice(self.bad_tokens if bad else self.good_tokens)
        who, data = self._request(path="/guarded", lines=(f"Authorization: {token}",))
        await self._send(data)
        reply = await self._take(who)
        assert reply.status in {401, 403, 500} if bad else reply.status != 401, reply

    async def _pipeline(self) -> None:
        requests = [self._request(self.rng.choice(list(GOOD))) for _ in range(3)]
        await self._send(b"".join(data for _, data in requests))
        for who, _ in requests:
            await self._take(who)

    async def _leave_in_head(self) -> None:
        _, data = self._request()
        await self._send(data[: self.rng.randrange(1, data.index(b"\r\n\r\n"))])
        self._drop()

    async def _leave_in_body(self) -> None:
        _, data = self._request("ok")
        head = data.index(b"\r\n\r\n") + 4
        await self._send(data[: self.rng.randrange(head, len(data)) if len(data) > head else head])
        self._drop()

    async def _leave_waiting(self) -> None:
        _, data = self._request(self.rng.choice(("slow", "silent", "big", "ok")))
        await self._send(data)
        await asyncio.sleep(self.rng.random() * 0.02)
        self._drop()

    async def _leave_reading(self) -> None:
        _, data = self._request("big")
        await self._send(data)
        await self._reader.read(self.rng.randrange(1, 1000))
        self._drop()

    async def _half_close(self) -> None:
        who, data = self._request()
        await self._send(data)
        assert self._writer is not None
        self._writer.write_eof()
        await self._take(who)
        self._drop()

    async def _dribble(self) -> None:
        who, data = self._request()
        step = max(1, len(data) // 7)
        for start in range(0, len(data), step):
            await self._send(data[start : start + step])
            await asyncio.sleep(0)
        await self._take(who)

    async def _malformed(self) -> None:
        self.sent += 1
        await self._send(self.rng.choice(BAD_HEADS))
        reply = await self._reply()
        self.seen[f"{reply.status} {reply.header('x-hms-flag')}"] += 1
        assert 400 <= reply.status < 500, reply
        self._drop()

    async def _tunnel(self) -> None:
        lines = ("Connection: Upgrade", "Upgrade: chat")
        who, data = self._request("switch", lines=lines)
        await self._send(data)
        reply = await self._take(who)
        if reply.status != 101:
            return
        await self._send(b"hello")
        assert await self._reader.readexactly(5) == b"hello"
        if self.rng.random() < 0.5:
            await self._send(b"bye")
            assert await self._reader.read() == b""
        self._drop()

    async def _expect(self) -> None:
        self.sent += 1
        who = f"{self.name}-{self.sent}"
        path = self.rng.choice(self.paths)
        await self._send(
            f"POST {path} HTTP/1.1\r\nHost: a\r\nX-Id: {who}\r\nX-Do: ok\r\n"
            "Expect: 100-continue\r\nContent-Length: 3\r\n\r\n".encode()
        )
        code, _ = await self._head()
        if code != 100:
            self._drop()
            return
        await self._send(b"abc")
        await self._take(who)
