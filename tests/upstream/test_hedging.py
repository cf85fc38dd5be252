"""Hedged requests: who wins, who is cancelled, and that no slot is left behind."""

from __future__ import annotations

import asyncio
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_addons.config.snapshot import OutlierDetection, RetryPolicy, Thresholds
from hms_addons.config.snapshot_forwarding import Hedge
from hms_addons.errors import ExchangeFailed, Failure, Fault, Flag
from hms_addons.http_message import Answer, BodyStream
from hms_addons.tasks import TaskSet
from hms_addons.upstream.endpoint import EndpointState
from hms_addons.upstream.hedging import race
from hms_addons.upstream.latency_quantile import WARM_UP
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import CLOSE, OK, REFUSED, SILENCE, UNAVAILABLE, World, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine

    from hms_addons.exchange import Exchange

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
AFTER_50MS = Hedge(after=0.05)
ONE_STRIKE = OutlierDetection(consecutive_gateway_failure=1)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., World]]:
    """Makes worlds whose route is hedged; each is closed and must have nothing left over."""
    worlds: list[World] = []

    def make(*args: Any, hedge: Hedge = AFTER_50MS, **options: Any) -> World:
        route = {"hedge": hedge, **options.pop("route", {})}
        worlds.append(World(*args, route=route, **options))
        worlds[-1].manager.pick_endpoint = lambda _, candidates: candidates[0]
        return worlds[-1]

    yield make
    for world in worlds:
        await settle()
        world.check_quiet()
        await world.close()


async def start(world: World, exchange: Exchange | None = None) -> asyncio.Task[Answer]:
    task = asyncio.create_task(world.forward(exchange))
    await settle()
    return task


def tried(exchange: Exchange) -> list[tuple[str, str]]:
    return [(attempt.endpoint, attempt.outcome) for attempt in exchange.attempts]


# -- what a caller sees ----------------------------------------------------------------------------


async def test_a_slow_first_try_is_overtaken_by_a_second_elsewhere(make: Any) -> None:
    world = make(2)
    world.peer(1).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(0.049)
    assert world.peer(2).requests == []
    await world.clock.advance(0.001)
    assert (await task).status == 200
    assert tried(exchange) == [("10.0.0.2:80", "200"), ("10.0.0.1:80", "cancelled")]
    assert exchange.endpoint == "10.0.0.2:80"
    await settle()
    assert world.peer(1).transports[0].aborted, "closed, not pooled"
    assert len(world.endpoint(2).pool.idle) == 1


async def test_the_first_may_still_win(make: Any) -> None:
    world = make(2)
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(0.05)
    world.peer(1).send(world.peer(1).transports[0], OK)
    assert (await task).status == 200
    assert exchange.endpoint == "10.0.0.1:80"
    assert tried(exchange) == [("10.0.0.1:80", "200"), ("10.0.0.2:80", "cancelled")]
    await settle()
    assert world.peer(2).transports[0].aborted


async def test_a_quick_answer_is_not_hedged(make: Any) -> None:
    world = make(2)
    assert await world.get(4) == [200] * 4
    assert world.peer(2).requests == []


async def test_a_bad_answer_does_not_win_while_another_try_runs(make: Any) -> None:
    world = make(2)
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(0.05)
    world.peer(2).send(world.peer(2).transports[0], UNAVAILABLE)
    await settle()
    assert not task.done()
    world.peer(1).send(world.peer(1).transports[0], OK)
    assert (await task).status == 200
    assert exchange.endpoint == "10.0.0.1:80"


async def test_if_all_are_bad_an_answer_says_more_than_a_loss(make: Any) -> None:
    world = make(2)
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(0.05)
    world.peer(2).send(world.peer(2).transports[0], UNAVAILABLE)
    await settle()
    world.peer(1).transports[0].lose(None)
    assert (await task).status == 503
    assert exchange.endpoint == "10.0.0.2:80"


async def test_a_lost_race_is_retried_as_the_policy_says(make: Any) -> None:
    world = make(3, retry=RetryPolicy(attempts=1, backoff_base=0.0))
    world.manager.pick_endpoint = lambda _, candidates: candidates[0]
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(0.05)
    world.peer(1).transports[0].lose(None)
    await settle()
    world.peer(2).transports[0].lose(None)
    assert (await task).status == 200
    assert tried(exchange)[-1] == ("10.0.0.3:80", "200")


@pytest.mark.parametrize(
    "options",
    [
        {"method": "POST"},
        {"method": "PUT"},
        {"method": "GET", "content": b"x"},
        {"fields": ((b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))},
    ],
)
async def test_only_reads_without_a_body_are_hedged(make: Any, options: Any) -> None:
    world = make(2)
    world.peer(1).say(SILENCE)
    task = await start(world, world.exchange(**options))
    await world.clock.advance(1)
    assert world.peer(2).requests == []
    task.cancel()
    await settle()


