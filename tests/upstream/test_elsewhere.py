"""A fallback's cluster: asked once, in time, and never for what may have been executed already."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import RetryPolicy, Route, Thresholds, WeightedCluster
from hms_addons.config.snapshot_forwarding import FallbackKind, FallbackStep
from hms_addons.errors import ExchangeFailed
from hms_addons.http_message import BodyStream
from hms_addons.upstream.elsewhere import try_elsewhere
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
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer
    from tests.fakes.upstream import Peer


def step(timeout: float | None = 1.0, *, own: bool = False) -> FallbackStep:
    route = Route(
        name="verify-id",
        listener="inbound_http",
        clusters=(WeightedCluster(cluster="cache"),),
        service="auth-svc",
        timeout=timeout,
    )
    return FallbackStep(
        kind=FallbackKind.CLUSTER,
        flags=frozenset({"UF"}),
        statuses=frozenset({502, 503, 504}),
        route=route,
        own_timeout=own,
    )


class Fallen(World):
    """auth-svc, and the cluster `cache` to fall back to."""

    def __init__(self, **options: Any) -> None:
        options.setdefault("route", {"timeout": 1.0})
        super().__init__(1, **options)
        cache = make_cluster("cache", service="auth-svc", endpoints=other_specs(1))
        self.apply(make_cluster(), cache)
        self.began = self.clock.monotonic()

    @property
    def cache(self) -> Peer:
        return self.connector.peer("10.0.1.1:80")

    async def elsewhere(self, exchange: Exchange, chosen: FallbackStep | None = None) -> Any:
        return await try_elsewhere(exchange, self.manager, chosen or step(), self.began)


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Fallen]]:
    """Makes worlds; each is closed and must have nothing left over."""
    worlds: list[Fallen] = []

    def make(**options: Any) -> Fallen:
        worlds.append(Fallen(**options))
        return worlds[-1]

    yield make
    for world in worlds:
        await settle()
        world.check_quiet()
        await world.close()


async def lose(world: Fallen, exchange: Exchange) -> None:
    with pytest.raises(ExchangeFailed):
        await world.forward(exchange)


async def test_another_cluster_answers(make: Any) -> None:
    world = make()
    world.peer().on_connect(REFUSED)
    exchange = world.exchange(method="POST", content=b"x")
    await lose(world, exchange)
    answer = await world.elsewhere(exchange)
    assert answer.status == 200
    assert exchange.cluster.name == "cache"
    assert [(a.cluster, a.outcome) for a in exchange.attempts] == [
        ("auth-svc", "connect-failure"),
        ("cache", "200"),
    ]
    assert exchange.route is world.route, "header rules are still the route's"


async def test_what_may_have_been_executed_is_not_sent_there(make: Any) -> None:
    world = make()
    world.peer().say(CLOSE)
    exchange = world.exchange(method="POST", content=b"pay")
    await lose(world, exchange)
    assert await world.elsewhere(exchange) is None
    assert world.cache.requests == []


@pytest.mark.parametrize(
    "options",
    [
        {"method": "GET"},
        {"method": "POST", "fields": ((b"Host", b"a"), (b"Idempotency-Key", b"1"))},
    ],
)
async def test_what_may_be_repeated_is(make: Any, options: Any) -> None:
    world = make()
    world.peer().say(CLOSE)
    exchange = world.exchange(**options)
    await lose(world, exchange)
    assert (await world.elsewhere(exchange)).status == 200


async def test_opting_out_per_route_counts_here_too(make: Any) -> None:
    world = make(retry=RetryPolicy(retry_non_idempotent=True))
    world.peer().say(UNAVAILABLE)
    exchange = world.exchange(method="POST")
    await world.forward(exchange)
    assert (await world.elsewhere(exchange)).status == 200


async def test_a_streaming_body_that_has_been_sent_is_not_there_any_more(make: Any) -> None:
    world = make()
    world.peer().say(CLOSE)
    body = BodyStream(lambda: None, lambda: None)
    body.feed(b"x")
    body.feed_eof()
    exchange = world.exchange(method="PUT", body=body)
    await lose(world, exchange)
    assert await world.elsewhere(exchange) is None


async def test_it_has_what_is_left_of_the_routes_timeout(make: Any) -> None:
    world = make()
    world.peer().on_connect(REFUSED)
    world.cache.say(SILENCE)
    exchange = world.exchange()
    await world.clock.advance(0.6)
    await lose(world, exchange)
    task: asyncio.Task[Answer | None] = asyncio.create_task(world.elsewhere(exchange))
    await settle()
    await world.clock.advance(0.39)
    assert not task.done()
    await world.clock.advance(0.02)
    assert await task is None
    assert exchange.cluster.name == "auth-svc", "who failed it"


async def test_after_a_time_out_only_its_own_timeout_gives_it_time(make: Any) -> None:
    world = make()
    exchange = world.exchange()
    await world.clock.advance(1)
    assert await world.elsewhere(exchange) is None
    assert (await world.elsewhere(exchange, step(0.5, own=True))).status == 200


async def test_without_any_timeout_it_waits(make: Any) -> None:
    world = make()
    await world.clock.advance(1000)
    assert (await world.elsewhere(world.exchange(), step(None))).status == 200


async def test_it_is_tried_once(make: Any) -> None:
    world = make(retry=RetryPolicy(attempts=3))
    world.cache.say(UNAVAILABLE, OK)
    exchange = world.exchange()
    assert await world.elsewhere(exchange) is None, "an answer that is no good either"
    assert len(world.cache.requests) == 1
    assert exchange.cluster.name == "auth-svc"


async def test_where_it_has_been_already_it_does_not_go_again(make: Any) -> None:
    world = make()
    exchange = world.exchange()
    exchange.cluster = world.snapshot.clusters["cache"]
    assert await world.elsewhere(exchange) is None
    assert world.cache.requests == []


async def test_the_routes_own_thresholds_are_not_asked_again(make: Any) -> None:
    world = make(route={"timeout": 1.0, "thresholds": Thresholds(max_requests=1)})
    world.peer().say(SILENCE)
    hog = asyncio.create_task(world.forward())
    await settle()
    exchange = world.exchange()
    await lose(world, exchange)
    assert (await world.elsewhere(exchange)).status == 200
    hog.cancel()
    await settle()


async def test_cancelled_at_any_await_nothing_is_left() -> None:
    for turns in range(12):
        world = Fallen()
        world.cache.say(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n")
        task = asyncio.create_task(world.elsewhere(world.exchange()))
        await settle(turns)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await settle()
        world.check_quiet()
        await world.close()
