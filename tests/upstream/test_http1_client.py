"""One connection, without a socket: every way an exchange can go, and that it ends exactly once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.http_message import BodyStream
from hms_addons.tasks import TaskSet
from hms_addons.upstream.http1_client import HELD_LIMIT, Http1Connection
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import FakeTransport, settle

if TYPE_CHECKING:
    import asyncio

    from hms_addons.http_message import Answer

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
LONG = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


class Rig:
    """A connection, its owner's diary, and the far end."""

    def __init__(self) -> None:
        self.clock = FakeClock(monotonic=100.0)
        self.tasks = TaskSet("test")
        self.diary: list[str] = []
        self.connection = Http1Connection(self, self.clock, self.tasks)
        self.transport = FakeTransport(self.connection, lambda data: None)
        self.connection.connection_made(self.transport)

    def finished(self, connection: Http1Connection, *, reusable: bool) -> None:
        assert connection is self.connection
        self.diary.append("reusable" if reusable else "finished")

    def lost(self, connection: Http1Connection) -> None:
        self.diary.append("lost")

    def gone(self, connection: Http1Connection) -> None:
        self.diary.append("gone")

    def send(self, data: bytes = GET, *args: Any, **options: Any) -> asyncio.Future[Answer]:
        return self.connection.send(data, *args, **options)

    def say(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def end(self) -> None:
        self.connection.abort()
        await settle()
        await self.tasks.close()
        assert self.clock.pending == 0
        assert self.diary.count("gone") == 1
        assert self.diary.count("lost") == 1


@pytest.fixture
async def rig() -> Any:
    rig = Rig()
    yield rig
    await rig.end()


async def failure(waiter: asyncio.Future[Answer]) -> tuple[Outcome, str]:
    with pytest.raises(UpstreamError) as caught:
        await waiter
    return caught.value.outcome, caught.value.detail


# -- responses -------------------------------------------------------------------------------------


async def test_a_small_response_is_held_and_the_connection_kept(rig: Rig) -> None:
    for n in range(1, 4):
        waiter = rig.send()
        rig.say(OK[:20])
        rig.say(OK[20:39])
        assert not waiter.done()
        rig.say(OK[39:])
        answer = await waiter
        assert (answer.status, answer.body, answer.length) == (200, b"ok", 2)
        assert rig.diary == ["reusable"] * n
        assert repr(rig.connection) == f"<Http1Connection idle served={n}>"
    assert bytes(rig.transport.written) == GET * 3


async def test_a_longer_response_streams(rig: Rig) -> None:
    waiter = rig.send(hold=1000)
    rig.say(LONG % 1500 + b"x" * 500)
    answer = await waiter
    assert isinstance(answer.body, BodyStream)
    assert answer.length == 1500
    assert await answer.body.read() == b"x" * 500
    rig.say(b"y" * 1000)
    assert rig.diary == ["reusable"]
    assert await answer.body.read() == b"y" * 1000
    assert await answer.body.read() == b""


async def test_a_response_of_just_the_limit_is_held(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(LONG % HELD_LIMIT)
    for _ in range(16):
        assert not waiter.done()
        rig.say(b"z" * (HELD_LIMIT // 16))
    assert (await waiter).body == b"z" * HELD_LIMIT


async def test_chunks_pass_at_once_piece_by_piece(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(CHUNKED)
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    for piece in (b"data: 1\n\n", b"data: 2\n\n"):
        rig.say(b"%x\r\n%b\r\n" % (len(piece), piece))
        assert await stream.read() == piece
    rig.say(b"0\r\nX-Sum: 9\r\n\r\n")
    assert await stream.read() == b""
    assert stream.trailers == ((b"X-Sum", b"9"),)
    assert rig.diary == ["reusable"]


async def test_a_chunked_response_in_one_read_needs_no_stream(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(CHUNKED + b"2\r\nok\r\n0\r\nX-Sum: 9\r\n\r\n")
    answer = await waiter
    assert (answer.body, answer.trailers) == (b"ok", ((b"X-Sum", b"9"),))


async def test_head_and_304_tell_the_length_of_what_they_do_not_send(rig: Rig) -> None:
    waiter = rig.send(to_head=True)
    rig.say(LONG % 12345)
    answer = await waiter
    assert (answer.body, answer.length) == (b"", 12345)
    waiter = rig.send()
    rig.say(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 77\r\n\r\n")
    answer = await waiter
    assert (answer.status, answer.body, answer.length) == (304, b"", 77)
    waiter = rig.send(to_head=True)
    rig.say(CHUNKED)
    assert (await waiter).length is None
    assert rig.diary == ["reusable"] * 3


async def test_interim_responses_are_passed_on_but_100(rig: Rig) -> None:
    seen: list[Any] = []
    waiter = rig.send(interim=lambda *head: seen.append(head))
    rig.say(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n")
    assert seen == [(103, b"Early Hints", ((b"Link", b"a"),))]
    assert not waiter.done()
    rig.say(b"HTTP/1.1 102 Processing\r\n\r\n" + OK)
    assert [status for status, _, _ in seen] == [103, 102]
    assert (await waiter).status == 200


async def test_interim_responses_nobody_wants(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert (await waiter).status == 200


async def test_a_body_until_the_end_of_the_connection(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(b"HTTP/1.1 200 OK\r\n\r\nsome ")
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.say(b"more")
    assert rig.connection.eof_received() is False
    assert [piece async for piece in stream] == [b"some ", b"more"]
    assert rig.diary[:2] == ["finished", "lost"]


async def test_connection_close_ends_it_in_good_order(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    assert (await waiter).body == b"ok"
    assert (rig.transport.closing, rig.transport.aborted) == (True, False)
    assert rig.diary == ["finished", "lost"]


# -- failures --------------------------------------------------------------------------------------


async def test_closed_without_a_word(rig: Rig) -> None:
    waiter = rig.send()
    rig.connection.eof_received()
    with pytest.raises(UpstreamError, match="closed the connection without a response") as caught:
        await waiter
    assert (caught.value.outcome, caught.value.stale) == (Outcome.RESET, False)


async def test_a_pooled_connection_that_dies_unheard_is_stale(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(OK)
    await waiter
    waiter = rig.send()
    rig.transport.lose(ConnectionResetError())
    with pytest.raises(UpstreamError, match="reset the connection without a response") as caught:
        await waiter
    assert caught.value.stale


async def test_a_byte_of_response_and_it_is_not_stale(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(OK)
    await waiter
    waiter = rig.send()
    rig.say(b"H")
    rig.connection.eof_received()
    with pytest.raises(UpstreamError, match="in the middle of its response head") as caught:
        await waiter
    assert not caught.value.stale


@pytest.mark.parametrize("held", [True, False])
async def test_a_body_cut_short_fails(rig: Rig, *, held: bool) -> None:
    waiter = rig.send(hold=HELD_LIMIT if held else 0)
    rig.say(LONG % 10 + b"12345")
    if held:
        rig.connection.eof_received()
        assert await failure(waiter) == (
            Outcome.RESET,
            "closed the connection in the middle of its response",
        )
        return
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.connection.eof_received()
    assert await stream.read() == b"12345"
    with pytest.raises(UpstreamError, match="in the middle of its response"):
        await stream.read()
    assert rig.diary == ["finished", "lost"]


async def test_a_reset_does_not_complete_a_body_that_ends_with_the_connection(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(b"HTTP/1.1 200 OK\r\n\r\nsome")
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.transport.lose(ConnectionResetError())
    assert await stream.read() == b"some"
    with pytest.raises(UpstreamError, match="reset the connection in the middle"):
        await stream.read()


async def test_nonsense_is_a_protocol_error(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(b"SSH-2.0-OpenSSH_9.9\r\n")
    outcome, detail = await failure(waiter)
    assert outcome is Outcome.PROTOCOL_ERROR
    assert detail.startswith("broke HTTP/1.1: ")
    assert rig.transport.aborted


async def test_bytes_after_the_response_cost_the_connection_not_the_answer(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(OK + OK)
    assert (await waiter).body == b"ok"
    assert rig.diary == ["finished", "lost"]


async def test_a_chatty_idle_connection_is_dropped(rig: Rig) -> None:
    rig.say(OK)
    assert rig.transport.aborted
    assert rig.diary == ["lost"]


async def test_an_idle_connection_that_is_closed_is_dropped_at_once(rig: Rig) -> None:
    rig.connection.eof_received()
    assert rig.diary == ["lost"]


async def test_sending_on_a_closing_connection_says_nothing_was_sent(rig: Rig) -> None:
    rig.transport.closing = True
    outcome, _ = await failure(rig.send())
    assert outcome is Outcome.RESET_BEFORE_REQUEST
    assert rig.diary == ["finished", "lost"]
    assert rig.transport.written == b""
    rig.transport.closing = False


async def test_sending_on_a_closed_connection_says_so_too(rig: Rig) -> None:
    rig.connection.abort()
    outcome, _ = await failure(rig.send())
    assert outcome is Outcome.RESET_BEFORE_REQUEST
    assert rig.diary == ["lost", "finished"]


async def test_an_unasked_switch_is_a_protocol_error(rig: Rig) -> None:
    waiter = rig.send()
    rig.say(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ws\r\n\r\n")
    assert (await failure(waiter))[0] is Outcome.PROTOCOL_ERROR


# -- time ------------------------------------------------------------------------------------------


async def test_no_head_by_the_head_deadline(rig: Rig) -> None:
    waiter = rig.send(GET, 110.0, 102.0)
    rig.clock.tick(1.9)
    assert not waiter.done()
    rig.clock.tick(0.1)
    assert await failure(waiter) == (Outcome.TIMEOUT, "gave no response in time")
    assert rig.diary == ["finished", "lost"]


async def test_once_the_head_is_there_the_deadline_counts(rig: Rig) -> None:
    waiter = rig.send(GET, 110.0, 102.0)
    rig.say(LONG % 10)
    rig.clock.tick(9.9)
    assert not waiter.done()
    rig.clock.tick(0.1)
    assert await failure(waiter) == (Outcome.TIMEOUT, "did not finish its response in time")


async def test_a_head_deadline_alone_sets_no_end_to_the_body(rig: Rig) -> None:
    waiter = rig.send(GET, None, 102.0)
    rig.say(CHUNKED)
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.clock.tick(10_000)
    assert not stream.ended


async def test_the_deadline_fails_a_stream(rig: Rig) -> None:
    waiter = rig.send(GET, 110.0)
    rig.say(CHUNKED + b"2\r\nok\r\n")
    stream = (await waiter).body
    assert isinstance(stream, BodyStream)
    rig.clock.tick(10)
    assert await stream.read() == b"ok"
    with pytest.raises(UpstreamError, match="did not finish its response in time"):
        await stream.read()


async def test_a_request_without_deadline_waits_for_ever(rig: Rig) -> None:
    rig.connection.park(160.0)
    waiter = rig.send()
    rig.clock.tick(1_000_000)
    rig.say(OK)
    assert (await waiter).status == 200