async def test_there_must_be_another_endpoint(make: Any) -> None:
    world = make(1)
    world.peer().say(SILENCE)
    task = await start(world)
    await world.clock.advance(1)
    assert len(world.peer().requests) == 1
    task.cancel()
    await settle()


async def test_the_retry_budget_bounds_hedges(make: Any) -> None:
    world = make(2, outlier_detection=None)
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    tasks = [await start(world) for _ in range(8)]
    await world.clock.advance(0.05)
    assert len(world.peer(2).requests) == 3, "max_retries"
    assert world.cluster.breaker.retries == 3
    for task in tasks:
        task.cancel()
    await settle()
    assert world.cluster.breaker.retries == 0


@pytest.mark.parametrize("where", ["cluster", "route"])
async def test_a_hedge_keeps_its_slot_when_the_next_finds_none(make: Any, where: str) -> None:
    limits = {"thresholds": Thresholds(max_retries=1)}
    hedge = Hedge(after=0.05, most=2)
    world = (
        make(3, hedge=hedge, route=limits) if where == "route" else make(3, hedge=hedge, **limits)
    )
    for n in (1, 2, 3):
        world.peer(n).say(SILENCE)
    task = await start(world)
    for _ in range(4):
        await world.clock.advance(0.05)
    assert [len(world.peer(n).requests) for n in (1, 2, 3)] == [1, 1, 0]
    assert world.cluster.breaker.retries == 1
    task.cancel()
    await settle()
    assert world.cluster.breaker.retries == 0


async def test_a_routes_budget_counts_too(make: Any) -> None:
    world = make(2, route={"thresholds": Thresholds(max_retries=0)})
    world.peer(1).say(SILENCE)
    task = await start(world)
    await world.clock.advance(1)
    assert world.peer(2).requests == []
    assert world.cluster.breaker.retries == 0
    task.cancel()
    await settle()


async def test_a_hedge_waits_for_no_connection(make: Any) -> None:
    world = make(2, thresholds=Thresholds(max_connections=1))
    world.peer(1).say(SILENCE)
    task = await start(world)
    await world.clock.advance(1)
    assert world.peer(2).requests == []
    assert world.cluster.breaker.pending == 0
    task.cancel()
    await settle()


async def test_at_most_so_many(make: Any) -> None:
    world = make(4, hedge=Hedge(after=0.05, most=2))
    for n in (1, 2, 3, 4):
        world.peer(n).say(SILENCE)
    task = await start(world)
    for _ in range(5):
        await world.clock.advance(0.05)
    assert [len(world.peer(n).requests) for n in (1, 2, 3, 4)] == [1, 1, 1, 0]
    task.cancel()
    await settle()


async def test_the_routes_timeout_ends_all_of_them(make: Any) -> None:
    world = make(2, route={"timeout": 1.0})
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    task = await start(world)
    await world.clock.advance(0.05)
    await world.clock.advance(0.95)
    with pytest.raises(ExchangeFailed) as caught:
        await task
    assert caught.value.failure.flag is Flag.UT


async def test_a_streaming_winner_keeps_its_slots_to_its_end(make: Any) -> None:
    world = make(2)
    world.peer(1).say(SILENCE)
    world.peer(2).say(CHUNKED)
    task = await start(world)
    await world.clock.advance(0.05)
    answer = await task
    await settle()
    assert isinstance(answer.body, BodyStream)
    breaker = world.cluster.breaker
    assert (breaker.requests, breaker.connections, breaker.retries) == (1, 1, 0)
    answer.release()


async def test_an_overtaken_probe_is_given_up(make: Any) -> None:
    world = make(2, outlier_detection=ONE_STRIKE)
    world.cluster.detector.record(world.endpoint(1), 503, "told by somebody", probe=False)
    await world.clock.advance(30)
    assert world.endpoint(1).state is EndpointState.HALF_OPEN
    world.peer(1).say(SILENCE)
    task = await start(world)
    assert world.endpoint(1).probing
    await world.clock.advance(0.05)
    assert (await task).status == 200
    await settle()
    assert not world.endpoint(1).probing, "the next request may try it"


async def test_a_quantile_is_used_once_it_is_known(make: Any) -> None:
    world = make(2, hedge=Hedge(after=None, quantile=0.95))
    world.peer(1).say(SILENCE)
    for _ in range(WARM_UP):
        task = await start(world)
        await world.clock.advance(0.01)
        assert world.peer(2).requests == [], "not known yet"
        transport = next(t for t in world.peer(1).transports if not t.closing)
        world.peer(1).send(transport, OK)
        assert (await task).status == 200
    task = await start(world)
    await world.clock.advance(0.012)
    assert (await task).status == 200
    assert len(world.peer(2).requests) == 1
    world.apply(*world.snapshot.clusters.values())
    assert world.manager._latencies == {}, "no listener has such a route now"


# -- races in themselves ---------------------------------------------------------------------------


def nothing() -> None:
    """A stream's producer that cannot be stopped."""


async def says(answer: Answer | Exception, event: asyncio.Event) -> Answer:
    await event.wait()
    if isinstance(answer, Exception):
        raise answer
    return answer


