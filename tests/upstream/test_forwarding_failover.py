"""Failover: another cluster takes the requests of one that has no usable endpoint."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hms_addons.config.snapshot import OutlierDetection, RetryPolicy, Thresholds, UpstreamTls
from hms_addons.config.snapshot_forwarding import Hedge
from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.http_message import BodyStream
from hms_addons.upstream.endpoint import EndpointState
from tests.fakes.upstream import (
    CLOSE,
    OK,
    REFUSED,
    SILENCE,
    UNAVAILABLE,
    World,
    make_cluster,
    other_specs,
    settle,
    specs,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hms_addons.upstream.endpoint import Endpoint
    from tests.fakes.upstream import Peer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
ONE_STRIKE = OutlierDetection(consecutive_gateway_failure=1)


class Pair(World):
    """auth-svc with `endpoints`, and its failover auth-svc-dr with one, both ejecting at once."""

    def __init__(self, endpoints: int = 1, **options: Any) -> None:
        dr = options.pop("dr", {})
        chain = options.pop("failover", ("auth-svc-dr",))
        super().__init__(endpoints, **options)
        self.apply(
            make_cluster(endpoints=specs(endpoints), failover=chain, outlier_detection=ONE_STRIKE),
            make_cluster(
                "auth-svc-dr",
                **{
                    "service": "auth-svc",
                    "endpoints": other_specs(1),
                    "outlier_detection": ONE_STRIKE,
                }
                | dr,
            ),
        )

    @property
    def dr(self) -> Peer:
        return self.connector.peer("10.0.1.1:80")

    @property
    def dr_endpoint(self) -> Endpoint:
        cluster = self.manager.get("auth-svc-dr")
        assert cluster is not None
        return cluster.endpoints["10.0.1.1", 80]

    def slots(self, name: str) -> tuple[int, int, int]:
        cluster = self.manager.get(name)
        assert cluster is not None
        breaker = cluster.breaker
        return breaker.requests, breaker.connections, breaker.retries


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Pair]]:
    """Makes worlds; each is closed and must have nothing left over."""
    worlds: list[Pair] = []

    def make(*args: Any, **options: Any) -> Pair:
        worlds.append(Pair(*args, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        await settle()
        world.check_quiet()
        await world.close()


def retries(attempts: int) -> RetryPolicy:
    return RetryPolicy(attempts=attempts, backoff_base=0.0)


async def eject_all(world: Pair) -> None:
    for n in range(1, len(world.cluster.endpoints) + 1):
        world.peer(n).on_connect(REFUSED)
    while world.cluster.candidates:
        with pytest.raises(ExchangeFailed):
            await world.forward()


async def test_a_cluster_without_endpoints_hands_its_requests_on(make: Any) -> None:
    world = make(0)
    exchange = world.exchange(method="POST", content=b"x")
    assert (await world.forward(exchange)).status == 200
    assert exchange.cluster.name == "auth-svc-dr"
    assert exchange.notes["failover_from"] == "auth-svc"
    assert [(a.cluster, a.endpoint) for a in exchange.attempts] == [("auth-svc-dr", "10.0.1.1:80")]
    assert exchange.flag is None, "a real answer"
    assert world.slots("auth-svc-dr") == (0, 0, 0)


async def test_once_all_are_ejected_the_other_cluster_answers_until_one_is_back(make: Any) -> None:
    world = make(2)
    await eject_all(world)
    called = len(world.dr.requests)
    assert await world.get(3) == [200] * 3
    assert len(world.dr.requests) == called + 3
    for n in (1, 2):
        world.peer(n).on_connect(None)
    await world.clock.advance(30)
    assert await world.get(3) == [200] * 3
    assert len(world.dr.requests) == called + 3, "back home as soon as home is back"


async def test_the_attempt_that_ejects_the_last_endpoint_is_repeated_elsewhere(make: Any) -> None:
    world = make(1, retry=retries(1))
    world.peer().on_connect(REFUSED)
    exchange = world.exchange()
    assert (await world.forward(exchange)).status == 200
    assert [(a.cluster, a.outcome) for a in exchange.attempts] == [
        ("auth-svc", "connect-failure"),
        ("auth-svc-dr", "200"),
    ]


async def test_what_may_have_been_executed_does_not_go_to_the_other_cluster_either(
    make: Any,
) -> None:
    world = make(1, retry=retries(2))
    world.peer().say(CLOSE)
    exchange = world.exchange(method="POST", content=b"pay")
    with pytest.raises(ExchangeFailed):
        await world.forward(exchange)
    assert world.endpoint().state is EndpointState.OPEN
    assert world.dr.requests == []


async def test_the_slots_are_those_of_the_cluster_that_has_the_request(make: Any) -> None:
    world = make(1, retry=retries(1))
    world.peer().on_connect(REFUSED)
    world.dr.say(SILENCE)
    task = asyncio.create_task(world.forward())
    await settle()
    assert world.slots("auth-svc") == (0, 0, 0)
    assert world.slots("auth-svc-dr") == (1, 1, 1)
    world.dr.send(world.dr.transports[0], OK)
    assert (await task).status == 200


async def test_a_streaming_answer_holds_the_failovers_slots(make: Any) -> None:
    world = make(0)
    world.dr.say(CHUNKED)
    answer = await world.forward()
    assert isinstance(answer.body, BodyStream)
    assert world.slots("auth-svc-dr") == (1, 1, 0)
    assert world.slots("auth-svc") == (0, 0, 0)
    answer.release()


@pytest.mark.parametrize("limits", [Thresholds(max_requests=1), Thresholds(max_retries=0)])
async def test_without_room_there_the_last_answer_is_given(make: Any, limits: Any) -> None:
    world = make(1, retry=retries(1), dr={"thresholds": limits})
    world.dr.say(SILENCE)
    hog = None
    if limits.max_requests == 1:
        hog_exchange = world.exchange()
        hog_exchange.cluster = world.snapshot.clusters["auth-svc-dr"]
        hog = asyncio.create_task(world.forward(hog_exchange))
        await settle()
    world.peer().say(UNAVAILABLE)
    exchange = world.exchange()
    assert (await world.forward(exchange)).status == 503
    assert len(exchange.attempts) == 1
    assert world.manager.get("auth-svc-dr").breaker.overflows == 1
    if hog is not None:
        hog.cancel()
        await settle()


async def test_a_chain_is_followed_to_the_first_usable_cluster(make: Any) -> None:
    world = make(0, failover=("auth-svc-dr", "auth-svc-last"), dr={"endpoints": ()})
    last = make_cluster("auth-svc-last", service="auth-svc", endpoints=other_specs(1))
    world.apply(*world.snapshot.clusters.values(), last)
    exchange = world.exchange()
    assert (await world.forward(exchange)).status == 200
    assert exchange.cluster.name == "auth-svc-last"


async def test_the_end_of_the_chain_is_told(make: Any) -> None:
    world = make(0, dr={"endpoints": ()})
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward()
    failure = caught.value.failure
    assert failure.flag is Flag.UH
    assert "nor has its failover (auth-svc-dr) a usable one" in failure.detail


async def test_a_route_may_forbid_it(make: Any) -> None:
    world = make(0, route={"follows_failover": False})
    with pytest.raises(ExchangeFailed):
        await world.forward()
    assert world.dr.requests == []


async def test_the_last_endpoint_may_go_while_a_request_waits_for_its_turn(make: Any) -> None:
    world = make(1)
    world.apply(
        make_cluster(
            failover=("auth-svc-dr",),
            outlier_detection=ONE_STRIKE,
            thresholds=Thresholds(max_connections=1),
        ),
        world.snapshot.clusters["auth-svc-dr"],
    )
    world.peer().say(SILENCE)
    first = asyncio.create_task(world.forward())
    await settle()
    exchange = world.exchange(method="POST", content=b"x")
    second = asyncio.create_task(world.forward(exchange))
    await settle()
    world.cluster.detector.record(world.endpoint(), 503, "told by somebody else", probe=False)
    first.cancel()
    assert (await second).status == 200
    assert exchange.cluster.name == "auth-svc-dr"


async def test_the_tls_identity_is_the_targets(make: Any) -> None:
    world = make(0, dr={"tls": UpstreamTls(secret="missing", peers=frozenset({"svc/auth-svc"}))})
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward()
    assert "cluster auth-svc-dr: secret 'missing'" in caught.value.failure.detail
    assert world.dr.requests == []


async def test_clusters_tell_where_requests_go_now(make: Any) -> None:
    world = make(0)
    await world.get(2)
    home, away = world.manager.describe()
    assert home["failover"] == {
        "to": ["auth-svc-dr"],
        "now": "auth-svc-dr",
        "requests_total": {"auth-svc-dr": 2},
    }
    assert away["failover"] is None


@pytest.mark.parametrize("lines", [[OK], [UNAVAILABLE, OK], [CHUNKED]])
async def test_cancelled_at_any_await_nothing_is_left(lines: list[Any]) -> None:
    """Cancel after each turn of the loop in turn, on the way from one cluster to the other."""
    for turns in range(40):
        world = Pair(1, retry=RetryPolicy(attempts=2))
        world.peer().on_connect(REFUSED)
        world.dr.say(*lines)
        world.dr.on_connect(None, REFUSED, None)
        task = asyncio.create_task(world.forward())
        for turn in range(turns):
            await asyncio.sleep(0)
            if turn % 5 == 4:
                world.clock.tick(0.1)
        finished = task.done()
        task.cancel()
        (result,) = await asyncio.gather(task, return_exceptions=True)
        if not isinstance(result, BaseException):
            result.release()
        await settle()
        world.check_quiet()
        await world.close()
        if finished:
            return
    pytest.fail("it never came to an end")


LINES = st.sampled_from([OK, OK, UNAVAILABLE, CLOSE, SILENCE, CHUNKED, b"\0\0"])
CONNECTS = st.sampled_from([None, None, REFUSED, SILENCE])
SCRIPT = st.lists(LINES, min_size=1, max_size=5)
DOOR = st.lists(CONNECTS, min_size=1, max_size=4)


@settings(max_examples=40)
@given(st.tuples(SCRIPT, SCRIPT, SCRIPT), st.tuples(DOOR, DOOR, DOOR), st.integers(0, 2**32))
def test_any_weather_on_both_sides_gives_every_slot_back(
    scripts: Any, doors: Any, seed: int
) -> None:
    asyncio.run(ordeal(scripts, doors, random.Random(seed)))


async def ordeal(scripts: Any, doors: Any, rng: random.Random) -> None:
    """Retries, hedges and failover at once, over clusters that eject at the first failure."""
    world = Pair(
        2,
        retry=RetryPolicy(attempts=2, per_try_timeout=0.4),
        route={"timeout": 1.0, "hedge": Hedge(after=0.1)},
        dr={"thresholds": Thresholds(max_requests=3, max_connections=2)},
    )
    for peer, lines, on_connect in zip(
        (world.peer(1), world.peer(2), world.dr), scripts, doors, strict=True
    ):
        peer.say(*lines)
        peer.on_connect(*on_connect)
    tasks = []
    for _ in range(10):
        exchange = world.exchange(method=rng.choice(["GET", "GET", "POST"]))
        tasks.append(asyncio.create_task(world.forward(exchange)))
        await settle(rng.randrange(6))
        if rng.random() < 0.2:
            rng.choice(tasks).cancel()
        if rng.random() < 0.4:
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
    await world.close()
