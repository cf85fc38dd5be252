"""Every way an exchange may end out of turn: answered once or cut off, completed once, nothing left."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.engine.hook_chain import HookChain
from hms_addons.errors import ExchangeFailed, Failure, Fault
from hms_addons.http_message import Answer, BodyStream
from hms_addons.upstream.outcome import FAULTS, Outcome, UpstreamError
from tests.fakes.exchange import make_route
from tests.fakes.lane import settle
from tests.fakes.world import World, nothing, phase_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.http import HTTPFlow

    from hms_addons.exchange import Exchange

GET = b"GET /verify-id HTTP/1.1\r\nHost: auth-svc.svc\r\n\r\n"
POST = b"POST /reimburse HTTP/1.1\r\nHost: pay.svc\r\nTransfer-Encoding: chunked\r\n\r\n"


class Source:
    """A streaming answer, and what has become of it."""

    def __init__(self) -> None:
        self.abandoned = 0
        self.stream = BodyStream(lambda: None, lambda: None, self._abandon)

    def _abandon(self) -> None:
        self.abandoned += 1

    def answer(self, exchange: Exchange | None = None) -> Answer:
        return Answer(200, b"OK", (), self.stream)


async def hang(*_: Any) -> None:
    await asyncio.Event().wait()


async def take_the_body(exchange: Exchange) -> Answer:
    """What `resilience` does with a body that breaks off."""
    assert exchange.body is not None
    try:
        pieces = [piece async for piece in exchange.body]
    except OSError as error:
        raise ExchangeFailed(Failure.of(FAULTS[Outcome.REQUEST_BODY], str(error))) from error
    return Answer(200, b"OK", (), b"".join(pieces))


# --- cancellation at every await ----------------------------------------------------------------------

WAITS = ("identify", "route", "authorize", "prepare", "forward", "respond")
EVENTS = ("client_connected", "requestheaders", "request", "responseheaders", "response")


@pytest.mark.parametrize("how", ["leave", "reset"])
@pytest.mark.parametrize("phase", WAITS)
async def test_the_client_leaves_while_a_plugin_waits(phase: str, how: str) -> None:
    world = World(**phase_of(phase, hang))
    assert await world.send(GET + GET) == []
    assert world.lane.in_flight == 1
    getattr(world.transport, how)()
    await settle()
    assert world.responses() == []
    failure = world.completed[0].failure
    assert failure is not None
    assert failure.flag == "DC"
    await world.end()


@pytest.mark.parametrize("event", EVENTS)
async def test_the_client_leaves_while_an_addon_waits(event: str) -> None:
    gate = asyncio.Event()

    async def wait(data: Any) -> None:
        await gate.wait()

    source = Source()
    whole = Answer(200, b"OK", (), b"whole")
    world = World(
        events={event: wait, "error": nothing},
        forward=lambda exchange: whole if event == "response" else source.answer(),
    )
    assert await world.send(GET) == []
    world.transport.reset()
    await settle()
    assert len(world.completed) == 1
    gate.set()
    await world.end()
    assert source.abandoned == (event == "responseheaders")


async def test_the_client_leaves_while_a_person_holds_the_answer() -> None:
    """Nobody will write it, so its upstream connection must not wait for that."""
    source = Source()
    world = World(events={"responseheaders": lambda flow: flow.intercept()}, forward=source.answer)
    assert await world.send(GET) == []
    world.transport.reset()
    await settle()
    assert source.abandoned == 1
    await world.end()


async def test_the_client_leaves_while_a_person_holds_the_end_of_a_stream() -> None:
    source = Source()
    world = World(events={"response": lambda flow: flow.intercept()}, forward=source.answer)
    source.stream.feed(b"all of it")
    source.stream.feed_eof()
    world.connection.data_received(GET)
    await settle()
    assert bytes(world.transport.sent).endswith(b"all of it\r\n"), "but not its last chunk"
    assert world.completed == []
    world.transport.reset()
    await settle()
    assert len(world.completed) == 1
    await world.end()


async def test_a_stream_s_events_come_at_its_beginning_and_at_its_end() -> None:
    source = Source()
    names = ("requestheaders", "request", "responseheaders", "response", "error")
    world = World(events=dict.fromkeys(names, nothing), forward=source.answer)
    source.stream.feed(b"one")
    world.connection.data_received(GET)
    await settle()
    assert world.log[-1] == "responseheaders"
    assert bytes(world.transport.sent).endswith(b"one\r\n")
    source.stream.feed(b"two")
    source.stream.feed_eof()
    [answer] = await world.send(b"")
    assert answer.body == b"onetwo"
    assert world.log[-2:] == ["response", "complete"]
    flow = world.completed[0].flow
    assert flow.response is not None
    assert flow.response.timestamp_end is not None
    assert flow.error is None
    await world.end()
    assert "error" not in world.log


async def test_a_stream_cut_in_the_middle_has_an_error_and_no_response() -> None:
    source = Source()
    world = World(events={"response": nothing, "error": nothing}, forward=source.answer)
    source.stream.feed(b"half")
    world.connection.data_received(GET)
    await settle()
    source.stream.fail(UpstreamError(Outcome.RESET, "the upstream has gone"))
    await settle()
    assert world.transport.aborted
    assert world.log[-2:] == ["complete", "error"]
    assert "response" not in world.log
    flow = world.completed[0].flow
    assert flow.error is not None
    assert flow.error.msg == "the answer's body was cut short: the upstream has gone"
    assert flow.response is not None
    assert flow.response.timestamp_end is None
    await world.end()


async def test_a_plugin_that_replaces_a_watched_stream_ends_it_for_watchers() -> None:
    source = Source()

    def replace(exchange: Exchange) -> None:
        exchange.answer = Answer(200, b"OK", (), b"mine")

    world = World(events={"response": nothing}, forward=source.answer, respond=replace)
    [answer] = await world.send(GET)
    assert answer.body == b"mine"
    assert world.log[-2:] == ["response", "complete"]
    assert source.abandoned == 1
    await world.end()


@pytest.mark.parametrize(
    "stalled", [False, True], ids=["the upstream is slow", "the client is slow"]
)
async def test_the_client_leaves_in_the_middle_of_a_stream(stalled: bool) -> None:
    source = Source()
    world = World(forward=source.answer)
    world.transport.stalled = stalled
    source.stream.feed(b"x" * 100_000)
    world.connection.data_received(GET)
    await settle()
    await world.end()
    assert source.abandoned == 1


async def test_the_client_leaves_in_the_middle_of_its_body() -> None:
    world = World(forward=take_the_body)
    assert await world.send(POST + b"5\r\nhel") == []
    await world.end()
    assert world.completed[0].bytes_in == 3


@pytest.mark.parametrize("phase", WAITS)
async def test_a_plugin_that_awaited_something_cancelled_fails_like_any_other(phase: str) -> None:
    first = True

    async def sometimes(exchange: Exchange) -> Any:
        nonlocal first
        if first:
            first = False
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            future.cancel()
            await future
        if phase == "route":
            return make_route()
        return Answer(200, b"OK", (), b"second") if phase == "forward" else None

    world = World(**phase_of(phase, sometimes))
    one, two = await world.send(GET + GET)
    # What respond raises is logged and counted, and the answer goes out.
    assert one.status == (200 if phase == "respond" else 500)
    assert two.status == 200
    assert world.chain.errors == {("scripted", f"hms_{phase}"): 1}
    await world.end(2)


@pytest.mark.parametrize("phase", [phase for phase in WAITS if phase != "forward"])
async def test_a_plugin_that_hangs_is_given_up_and_the_connection_goes_on(phase: str) -> None:
    first = True

    async def sometimes(exchange: Exchange) -> Any:
        nonlocal first
        if first:
            first = False
            await hang(exchange)
        return make_route() if phase == "route" else None

    world = World(**phase_of(phase, sometimes))
    assert await world.send(GET + GET) == []
    await world.clock.advance(14.9)
    assert world.responses() == []
    await world.clock.advance(0.2)
    await settle()
    one, two = world.responses()
    assert (one.status, two.status) == (500, 200)
    assert b"'scripted' was still waiting after 15s in hms_" + phase.encode() in one.body
    failure = world.completed[0].failure
    assert failure is not None
    assert failure.flag == "PE"
    await world.end(2)


@pytest.mark.parametrize("kind", [GeneratorExit, KeyboardInterrupt, SystemExit, RuntimeError])
@pytest.mark.parametrize("where", ["complete", "chain"])
async def test_whatever_is_raised_at_the_end_the_connection_goes_on(
    where: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise kind

    world = World(**phase_of("complete", fails) if where == "complete" else {})
    if where == "chain":
        monkeypatch.setattr(HookChain, "complete", fails)
    last = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    for request in (GET, last):
        try:
            world.connection.data_received(request)
        except (KeyboardInterrupt, SystemExit):
            # asyncio hands on these two alone: from an eager task's first step, through here.
            assert where != "complete"
        await settle()
    assert [answer.status for answer in world.responses()] == [200, 200]
    assert world.transport.is_closing() or world.connection._lingering


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("kind", [GeneratorExit, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("phase", ["identify", "route", "authorize", "prepare", "forward"])
async def test_whatever_a_plugin_raises_is_answered(
    phase: str, kind: type[BaseException], *, later: bool
) -> None:
    def now(exchange: Exchange) -> None:
        raise kind

    async def afterwards(exchange: Exchange) -> None:
        await asyncio.sleep(0)
        raise kind

    world = World(**phase_of(phase, afterwards if later else now))
    answers = await world.send(GET + GET)
    assert [(a.status, a.headers["x-hms-flag"]) for a in answers] == [(500, "PE")] * 2
    await world.end(completed=2)


async def test_hms_complete_that_raises_a_cancellation_leaves_nothing_hanging() -> None:
    def complete(_exchange: Exchange) -> None:
        raise asyncio.CancelledError

    world = World(complete=complete)
    assert [response.status for response in await world.send(GET + GET)] == [200, 200]
    assert world.chain.errors == {("scripted", "hms_complete"): 2}
    await world.end(2)


class Silent:
    """The upstream's side of a tunnel that says nothing."""

    def __init__(self) -> None:
        self.incoming = BodyStream(lambda: None, lambda: None)
        self.protocol = b"echo"
        self.closed = 0

    def write(self, data: bytes) -> None:
        return

    async def drain(self) -> None:
        return

    def write_eof(self) -> None:
        return

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize("how", ["reset", "leave"])
async def test_the_client_leaves_a_tunnel(how: str) -> None:
    tunnel = Silent()
    world = World(forward=lambda exchange: Answer(101, b"", (), tunnel=tunnel))
    upgrade = b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    world.connection.data_received(GET[:-2] + upgrade + b"early")
    await settle()
    world.connection.data_received(b"late")
    await settle()
    getattr(world.transport, how)()
    await settle()
    if how == "leave":  # only its side: the upstream may still speak
        assert world.completed == []
        tunnel.incoming.feed_eof()
        await settle()
    assert tunnel.closed
    assert world.completed[0].bytes_in == 9
    await world.end()