async def test_what_is_not_taken_is_released() -> None:
    clock, tasks = FakeClock(), TaskSet("race")
    released: list[str] = []
    streams = [
        BodyStream(nothing, nothing, partial(released.append, n)) for n in ("first", "second")
    ]
    both = asyncio.Event()
    answers = [Answer(500, b"", (), stream) for stream in streams]
    begun = [says(answers[1], both)]

    def another() -> Coroutine[Any, Any, Answer] | None:
        return begun.pop() if begun else None

    running = asyncio.create_task(race(says(answers[0], both), another, 1.0, clock, tasks))
    await clock.advance(1)
    both.set()
    finish = await running
    assert finish.outcome is answers[1]
    assert released == ["first"]
    assert (len(tasks), clock.pending) == (0, 0)


async def test_a_lost_try_says_more_than_one_that_never_was() -> None:
    clock, tasks = FakeClock(), TaskSet("race")
    go = asyncio.Event()
    lost = UpstreamError(Outcome.RESET, "gone")
    refused = ExchangeFailed(Failure.of(Fault.NO_HEALTHY_UPSTREAM, "none"))
    begun = [says(refused, go)]
    running = asyncio.create_task(
        race(says(lost, go), lambda: begun.pop() if begun else None, 1.0, clock, tasks)
    )
    await clock.advance(1)
    go.set()
    assert (await running).outcome is lost


async def test_what_nobody_expects_is_raised_and_nothing_left() -> None:
    clock, tasks = FakeClock(), TaskSet("race")
    go = asyncio.Event()
    go.set()
    with pytest.raises(RuntimeError):
        await race(says(RuntimeError("bug"), go), lambda: None, 1.0, clock, tasks)
    assert (len(tasks), clock.pending) == (0, 0)


# -- nothing is left behind ------------------------------------------------------------------------


@pytest.mark.parametrize("lines", [[OK], [UNAVAILABLE], [CHUNKED], [SILENCE], [CLOSE]])
async def test_cancelled_at_any_await_nothing_is_left(lines: list[Any]) -> None:
    """Cancel after each turn of the loop in turn, with the hedge's moment among them."""
    for turns in range(30):
        world = World(3, retry=RetryPolicy(attempts=1), route={"hedge": Hedge(after=0.05, most=2)})
        for peer in (world.peer(n) for n in (1, 2, 3)):
            peer.say(*lines)
            peer.on_connect(None, SILENCE, None)
        task = asyncio.create_task(world.forward())
        for turn in range(turns):
            await asyncio.sleep(0)
            if turn % 4 == 3:
                world.clock.tick(0.05)
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(result, BaseException):
            result.release()
        await settle()
        world.check_quiet()
        await world.close()


LINES = st.sampled_from([OK, OK, UNAVAILABLE, CLOSE, SILENCE, SILENCE, CHUNKED, b"\0\0"])
CONNECTS = st.sampled_from([None, None, None, REFUSED, SILENCE])


@settings(max_examples=40)
@given(
    st.lists(st.lists(LINES, min_size=1, max_size=5), min_size=3, max_size=3),
    st.lists(st.lists(CONNECTS, min_size=1, max_size=3), min_size=3, max_size=3),
    st.integers(0, 2**32),
)
def test_any_interleaving_gives_every_slot_back(
    scripts: list[list[Any]], connects: list[list[Any]], seed: int
) -> None:
    asyncio.run(ordeal(scripts, connects, random.Random(seed)))


async def ordeal(scripts: list[list[Any]], connects: list[list[Any]], rng: random.Random) -> None:
    limits = Thresholds(max_connections=4, max_pending_requests=3, max_requests=6)
    world = World(
        3,
        retry=RetryPolicy(attempts=2, per_try_timeout=0.4),
        route={"timeout": 1.0, "thresholds": limits, "hedge": Hedge(after=0.1, most=2)},
        thresholds=limits,
        outlier_detection=OutlierDetection(consecutive_gateway_failure=2, base_ejection_time=0.3),
    )
    for n, (lines, on_connect) in enumerate(zip(scripts, connects, strict=True), 1):
        world.peer(n).say(*lines)
        world.peer(n).on_connect(*on_connect)
    tasks = []
    for _ in range(10):
        exchange = world.exchange(method=rng.choice(["GET", "HEAD", "POST"]))
        tasks.append(asyncio.create_task(world.forward(exchange)))
        await settle(rng.randrange(6))
        if rng.random() < 0.2:
            rng.choice(tasks).cancel()
        if rng.random() < 0.5:
            world.clock.tick(rng.random() * 0.3)
    for _ in range(6):
        await world.clock.advance(0.4)
        await settle()
    for task in tasks:
        task.cancel()
    for result in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(result, BaseException):
            assert isinstance(result, ExchangeFailed | asyncio.CancelledError), result
        else:
            result.release()
    await settle()
    world.check_quiet()
    assert len(world.manager.tasks) == 0
    await world.close()
