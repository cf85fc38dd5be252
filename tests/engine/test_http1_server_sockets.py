"""A connection over real sockets, on both event loops, where the kernel has a say in it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest
import uvloop

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.snapshot import Limits
from hms_addons.engine.listener import PortListener
from hms_addons.http_message import Answer, BodyStream
from tests.fakes.lane import FakeLane, echo, read_responses
from tests.fakes.pki import Presented, context_presenting, svid

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from hms_addons.engine.framing import RequestHead
    from hms_addons.engine.http1_server import Http1Server

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LAST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[None, None, None]], None]:
    factory = uvloop.new_event_loop if request.param == "uvloop" else asyncio.new_event_loop

    def runner(main: Coroutine[None, None, None]) -> None:
        with asyncio.Runner(loop_factory=factory) as loop:
            loop.run(asyncio.wait_for(main, 30))

    return runner


@contextlib.asynccontextmanager
async def serving(lane: FakeLane, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A listener for `lane`; when it ends, no connection may be left."""
    listener = PortListener("test", lane, SYSTEM_CLOCK)
    listener.open("127.0.0.1", 0, tls)
    assert listener.address is not None
    try:
        yield listener.address[1]
    finally:
        listener.close()
        async with asyncio.timeout(5):
            while lane.connections or lane.in_flight:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)


async def connect(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", port)


async def all_of(reader: asyncio.StreamReader) -> bytes:
    """Everything until the end; a reset is an end too."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := await reader.read(65536):
            data += piece
    return data


def test_keep_alive_and_close(run: Callable[[Coroutine[None, None, None]], None]) -> None:
    async def main() -> None:
        async with serving(FakeLane()) as port:
            reader, writer = await connect(port)
            writer.write(GET * 3 + LAST)
            answers = read_responses(await all_of(reader))
            assert [r.status for r in answers] == [200] * 4
            writer.close()

    run(main())


def test_a_refusal_reaches_a_client_that_is_still_sending(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    """Without lingering, its unread bytes would reset the connection and take the answer along."""

    async def main() -> None:
        async with serving(FakeLane(limits=Limits(max_body=1000))) as port:
            for _ in range(5):
                reader, writer = await connect(port)
                head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 8000000\r\n\r\n"
                writer.write(head + b"x" * 8_000_000)
                (answer,) = read_responses(await all_of(reader))
                assert answer.status == 413
                writer.transport.abort()

    run(main())


def test_a_client_that_resets_cancels_its_request(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    async def main() -> None:
        async def never(connection: Http1Server, request: RequestHead) -> Answer:
            started.set()
            await asyncio.Event().wait()
            raise AssertionError

        started = asyncio.Event()
        lane = FakeLane(never)
        async with serving(lane) as port:
            _, writer = await connect(port)
            writer.write(GET)
            await started.wait()
            writer.transport.abort()
        assert isinstance(lane.failures[0], asyncio.CancelledError)

    run(main())


def test_an_aborted_answer_does_not_look_whole(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    async def main() -> None:
        async def cut(connection: Http1Server, request: RequestHead) -> Answer:
            stream = BodyStream(lambda: None, lambda: None)
            stream.feed(b"x" * 10)
            asyncio.get_running_loop().call_later(0.05, stream.fail, EOFError("cut"))
            return Answer(200, b"", (), stream)

        async with serving(FakeLane(cut)) as port:
            reader, writer = await connect(port)
            writer.write(GET)
            data = await all_of(reader)
            assert data.startswith(b"HTTP/1.1 200 OK")
            assert not data.endswith(b"0\r\n\r\n")
            writer.close()

    run(main())


def test_a_slow_client_holds_up_a_long_answer(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    async def main() -> None:
        total = 16 * 1024 * 1024
        made = 0

        async def long(connection: Http1Server, request: RequestHead) -> Answer:
            nonlocal made
            open_tap = asyncio.Event()
            open_tap.set()
            stream = BodyStream(open_tap.clear, open_tap.set)

            async def produce() -> None:
                nonlocal made
                while made < total:
                    await open_tap.wait()
                    stream.feed(b"x" * 65536)
                    made += 65536
                stream.feed_eof()

            tasks.append(asyncio.create_task(produce()))
            return Answer(200, b"", (), stream, length=total)

        tasks: list[asyncio.Task[None]] = []
        async with serving(FakeLane(long)) as port:
            reader, writer = await connect(port)
            writer.write(LAST)
            before = -1
            while before != made or not made:  # until nothing moves any more
                before = made
                await asyncio.sleep(0.2)
            assert made < total / 2
            data = await all_of(reader)
            assert len(data) > total
            writer.close()
        await tasks[0]

    run(main())


def test_http_client_of_the_standard_library(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    def client(port: int) -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=10)
        for body in (b"", b"hello", b"x" * 3_000_000):
            connection.request("POST", "/a", body=body)
            assert connection.getresponse().read() == body
        connection.request("POST", "/a", body=iter([b"a", b"b" * 100_000]), encode_chunked=True)
        assert len(connection.getresponse().read()) == 100_001
        connection.request("HEAD", "/a")
        assert connection.getresponse().read() == b""
        connection.close()

    async def main() -> None:
        async with serving(FakeLane()) as port:
            await asyncio.get_running_loop().run_in_executor(None, client, port)

    run(main())


def presented(service: str) -> Presented:
    return Presented(svid(service).chain_pem(), svid(service).key_pem())


@pytest.mark.parametrize("refused", [False, True], ids=["served", "refused"])
def test_over_tls(
    run: Callable[[Coroutine[None, None, None]], None], tmp_path: Path, refused: bool
) -> None:
    (tmp_path / "server").mkdir()
    (tmp_path / "client").mkdir()
    server = context_presenting(presented("auth-svc"), tmp_path / "server", server=True)
    client = context_presenting(presented("claims-svc"), tmp_path / "client", server=False)

    async def main() -> None:
        async with serving(FakeLane(limits=Limits(max_body=10_000)), server) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client)
            size = 5_000_000 if refused else 5000
            head = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
            writer.write(head % size + b"x" * size)
            (answer,) = read_responses(await all_of(reader))
            assert answer.status == (413 if refused else 200)
            writer.transport.abort()

    run(main())


def test_a_half_close_is_a_leaving(run: Callable[[Coroutine[None, None, None]], None]) -> None:
    """As for nginx and Envoy; what was answered by then arrives."""

    async def main() -> None:
        async def slow(connection: Http1Server, request: RequestHead) -> Answer:
            if request.target == b"/slow":
                await asyncio.Event().wait()
            return await echo(connection, request)

        lane = FakeLane(slow)
        async with serving(lane) as port:
            reader, writer = await connect(port)
            writer.write(GET + GET.replace(b"/ ", b"/slow "))
            await asyncio.sleep(0)
            while len(lane.heads) < 2:  # noqa: ASYNC110 - nobody tells of it
                await asyncio.sleep(0.01)
            writer.write_eof()
            answers = read_responses(await all_of(reader))
            assert [r.status for r in answers] == [200]
            writer.close()
        assert isinstance(lane.failures[0], asyncio.CancelledError)

    run(main())


def test_bytewise_over_a_real_socket(run: Callable[[Coroutine[None, None, None]], None]) -> None:
    async def main() -> None:
        async with serving(FakeLane()) as port:
            reader, writer = await connect(port)
            writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in GET + LAST:
                writer.write(bytes([byte]))
                await asyncio.sleep(0)
            assert [r.status for r in read_responses(await all_of(reader))] == [200, 200]
            writer.close()

    run(main())
