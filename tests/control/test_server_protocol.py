from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.config import Config
from uvicorn.server import ServerState

from hms_addons.control.api.frame import MAX_BODY
from hms_addons.control.auth import NOBODY, Peer
from hms_addons.control.server_protocol import ControlProtocol, Limits
from tests.fakes.asgi import Echo
from tests.fakes.clock import FakeClock
from tests.fakes.transport import FakeTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LIMITS = Limits(head_bytes=1024, head_fields=10, head_time=10, body_pause=5, body_time=20)


class Connection:
    """A connection to an `Echo`, without a socket."""

    def __init__(self) -> None:
        self.app = Echo()
        self.clock = FakeClock()
        self.state = ServerState()
        self.lost = 0
        config = Config(self.app, ws="none", lifespan="off", log_config=None, access_log=False)
        self.protocol = ControlProtocol(
            config,
            self.state,
            peer_of=lambda _: NOBODY,
            clock=self.clock,
            limits=LIMITS,
            on_lost=self._on_lost,
        )
        self.transport = FakeTransport(self.protocol, tls=True)

    def _on_lost(self, _: Any) -> None:
        self.lost += 1

    async def feed(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.protocol.data_received(piece)
            await self.turn()

    async def turn(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def pass_time(self, seconds: float) -> None:
        self.clock.tick(seconds)
        await self.turn()

    @property
    def answers(self) -> list[int]:
        """The statuses of what was sent."""
        found = self.transport.sent.split(b"HTTP/1.1 ")[1:]
        return [int(part[:3]) for part in found]

    @property
    def body(self) -> bytes:
        return bytes(self.transport.sent).rpartition(b"\r\n\r\n")[2]


@pytest.fixture
async def connection() -> AsyncIterator[Connection]:
    made = Connection()
    yield made
    made.app.released.set()
    await made.turn()
    made.transport.abort()
    await made.turn()
    assert made.clock.pending == 0
    assert made.lost == 1
    assert not made.state.connections


GET = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"


async def test_it_serves_and_keeps_the_connection(connection: Connection) -> None:
    await connection.feed(GET, GET)
    assert connection.answers == [200, 200]
    assert connection.body == b"GET /a nobody 0"
    assert not connection.transport.is_closing()
    assert connection.app.scopes[0]["scheme"] == "https"


async def test_a_body_in_pieces_is_whole(connection: Connection) -> None:
    await connection.feed(
        b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nab", b"cd", b"ef"
    )
    assert connection.body == b"PUT /b nobody 6"


@pytest.mark.parametrize(
    "head",
    [
        b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % (b"a" * 2000),
        b"GET / HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % (b"a" * 2000),
        b"GET / HTTP/1.1\r\nHost: x\r\n%s\r\n" % (b"X: y\r\n" * 20),
    ],
    ids=["target", "field", "fields"],
)
async def test_a_head_too_large_is_refused(connection: Connection, head: bytes) -> None:
    await connection.feed(head)
    assert connection.answers == [431]
    problem = json.loads(connection.body)
    assert problem["status"] == 431
    assert "1024 bytes in 10 fields" in problem["detail"]
    assert connection.transport.sent.lower().count(b"connection: close") == 1
    await connection.pass_time(1.1)
    assert connection.transport.is_closing()
    assert not connection.app.scopes


async def test_a_field_without_an_end_is_refused_while_it_grows(connection: Connection) -> None:
    await connection.feed(b"GET / HTTP/1.1\r\nX: ", *[b"a" * 400] * 3)
    assert connection.answers == [431]
    assert connection.transport.is_closing()


async def test_a_large_body_and_the_next_head_in_one_piece_are_not_too_large_a_head(
    connection: Connection,
) -> None:
    body = b"b" * 5000
    await connection.feed(
        b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 5000\r\n\r\n" + body + GET[:10], GET[10:]
    )
    assert connection.answers == [200, 200]


async def test_what_is_not_http_is_refused_as_a_problem(connection: Connection) -> None:
    await connection.feed(b"\x16\x03\x01 hello\r\n\r\n")
    assert connection.answers == [400]
    assert json.loads(connection.body)["title"] == "Bad Request"
    assert connection.transport.is_closing()


async def test_a_connection_that_says_nothing_is_closed_without_a_word(
    connection: Connection,
) -> None:
    await connection.pass_time(9.9)
    assert not connection.transport.is_closing()
    await connection.pass_time(0.2)
    assert connection.transport.is_closing()
    assert not connection.transport.sent


async def test_empty_lines_do_not_keep_a_connection(connection: Connection) -> None:
    for _ in range(11):
        await connection.feed(b"\r\n")
        await connection.pass_time(1)
    assert connection.transport.is_closing()


async def test_a_slow_head_is_refused(connection: Connection) -> None:
    for byte in GET[:8]:
        await connection.feed(bytes([byte]))
        await connection.pass_time(1)
    await connection.pass_time(2.1)
    assert connection.answers == [408]
    assert connection.transport.is_closing()


async def test_a_body_without_progress_is_refused(connection: Connection) -> None:
    await connection.feed(b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nab")
    await connection.pass_time(4.9)
    assert connection.answers == []
    await connection.pass_time(0.2)
    assert connection.answers == [408]
    assert json.loads(connection.body)["detail"].startswith("the request's body made no progress")
    await connection.pass_time(1.1)
    assert connection.transport.is_closing()


async def test_a_body_that_trickles_is_refused_too(connection: Connection) -> None:
    await connection.feed(b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 60\r\n\r\n")
    for _ in range(10):
        await connection.feed(b"a")
        await connection.pass_time(2)
    assert connection.answers == [408]


async def test_a_long_poll_is_not_slow(connection: Connection) -> None:
    await connection.feed(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    await connection.pass_time(60)
    assert connection.answers == []
    connection.app.released.set()
    await connection.turn()
    assert connection.answers == [200]


async def test_an_early_answer_waits_a_little_for_a_client_that_still_sends(
    connection: Connection,
) -> None:
    await connection.feed(b"PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9000\r\n\r\nab")
    assert connection.answers == [200]
    assert not connection.transport.is_closing()
    await connection.feed(b"c" * 4000)
    assert connection.answers == [200]
    await connection.pass_time(1.1)
    assert connection.transport.is_closing()


async def test_it_reads_twice_the_largest_body_and_not_without_end(connection: Connection) -> None:
    await connection.feed(b"PUT /early HTTP/1.1\r\nHost: x\r\nContent-Length: 900000000\r\n\r\nab")
    for _ in range(2 * MAX_BODY // (256 * 1024)):
        await connection.feed(b"c" * 256 * 1024)
    assert not connection.transport.is_closing()
    await connection.feed(b"c")
    assert connection.transport.is_closing()


async def test_a_peer_that_no_longer_counts_is_closed_when_idle(connection: Connection) -> None:
    await connection.feed(GET)
    connection.protocol.forget_peer(Peer(problem="retired"))
    await connection.turn()
    assert connection.transport.is_closing()


async def test_or_when_what_runs_is_answered(connection: Connection) -> None:
    await connection.feed(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    connection.protocol.forget_peer(Peer(problem="retired"))
    assert not connection.transport.is_closing()
    connection.app.released.set()
    await connection.turn()
    assert connection.answers == [200]
    assert connection.transport.is_closing()


async def test_and_a_request_that_is_just_arriving_knows_it(connection: Connection) -> None:
    await connection.feed(GET[:10])
    connection.protocol.forget_peer(Peer(problem="retired"))
    await connection.feed(GET[10:])
    assert connection.body == b"GET /a retired 0"


async def test_a_client_that_leaves_is_noticed(connection: Connection) -> None:
    await connection.feed(b"PUT /b HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nab")
    connection.transport.reset()
    await connection.turn()
    assert connection.answers == []
    assert not connection.state.tasks


async def test_its_repr_says_what_is_arriving(connection: Connection) -> None:
    assert repr(connection.protocol) == "<ControlProtocol ('192.0.2.7', 40000) idle>"
    await connection.feed(GET[:10])
    assert repr(connection.protocol).endswith(" head>")