async def test_the_client_leaves_before_its_tunnel_begins() -> None:
    tunnel = Silent()
    held = asyncio.Event()
    world = World(
        forward=lambda exchange: Answer(101, b"", (), tunnel=tunnel),
        respond=lambda exchange: held.wait(),
    )
    upgrade = b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    await world.send(GET[:-2] + upgrade)
    assert tunnel.closed == 0
    world.transport.reset()
    await settle()
    assert tunnel.closed
    await world.end()


# --- an answer that is not written -----------------------------------------------------------------------


@pytest.mark.parametrize("event", ["responseheaders", "response"])
async def test_a_streaming_answer_that_is_killed_is_let_go(event: str) -> None:
    source = Source()
    source.stream.feed(b"piece")
    if event == "response":
        source.stream.feed_eof()
    world = World(events={event: lambda flow: flow.kill(), "error": nothing}, forward=source.answer)
    world.connection.data_received(GET)
    await settle()
    assert world.transport.aborted
    sent = bytes(world.transport.sent)
    assert sent.endswith(b"piece\r\n") if event == "response" else not sent
    assert source.abandoned == (event == "responseheaders"), "else it was read to its end"
    assert world.log.count("error") == (event == "responseheaders")
    failure = world.completed[0].failure
    assert failure is not None
    assert (failure.flag, failure.detail[:19]) == ("DC", "the flow was killed")
    await world.end()


