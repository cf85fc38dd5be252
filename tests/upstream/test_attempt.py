"""One try: what it occupies, when the connection takes that over, and what is written down of it.

What becomes of it in all kinds of weather, cancellation included, is in `test_forwarding`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import Thresholds
from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.trace_context import Trace
from hms_addons.upstream.attempt import Try
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.upstream import OK, REFUSED, SILENCE, World, settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
async def world() -> AsyncIterator[World]:
    """Two endpoints; one connection at a time for the route."""
    world = World(2, route={"thresholds": Thresholds(max_connections=1)})
    yield world
    await settle()
    world.check_quiet()
    await world.close()


def make_try(world: World, **options: Any) -> Try:
    return Try(world.exchange(**options), world.manager)


def in_use(world: World) -> tuple[int, int, int]:
    """Connection slots of cluster and route, and requests at the endpoints."""
    route_breaker = world.manager.route_breaker(world.route)
    assert route_breaker is not None
    active = sum(endpoint.active for endpoint in world.cluster.endpoints.values())
    return world.cluster.breaker.connections, route_breaker.connections, active


async def test_what_was_not_routed_cannot_be_tried(world: World) -> None:
    exchange = world.exchange()
    exchange.route = None
    with pytest.raises(ExchangeFailed) as caught:
        Try(exchange, world.manager)
    assert caught.value.failure.flag is Flag.NR


async def test_a_try_occupies_its_slots_until_the_answer_is_whole(world: World) -> None:
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    one = make_try(world)
    task = asyncio.create_task(one._attempt(None))
    await settle()
    assert in_use(world) == (1, 1, 1)
    (transport,) = [t for n in (1, 2) for t in world.peer(n).transports]
    world.peer().send(transport, OK)
    assert in_use(world) == (0, 0, 0), "the connection gives them back, whoever waits"
    assert (await task).status == 200


async def test_a_try_that_sent_nothing_gives_its_slots_back_itself(world: World) -> None:
    for n in (1, 2):
        world.peer(n).on_connect(REFUSED)
    one = make_try(world)
    with pytest.raises(UpstreamError) as caught:
        await one._attempt(None)
    assert caught.value.outcome is Outcome.CONNECT_FAILURE
    assert in_use(world) == (0, 0, 0)


async def test_a_second_try_goes_to_another_endpoint_and_both_are_written_down(
    world: World,
) -> None:
    one = make_try(world)
    for _ in range(2):
        await one._attempt(None)
    endpoints = {attempt.endpoint for attempt in one._exchange.attempts}
    assert endpoints == {"10.0.0.1:80", "10.0.0.2:80"}
    assert one._exchange.endpoint == one._exchange.attempts[-1].endpoint


async def test_a_replay_goes_to_the_same_endpoint_on_a_fresh_connection(world: World) -> None:
    one = make_try(world)
    await one._attempt(None)
    await one._attempt(one._endpoint)
    first, second = world.connector.attempts
    assert first == second


async def test_a_traced_try_is_sent_on_with_its_own_span_and_written_down(world: World) -> None:
    for n in (1, 2):
        world.peer(n).say(OK)
    exchange = world.exchange()
    exchange.set_request_header(b"traceparent", b"00-bad")
    exchange.follow(Trace(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"))
    trace = exchange.trace
    assert trace is not None
    one = Try(exchange, world.manager)
    (await one._attempt(None)).release()
    (attempt,), (span,) = exchange.attempts, trace.tries
    assert (span.endpoint, span.cluster, span.outcome) == (attempt.endpoint, "auth-svc", "200")
    assert (span.started, span.ended) == (attempt.started, attempt.ended)
    (transport,) = [t for n in (1, 2) for t in world.peer(n).transports]
    assert b"traceparent: " + trace.header(span.span_id) in bytes(transport.written)
    assert trace.value not in bytes(transport.written)