async def test_a_flow_killed_while_it_is_forwarded() -> None:
    gate = asyncio.Event()
    flows: list[HTTPFlow] = []
    source = Source()

    async def forward(exchange: Exchange) -> Answer:
        flows.append(exchange.flow)
        await gate.wait()
        return source.answer()

    world = World(events={"error": nothing, "response": nothing}, forward=forward)
    await world.send(GET)
    flows[0].kill()
    gate.set()
    await settle()
    assert world.transport.aborted
    assert source.abandoned == 1
    assert world.log[-2:] == ["error", "complete"]
    assert world.log.count("error") == 1
    assert "response" not in world.log
    failure = world.completed[0].failure
    assert failure is not None
    assert failure.flag == "DC"
    await world.end()


@pytest.mark.parametrize("event", ["requestheaders", "request"])
async def test_a_flow_killed_before_it_is_decided_on_tells_so_once(event: str) -> None:
    world = World(events={event: lambda flow: flow.kill(), "error": nothing})
    assert await world.send(GET) == []
    assert world.log == [event, "error", "complete"]
    await world.end()


async def test_a_plugin_that_replaces_a_streaming_answer() -> None:
    source = Source()

    def replace(exchange: Exchange) -> None:
        exchange.answer = Answer(200, b"OK", (), b"mine")

    world = World(forward=source.answer, respond=replace)
    [answer] = await world.send(GET)
    assert answer.body == b"mine"
    assert source.abandoned == 1
    await world.end()


async def test_a_plugin_that_wraps_a_streaming_answer_may_read_it() -> None:
    source = Source()
    source.stream.feed(b"inner")
    source.stream.feed_eof()

    async def wrap(exchange: Exchange) -> None:
        assert exchange.answer is not None
        inner = exchange.answer.body
        assert isinstance(inner, BodyStream)
        body = b"[" + b"".join([piece async for piece in inner]) + b"]"
        exchange.answer = Answer(200, b"OK", (), body)

    world = World(forward=source.answer, respond=wrap)
    [answer] = await world.send(GET)
    assert answer.body == b"[inner]"
    assert source.abandoned == 0
    await world.end()


async def test_a_script_that_replaces_a_streaming_answer() -> None:
    from mitmproxy.http import Response as FlowResponse  # noqa: PLC0415

    source = Source()

    def replace(flow: HTTPFlow) -> None:
        flow.response = FlowResponse.make(418, b"short and stout")

    world = World(events={"responseheaders": replace}, forward=source.answer)
    [answer] = await world.send(GET)
    assert (answer.status, answer.body) == (418, b"short and stout")
    assert source.abandoned == 1
    await world.end()


async def test_a_head_request_lets_go_of_a_streaming_answer() -> None:
    source = Source()
    world = World(forward=source.answer)
    world.connection.data_received(GET.replace(b"GET", b"HEAD"))
    await settle()
    assert source.abandoned == 1
    await world.end()


@pytest.mark.parametrize("junk", ["a string", {"status": 200}, 200, True])
async def test_what_is_no_answer_is_the_plugins_error(junk: Any) -> None:
    world = World(forward=lambda exchange: junk)
    answers = await world.send(GET + GET)
    assert [answer.headers["x-hms-flag"] for answer in answers] == ["PE", "PE"]
    assert world.chain.errors == {("scripted", "hms_forward"): 2}
    await world.end(2)


@pytest.mark.parametrize("junk", [None, "a string"])
async def test_what_is_no_answer_does_not_replace_one(junk: Any) -> None:
    def replace(exchange: Exchange) -> None:
        exchange.answer = junk

    world = World(respond=replace)
    answers = await world.send(GET + GET)
    assert [answer.body for answer in answers] == [b"fine", b"fine"]
    assert world.chain.errors == {("scripted", "hms_respond"): 2}
    await world.end(2)


# --- a body that goes wrong ----------------------------------------------------------------------------------


async def broken(world: World, rest: bytes) -> dict[str, Any]:
    """Send a body in two parts; what the one answer says."""
    assert await world.send(POST + b"5\r\nhello\r\n") == []
    [answer] = await world.send(rest)
    assert answer.headers["connection"] == "close"
    told: dict[str, Any] = json.loads(answer.body)
    assert told["status"] == answer.status
    return told


@pytest.mark.parametrize("watched", [False, True], ids=["unwatched", "watched"])
@pytest.mark.parametrize("fallback", [False, True], ids=["bare", "fallback"])
async def test_bad_chunking_is_the_answer_to_its_own_request(watched: bool, fallback: bool) -> None:
    world = World(events={"response": nothing} if watched else None, forward=take_the_body)
    if fallback:
        answer = Answer(200, b"OK", (), b"as if nothing had happened")
        hook = world.chain._forward[0]._replace(call=lambda exchange, failure: answer)
        world.chain._fallback = (hook,)
    told = await broken(world, b"zz\r\n" + GET)
    assert (told["status"], told["flag"]) == (400, "DPE")
    failure = world.completed[0].failure
    assert failure is not None
    assert (failure.status, failure.flag) == (400, "DPE")
    await world.end()


async def test_a_body_without_progress_is_a_408() -> None:
    world = World(forward=take_the_body)
    assert await world.send(POST + b"5\r\nhello\r\n") == []
    await world.clock.advance(61)
    [answer] = world.responses()
    assert (answer.status, answer.headers["x-hms-flag"]) == (408, "SI")
    await world.end()


async def test_an_early_answer_counts_though_the_body_breaks_then() -> None:
    async def early(exchange: Exchange) -> Answer:
        assert exchange.body is not None
        await exchange.body.read()
        return Answer(200, b"OK", (), b"early")

    world = World(forward=early)
    [answer] = await world.send(POST + b"5\r\nhello\r\n")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert len(await world.send(b"zz\r\n" + GET)) == 1
    await world.end()


# --- plugins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "status"),
    [(Fault.OVERFLOW, 503), (Fault.TIMEOUT, 504), (Fault.UPSTREAM_PROTOCOL, 502)],
)
@pytest.mark.parametrize("phase", ["identify", "authorize", "prepare", "forward"])
async def test_a_failure_raised_anywhere_is_the_answer(
    phase: str, fault: Fault, status: int
) -> None:
    def fail(exchange: Exchange) -> None:
        raise ExchangeFailed(Failure.of(fault, "as the test says", retry_after=3))

    world = World(**phase_of(phase, fail))
    [answer] = await world.send(GET)
    assert (answer.status, answer.headers["retry-after"]) == (status, "3")
    assert world.completed[0].permit is None or phase == "forward"
    await world.end()


def raising(error: Exception) -> Callable[[Exchange], None]:
    def hook(exchange: Exchange) -> None:
        raise error

    return hook


async def test_whatever_respond_raises_the_stream_still_goes_out() -> None:
    source = Source()
    source.stream.feed(b"body")
    source.stream.feed_eof()
    world = World(
        forward=source.answer, respond=raising(ExchangeFailed(Failure.of(Fault.TIMEOUT, "")))
    )
    [answer] = await world.send(GET)
    assert (answer.status, answer.body) == (200, b"body")
    assert world.chain.errors == {("scripted", "hms_respond"): 1}
    await world.end()


async def test_a_line_break_that_a_plugin_puts_into_an_answer_starts_no_line() -> None:
    def inject(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.reason = b"OK\r\nX-Reason: 1"
        exchange.answer.fields = (
            (b"X-A", b"1\r\nX-Evil: 1\r\n\r\nHTTP/1.1 200 OK"),
            (b"X-B\r\nX-Evil", b"2"),
            (b"X-C", b"3\nX-Evil: 3"),
        )

    world = World(respond=inject)
    answers = await world.send(GET)
    assert len(answers) == 1
    assert not {"x-evil", "x-reason"} & set(answers[0].headers)
    await world.end()


# --- the end of everything ---------------------------------------------------------------------------------------


async def test_after_the_task_set_is_closed_late_connections_end_in_silence() -> None:
    world = World(
        events={"client_disconnected": nothing, "error": nothing}, **phase_of("forward", hang)
    )
    await world.send(GET)
    await world.tasks.close()
    world.transport.reset()
    await settle()
    await world.end()
