"""The forward phase against scripted upstreams: every rule of SEMANTICS, and no slot left behind."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mitmproxy.http import Headers

from hms_addons.config.snapshot import OutlierDetection, RetryPolicy, Thresholds
from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.http_message import BodyStream
from hms_addons.upstream import forwarding, retry
from hms_addons.upstream.endpoint import EndpointState
from tests.fakes.upstream import (
    CLOSE,
    OK,
    REFUSED,
    SILENCE,
    UNAVAILABLE,
    World,
    settle,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from hms_addons.errors import Failure
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer

INTERNAL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
RESET = ConnectionResetError("reset by peer")
NO_DETECTION: dict[str, Any] = {"outlier_detection": None}
FEW: dict[str, Any] = {"outlier_detection": OutlierDetection(consecutive_gateway_failure=1)}


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., World]]:
    """Makes worlds; each is closed and must have nothing left over."""
    worlds: list[World] = []

    def make(*args: Any, **options: Any) -> World:
        worlds.append(World(*args, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        await settle()
        if world.manager.get("auth-svc") is not None:
            world.check_quiet()
        await world.close()


def retries(attempts: int, **options: Any) -> RetryPolicy:
    """No backoff, so that no test has to move the clock for it."""
    options.setdefault("backoff_base", 0.0)
    return RetryPolicy(attempts=attempts, **options)


async def failure(world: World, exchange: Exchange | None = None) -> Failure:
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward(exchange)
    return caught.value.failure


def outcomes(exchange: Exchange) -> list[str]:
    return [attempt.outcome for attempt in exchange.attempts]


def body_stream(*pieces: bytes, eof: bool = True) -> BodyStream:
    body = BodyStream(lambda: None, lambda: None)
    for piece in pieces:
        body.feed(piece)
    if eof:
        body.feed_eof()
    return body


async def start(world: World, exchange: Exchange | None = None) -> asyncio.Task[Answer]:
    task = asyncio.create_task(world.forward(exchange))
    await settle()
    return task


# -- the request on the wire -----------------------------------------------------------------------


async def test_a_request_and_its_answer(make: Any) -> None:
    world = make()
    exchange = world.exchange()
    answer = await world.forward(exchange)
    assert (answer.status, answer.body, answer.local) == (200, b"ok", False)
    assert world.peer().requests == [b"GET /verify-id?id=7 HTTP/1.1\r\nHost: auth-svc.svc\r\n\r\n"]
    assert exchange.endpoint == "10.0.0.1:80"
    (attempt,) = exchange.attempts
    assert attempt == ("10.0.0.1:80", 1000.0, 1000.0, "200", "auth-svc")
    assert exchange.flag is None


async def test_a_held_body_is_framed_by_what_it_is(make: Any) -> None:
    world = make()
    fields = ((b"Host", b"a"), (b"Content-Length", b"999"), (b"Expect", b"100-continue"))
    await world.forward(world.exchange(method="POST", fields=fields, content=b"edited"))
    assert world.peer().requests[0].endswith(b"\r\nHost: a\r\nContent-Length: 6\r\n\r\nedited")


async def test_a_held_body_with_trailers_goes_chunked(make: Any) -> None:
    world = make()
    trailers = Headers(((b"X-Sum", b"9"),))
    await world.forward(world.exchange(method="POST", content=b"hello", trailers=trailers))
    assert (
        world.peer()
        .requests[0]
        .endswith(b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 9\r\n\r\n")
    )


async def test_a_streaming_body_without_length_goes_chunked(make: Any) -> None:
    world = make()
    world.peer().say(SILENCE)
    task = await start(world, world.exchange(method="POST", body=body_stream(b"one", b"two")))
    transport = world.peer().transports[0]
    head, _, body = bytes(transport.written).partition(b"\r\n\r\n")
    assert b"\r\nTransfer-Encoding: chunked" in head
    assert body == b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"
    world.peer().send(transport, OK)
    assert (await task).status == 200


async def test_a_streaming_body_keeps_its_announced_length(make: Any) -> None:
    world = make()
    world.peer().say(SILENCE)
    fields = ((b"Host", b"a"), (b"Content-Length", b"6"))
    exchange = world.exchange(method="PUT", fields=fields, body=body_stream(b"one", b"two"))
    task = await start(world, exchange)
    transport = world.peer().transports[0]
    assert bytes(transport.written).endswith(b"\r\nContent-Length: 6\r\n\r\nonetwo")
    world.peer().send(transport, OK)
    assert (await task).status == 200


async def test_a_header_with_a_line_break_is_not_sent(make: Any) -> None:
    world = make()
    fields = ((b"Host", b"a"), (b"X-Tag", b"a\r\nX-Caller-Role: admin"))
    failed = await failure(world, world.exchange(fields=fields))
    assert (failed.status, failed.flag) == (500, Flag.PE)
    assert "X-Tag" in failed.detail
    assert world.connector.attempts == []


async def test_a_trailer_with_a_line_break_is_not_sent(make: Any) -> None:
    world = make()
    trailers = Headers(((b"X-Sum", b"9\r\n\r\nGET / HTTP/1.1"),))
    failed = await failure(world, world.exchange(method="POST", content=b"x", trailers=trailers))
    assert failed.flag is Flag.PE
    assert world.connector.attempts == []


async def test_head_gets_a_head(make: Any) -> None:
    world = make()
    world.peer().say(b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n")
    answer = await world.forward(world.exchange(method="HEAD"))
    assert (answer.body, answer.length) == (b"", 500)


async def test_interim_responses_reach_the_caller(make: Any) -> None:
    world = make()
    world.peer().say(b"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n" + OK)
    exchange = world.exchange()
    seen: list[Any] = []
    exchange.interim = lambda *head: seen.append(head)
    await world.forward(exchange)
    assert seen == [(103, b"Early Hints", ((b"Link", b"a"),))]


# -- balance ---------------------------------------------------------------------------------------


async def test_calls_are_spread_evenly(make: Any) -> None:
    world = make(5)
    await world.get(50)
    assert [len(world.peer(n).requests) for n in range(1, 6)] == [10] * 5


async def test_no_endpoints_at_all(make: Any) -> None:
    world = make(0)
    failed = await failure(world)
    assert (failed.status, failed.flag, failed.retry_after) == (503, Flag.UH, None)
    assert failed.detail.startswith(
        "route verify-id, cluster auth-svc: the cluster has no endpoints"
    )


# -- retries ---------------------------------------------------------------------------------------


async def test_a_dead_endpoint_is_detoured_around(make: Any) -> None:
    world = make(3, retry=retries(2))
    world.peer(1).on_connect(REFUSED)
    for _ in range(30):
        exchange = world.exchange(method="POST", content=b"x")  # nothing was delivered: safe
        assert (await world.forward(exchange)).status == 200
        endpoints = [attempt.endpoint for attempt in exchange.attempts]
        assert len(set(endpoints)) == len(endpoints)
    assert world.endpoint(1).state is EndpointState.OPEN


async def test_the_last_answer_is_given_as_it_is(make: Any) -> None:
    world = make(3, retry=retries(2))
    for n in (1, 2, 3):
        world.peer(n).say(UNAVAILABLE)
    exchange = world.exchange()
    answer = await world.forward(exchange)
    assert (answer.status, answer.body, answer.local) == (503, b"busy", False)
    assert outcomes(exchange) == ["503", "503", "503"]
    assert exchange.flag is Flag.URX


async def test_no_policy_no_retry_no_flag(make: Any) -> None:
    world = make(2)
    for n in (1, 2):
        world.peer(n).say(UNAVAILABLE)
    exchange = world.exchange()
    assert (await world.forward(exchange)).status == 503
    assert (len(exchange.attempts), exchange.flag) == (1, None)


async def test_what_is_not_a_condition_is_not_retried(make: Any) -> None:
    world = make(2, retry=retries(2))
    for n in (1, 2):
        world.peer(n).say(INTERNAL)
    exchange = world.exchange()
    assert (await world.forward(exchange)).status == 500
    assert outcomes(exchange) == ["500"]
    assert exchange.flag is None


@pytest.mark.parametrize("line", [UNAVAILABLE, CLOSE, RESET, b"nonsense\r\n\r\n"])
@pytest.mark.parametrize(
    ("method", "fields", "repeated"),
    [
        ("GET", (), True),
        ("PUT", (), True),
        ("POST", (), False),
        ("PATCH", (), False),
        ("POST", ((b"Idempotency-Key", b"8e03978e"),), True),
    ],
)
async def test_what_may_have_been_executed_is_repeated_only_if_idempotent(
    make: Any, line: Any, method: str, fields: Any, *, repeated: bool
) -> None:
    world = make(2, retry=retries(1))
    world.peer(1).say(line)
    world.peer(2).say(line)
    exchange = world.exchange(method=method, fields=((b"Host", b"a"), *fields), content=b"x")
    with_answer = line is UNAVAILABLE
    if with_answer:
        assert (await world.forward(exchange)).status == 503
    else:
        await failure(world, exchange)
    assert len(exchange.attempts) == 1 + repeated
    assert sum(len(world.peer(n).requests) for n in (1, 2)) == 1 + repeated


async def test_opting_out_per_route(make: Any) -> None:
    world = make(2, retry=retries(1, retry_non_idempotent=True))
    for n in (1, 2):
        world.peer(n).say(UNAVAILABLE)
    exchange = world.exchange(method="POST")
    await world.forward(exchange)
    assert len(exchange.attempts) == 2


async def test_a_streaming_body_is_not_repeated_once_begun(make: Any) -> None:
    world = make(2, retry=retries(2))
    for n in (1, 2):
        world.peer(n).say(UNAVAILABLE)
    exchange = world.exchange(method="PUT", body=body_stream(b"one"))
    assert (await world.forward(exchange)).status == 503
    assert len(exchange.attempts) == 1


async def test_a_streaming_body_survives_a_refused_connection(make: Any) -> None:
    world = make(2, retry=retries(2))
    for n in (1, 2):
        world.peer(n).on_connect(REFUSED, None)
        world.peer(n).say(SILENCE)
    exchange = world.exchange(method="POST", body=body_stream(b"one"))
    task = await start(world, exchange)
    (transport,) = [t for n in (1, 2) for t in world.peer(n).transports]
    assert transport.written.endswith(b"3\r\none\r\n0\r\n\r\n")
    world.peer().send(transport, OK)
    assert (await task).status == 200
    assert outcomes(exchange)[0] == "connect-failure"


async def test_retries_wait_with_full_jitter(make: Any) -> None:
    world = make(3, retry=RetryPolicy(attempts=2))
    for n in (1, 2, 3):
        world.peer(n).say(UNAVAILABLE)
    exchange = world.exchange()
    task = await start(world, exchange)
    assert len(exchange.attempts) == 1
    await world.clock.advance(0.025)
    await settle()
    assert len(exchange.attempts) == 2
    await world.clock.advance(0.075)
    await settle()
    assert (await task).status == 503


AFTER_2 = b"HTTP/1.1 503 Busy\r\nRetry-After: 2\r\nContent-Length: 0\r\n\r\n"


async def test_retry_after_is_honoured_where_there_is_no_other_endpoint(make: Any) -> None:
    world = make(retry=retries(1))
    world.peer().say(AFTER_2, OK)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(1.9)
    assert len(exchange.attempts) == 1
    await world.clock.advance(0.1)
    assert (await task).status == 200


async def test_another_endpoint_need_not_wait_for_the_first(make: Any) -> None:
    world = make(2, retry=retries(1))
    for n in (1, 2):
        world.peer(n).say(AFTER_2, OK)
    world.manager.pick_endpoint = lambda exchange, candidates: candidates[0]
    world.peer(2).say(OK)
    assert (await world.forward()).status == 200


async def test_retry_after_beyond_the_timeout_ends_it(make: Any) -> None:
    world = make(retry=retries(3), route={"timeout": 1.0})
    world.peer().say(AFTER_2)
    exchange = world.exchange()
    assert (await world.forward(exchange)).status == 503
    assert len(exchange.attempts) == 1


async def test_a_retried_stream_is_closed(make: Any) -> None:
    world = make(2, retry=retries(1))
    for n in (1, 2):
        world.peer(n).say(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", OK)
    world.peer(2).say(OK)
    world.manager.pick_endpoint = lambda exchange, candidates: candidates[0]
    assert (await world.forward()).status == 200
    assert world.peer(1).transports[0].aborted


@pytest.mark.parametrize("streams", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        b"Fri, 99999999999999999999 Nov 2026 10:00:00 GMT",
        b"Fri, 27 Nov 2026 10:00:00 +" + b"9" * 19,
    ],
)
async def test_a_retry_after_that_nobody_can_read_is_ignored(
    make: Any, value: bytes, *, streams: bool
) -> None:
    world = make(retry=retries(1))
    end = b"Transfer-Encoding: chunked\r\n\r\n" if streams else b"Content-Length: 0\r\n\r\n"
    world.peer().say(b"HTTP/1.1 503 Busy\r\nRetry-After: " + value + b"\r\n" + end, OK)
    assert (await world.forward()).status == 200


@pytest.mark.parametrize(
    "where", ["retry.retry_after", "retry.retries_status", "_hand_over", "record"]
)
@pytest.mark.parametrize("kind", [RuntimeError, GeneratorExit])
async def test_whatever_fails_with_an_answer_in_hand_lets_go_of_it(
    make: Any, monkeypatch: pytest.MonkeyPatch, where: str, kind: type[BaseException]
) -> None:
    limits = Thresholds(max_requests=1, max_connections=1)
    policy = retries(0 if where == "_hand_over" else 1)
    world = make(retry=policy, thresholds=limits, route={"thresholds": limits})
    world.peer().say(b"HTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n", OK)
    owners = {"_hand_over": forwarding.Forwarding, "record": type(world.cluster.detector)}
    owner, name = owners.get(where, retry), where.rpartition(".")[2]

    def fails(*_: Any, **__: Any) -> None:
        raise kind

    with monkeypatch.context() as patch:
        patch.setattr(owner, name, fails)
        with pytest.raises(kind):
            await world.forward()
    await settle()
    assert world.peer().transports[0].aborted
    world.check_quiet()
    assert (await world.forward()).status == 200


async def test_connection_failures_name_every_attempt(make: Any) -> None:
    world = make(2, retry=retries(2))
    world.peer(1).on_connect(REFUSED)
    world.peer(2).on_connect(REFUSED)
    exchange = world.exchange()
    failed = await failure(world, exchange)
    assert (failed.status, failed.flag) == (503, Flag.UF)
    assert exchange.flag is Flag.URX
    assert "route verify-id, cluster auth-svc: endpoint 10.0.0." in failed.detail
    assert "connection refused (3 attempts: " in failed.detail
    assert failed.detail.endswith("is the service running there, and may it be reached?")


# -- the retry budget ------------------------------------------------------------------------------


async def test_retries_beyond_the_budget_are_not_made(make: Any) -> None:
    world = make(2, retry=RetryPolicy(attempts=1), **NO_DETECTION)
    for n in (1, 2):
        world.peer(n).say(UNAVAILABLE)
    exchanges = [world.exchange() for _ in range(10)]
    tasks = [asyncio.create_task(world.forward(exchange)) for exchange in exchanges]
    await settle(40)
    assert world.cluster.breaker.retries == 3
    await world.clock.advance(1)
    await settle(40)
    assert [(await task).status for task in tasks] == [503] * 10
    assert sorted(len(exchange.attempts) for exchange in exchanges) == [1] * 7 + [2] * 3
    assert sum(exchange.flag is Flag.URX for exchange in exchanges) == 3
    assert world.cluster.breaker.overflows == 7


async def test_a_routes_own_retry_threshold(make: Any) -> None:
    world = make(2, retry=retries(1), route={"thresholds": Thresholds(max_retries=0)})
    world.peer(1).on_connect(REFUSED)
    world.peer(2).on_connect(REFUSED)
    exchange = world.exchange()
    await failure(world, exchange)
    assert len(exchange.attempts) == 1


# -- stale connections -----------------------------------------------------------------------------


async def test_a_stale_connection_is_replayed_without_any_retry_policy(make: Any) -> None:
    world = make()
    world.peer().say(OK, CLOSE, OK)
    exchange = world.exchange()
    assert await world.get() == [200]
    assert (await world.forward(exchange)).status == 200
    assert outcomes(exchange) == ["reset", "200"]
    assert world.endpoint().failures == 0, "a keep-alive race is nobody's fault"


async def test_replayed_once_only_and_on_a_fresh_connection(make: Any) -> None:
    world = make()
    world.peer().say(OK, OK, CLOSE)
    await asyncio.gather(world.forward(), world.forward())
    assert len(world.endpoint().pool.idle) == 2
    failed = await failure(world)
    assert (failed.status, failed.flag) == (503, Flag.UC)
    assert len(world.connector.attempts) == 3, "the second idle one was not tried"
    assert len(world.peer().requests) == 4


async def test_a_stale_post_is_not_replayed(make: Any) -> None:
    world = make()
    world.peer().say(OK, CLOSE, OK)
    await world.get()
    failed = await failure(world, world.exchange(method="POST"))
    assert failed.flag is Flag.UC
    assert "Idempotency-Key" in failed.detail


async def test_a_fresh_connection_that_dies_is_not_replayed(make: Any) -> None:
    world = make()
    world.peer().say(CLOSE)
    exchange = world.exchange()
    assert (await failure(world, exchange)).flag is Flag.UC
    assert outcomes(exchange) == ["reset"]


# -- time ------------------------------------------------------------------------------------------


async def test_the_routes_timeout(make: Any) -> None:
    world = make(2, retry=retries(3), route={"timeout": 1.0})
    for n in (1, 2):
        world.peer(n).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(1)
    with pytest.raises(ExchangeFailed) as caught:
        await task
    failed = caught.value.failure
    assert (failed.status, failed.flag) == (504, Flag.UT)
    assert "the route's timeout is 1s" in failed.detail
    assert outcomes(exchange) == ["timeout"], "never retried"
    assert exchange.flag is None


async def test_the_routes_timeout_includes_all_retries(make: Any) -> None:
    policy = retries(5, per_try_timeout=0.4)
    world = make(3, retry=policy, route={"timeout": 1.0})
    for n in (1, 2, 3):
        world.peer(n).say(SILENCE)
    exchange = world.exchange()
    task = await start(world, exchange)
    for _ in range(10):
        await world.clock.advance(0.1)
        await settle()
    with pytest.raises(ExchangeFailed) as caught:
        await task
    assert caught.value.failure.flag is Flag.UT
    assert [attempt.ended for attempt in exchange.attempts] == pytest.approx(
        [1000.4, 1000.8, 1001.0]
    )


async def test_a_try_that_is_too_slow_is_repeated_elsewhere(make: Any) -> None:
    world = make(2, retry=retries(1, per_try_timeout=0.2))
    world.peer(1).say(SILENCE)
    world.manager.pick_endpoint = lambda exchange, candidates: candidates[0]
    exchange = world.exchange()
    task = await start(world, exchange)
    await world.clock.advance(0.2)
    assert (await task).status == 200
    assert outcomes(exchange) == ["timeout", "200"]


async def test_per_try_timeout_ends_with_the_head(make: Any) -> None:
    world = make(retry=retries(1, per_try_timeout=0.2), route={"timeout": 5.0})
    world.peer().say(CHUNKED)
    answer = await world.forward()
    assert isinstance(answer.body, BodyStream)
    await world.clock.advance(4.9)
    assert not answer.body.ended
    await world.clock.advance(0.1)
    with pytest.raises(Exception, match="did not finish its response in time"):
        await answer.body.read()


async def test_no_timeout(make: Any) -> None:
    world = make(route={"timeout": None})
    world.peer().say(SILENCE)
    task = await start(world)
    await world.clock.advance(100_000)
    world.peer().send(world.peer().transports[0], OK)
    assert (await task).status == 200


async def test_the_timeout_of_a_streaming_request_runs_from_its_end(make: Any) -> None:
    world = make(route={"timeout": 1.0})
    world.peer().say(SILENCE)
    body = body_stream(b"one", eof=False)
    task = await start(world, world.exchange(method="POST", body=body))
    await world.clock.advance(100)
    assert not task.done()
    body.feed_eof()
    await settle()
    await world.clock.advance(1)
    with pytest.raises(ExchangeFailed) as caught:
        await task
    assert caught.value.failure.flag is Flag.UT


# -- breakers --------------------------------------------------------------------------------------


async def test_a_cluster_with_every_endpoint_open_is_open(make: Any) -> None:
    world = make(2)
    world.peer(1).on_connect(REFUSED)
    world.peer(2).on_connect(REFUSED)
    for _ in range(10):
        await failure(world)
    await world.clock.advance(12)
    called = len(world.connector.attempts)
    failed = await failure(world)
    assert (failed.status, failed.flag, failed.retry_after) == (503, Flag.UH, 18.0)
    assert "10.0.0.1:80 is open (5 gateway failures in a row" in failed.detail
    assert len(world.connector.attempts) == called, "no upstream call"


async def test_one_real_request_probes_and_the_others_do_not_wait_for_it(make: Any) -> None:
    world = make(**FEW)
    world.peer().say(UNAVAILABLE, SILENCE, OK)
    assert await world.get() == [503]
    assert (await failure(world)).flag is Flag.UH
    await world.clock.advance(30)
    probe = await start(world)
    failed = await failure(world)
    assert (failed.flag, failed.retry_after) == (Flag.UH, 1.0)
    world.peer().send(next(t for t in world.peer().transports if not t.closing), OK)
    assert (await probe).status == 200
    assert world.endpoint().state is EndpointState.CLOSED
    assert await world.get(3) == [200] * 3


async def test_a_failed_probe_opens_it_for_longer(make: Any) -> None:
    world = make(**FEW)
    world.peer().say(UNAVAILABLE)
    await world.get()
    await world.clock.advance(30)
    await world.get()
    assert (await failure(world)).retry_after == 60.0


async def test_a_cancelled_probe_leaves_the_probe_to_the_next(make: Any) -> None:
    world = make(**FEW)
    world.peer().say(UNAVAILABLE, SILENCE, OK)
    await world.get()
    await world.clock.advance(30)
    probe = await start(world)
    probe.cancel()
    await settle()
    assert await world.get() == [200]
    assert world.endpoint().state is EndpointState.CLOSED


async def test_a_probe_over_a_stale_connection_gets_its_fresh_one(make: Any) -> None:
    world = make(idle_timeout=600.0, **FEW)
    world.peer().say(OK, UNAVAILABLE, CLOSE, OK)
    await world.get(2)
    await world.clock.advance(30)
    assert await world.get() == [200]
    assert world.endpoint().state is EndpointState.CLOSED


async def test_a_probe_that_never_came_to_be_is_free_again(make: Any) -> None:
    """Refused by the caller's own trouble, the endpoint has not been judged."""
    world = make(**FEW)
    world.peer().say(UNAVAILABLE, SILENCE)
    await world.get()
    await world.clock.advance(30)
    body = body_stream(b"x", eof=False)
    task = await start(world, world.exchange(method="POST", body=body))
    body.fail(ConnectionResetError("the client closed the connection"))
    with pytest.raises(ExchangeFailed) as caught:
        await task
    assert caught.value.failure.flag is Flag.DC
    assert world.endpoint().state is EndpointState.HALF_OPEN
    assert not world.endpoint().probing


@pytest.mark.parametrize("where", ["cluster", "route"])
async def test_past_max_requests_it_is_refused_at_once(make: Any, where: str) -> None:
    limits = {"thresholds": Thresholds(max_requests=1)}
    world = make(route=limits) if where == "route" else make(**limits)
    world.peer().say(SILENCE)
    first = await start(world)
    failed = await failure(world)
    assert (failed.status, failed.flag) == (503, Flag.UO)
    assert (
        f"{where} {'verify-id' if where == 'route' else 'auth-svc'}: max_requests 1"
        in failed.detail
    )
    first.cancel()
    await settle()


@pytest.mark.parametrize("where", ["cluster", "route"])
async def test_past_max_connections_requests_wait_in_turn(make: Any, where: str) -> None:
    limits = {"thresholds": Thresholds(max_connections=1, max_pending_requests=2)}
    world = make(route=limits) if where == "route" else make(**limits)
    world.peer().say(SILENCE)
    tasks = [await start(world) for _ in range(3)]
    assert len(world.peer().requests) == 1
    assert (await failure(world)).flag is Flag.UO
    for n, task in enumerate(tasks, 1):
        world.peer().send(world.peer().transports[0], OK)
        assert (await task).status == 200
        await settle()
        assert len(world.peer().requests) == min(n + 1, 3)
    assert len(world.connector.attempts) == 1


async def test_waiting_for_a_connection_counts_towards_the_timeout(make: Any) -> None:
    world = make(thresholds=Thresholds(max_connections=1), route={"timeout": 2.0})
    world.peer().say(CHUNKED)
    answer = await world.forward()
    await world.clock.advance(1)
    task = await start(world)
    answer.release()
    world.peer().say(SILENCE)
    hog = await start(world)
    await world.clock.advance(2)
    for waiting in (task, hog):
        with pytest.raises(ExchangeFailed) as caught:
            await waiting
        assert caught.value.failure.flag is Flag.UT


async def test_a_streaming_answer_holds_its_slots_to_its_end(make: Any) -> None:
    limits = Thresholds(max_requests=1, max_connections=1)
    world = make(thresholds=limits, route={"thresholds": limits})
    world.peer().say(CHUNKED)
    answer = await world.forward()
    assert isinstance(answer.body, BodyStream)
    assert (await failure(world)).flag is Flag.UO
    assert (world.cluster.breaker.requests, world.cluster.breaker.connections) == (1, 1)
    world.peer().send(world.peer().transports[0], b"2\r\nok\r\n0\r\n\r\n")
    assert await answer.body.read() == b"ok"
    world.check_quiet()


async def test_a_tunnel_holds_its_slots_to_its_end(make: Any) -> None:
    world = make()
    world.peer().say(
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi"
    )
    fields = ((b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
    answer = await world.forward(world.exchange(fields=fields))
    assert answer.tunnel is not None
    assert await answer.tunnel.incoming.read() == b"hi"
    assert (world.cluster.breaker.requests, world.endpoint().active) == (1, 1)
    answer.release()
    world.check_quiet()


# -- giving up -------------------------------------------------------------------------------------


async def test_a_caller_that_leaves_closes_the_upstream_call(make: Any) -> None:
    world = make()
    world.peer().say(SILENCE)
    task = await start(world)
    task.cancel()
    await settle()
    assert task.cancelled()
    assert world.peer().transports[0].aborted
    assert world.endpoint().failures == 0


SCENES: dict[str, Callable[[], World]] = {
    "simple": World,
    "retries": lambda: World(3, retry=RetryPolicy(attempts=2)),
    "queue": lambda: World(2, thresholds=Thresholds(max_connections=1)),
    "route queue": lambda: World(
        2, route={"thresholds": Thresholds(max_connections=1)}, retry=RetryPolicy(attempts=1)
    ),
    "probe": lambda: World(2, **FEW),
}
SCRIPTS: dict[str, list[Any]] = {
    "ok": [OK],
    "busy": [UNAVAILABLE, OK],
    "dying": [CLOSE, OK, CLOSE],
    "stream": [CHUNKED, OK],
}


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("scene", SCENES)
async def test_cancelled_at_any_await_nothing_is_left(scene: str, script: str) -> None:
    """Cancel after each turn of the loop in turn: every await of every path is hit."""
    for turns in range(40):
        world = SCENES[scene]()
        for peer in (world.peer(n) for n in (1, 2, 3)):
            peer.say(*SCRIPTS[script])
            peer.on_connect(None, REFUSED, None)
        rivals = [asyncio.create_task(world.forward()) for _ in range(2)]
        await asyncio.sleep(0)
        task = asyncio.create_task(world.forward())
        for turn in range(turns):
            await asyncio.sleep(0)
            if turn % 5 == 4:
                world.clock.tick(0.1)
        finished = task.done()
        task.cancel()
        await world.clock.advance(60)
        for each in (task, *rivals):
            each.cancel()
        results = await asyncio.gather(task, *rivals, return_exceptions=True)
        for result in results:
            if not isinstance(result, BaseException):
                result.release()
        await settle()
        world.check_quiet()
        await world.close()
        if finished:
            return


LINES = st.sampled_from(
    [OK, OK, UNAVAILABLE, INTERNAL, CLOSE, RESET, SILENCE, CHUNKED, b"\0\0", OK[:30], OK + b"x"]
)
CONNECTS = st.sampled_from([None, None, None, REFUSED, SILENCE])


@settings(max_examples=60)
@given(
    st.lists(st.lists(LINES, min_size=1, max_size=5), min_size=3, max_size=3),
    st.lists(st.lists(CONNECTS, min_size=1, max_size=4), min_size=3, max_size=3),
    st.integers(0, 2**32),
)
def test_any_upstreams_leave_nothing_behind(
    scripts: list[list[Any]], connects: list[list[Any]], seed: int
) -> None:
    asyncio.run(ordeal(scripts, connects, random.Random(seed)))


async def ordeal(scripts: list[list[Any]], connects: list[list[Any]], rng: random.Random) -> None:
    """Requests of all kinds, some cancelled, over upstreams of all kinds."""
    limits = Thresholds(max_connections=2, max_pending_requests=3, max_requests=6)
    world = World(
        3,
        retry=RetryPolicy(attempts=2, per_try_timeout=1.0, on=frozenset({"5xx", "reset"})),
        route={"timeout": 3.0, "thresholds": limits},
        thresholds=limits,
    )
    for n, (lines, on_connect) in enumerate(zip(scripts, connects, strict=True), 1):
        world.peer(n).say(*lines)
        world.peer(n).on_connect(*on_connect)
    tasks = []
    for _ in range(12):
        method = rng.choice(["GET", "POST", "PUT", "HEAD"])
        body = body_stream(b"x", eof=rng.random() < 0.8) if rng.random() < 0.2 else None
        tasks.append(asyncio.create_task(world.forward(world.exchange(method=method, body=body))))
        await settle(rng.randrange(8))
        if rng.random() < 0.2:
            rng.choice(tasks).cancel()
        if rng.random() < 0.3:
            world.clock.tick(rng.random() * 2)
    for _ in range(8):
        await world.clock.advance(1)
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


async def test_a_route_slot_is_given_back_when_the_cluster_has_none(make: Any) -> None:
    route = {"thresholds": Thresholds(max_connections=5), "timeout": 2.0}
    limits = Thresholds(max_connections=1, max_pending_requests=2)
    world = make(route=route, thresholds=limits)
    world.peer().say(SILENCE)
    first = await start(world)
    waiting = [await start(world) for _ in range(2)]
    assert (await failure(world)).flag is Flag.UO
    waiting[0].cancel()
    await settle()
    breaker = world.manager.route_breaker(world.route)
    assert breaker is not None
    assert (breaker.connections, world.cluster.breaker.pending) == (2, 1)
    await world.clock.advance(2)
    await world.clock.advance(0)  # the second had its turn when its time was up
    for task in (first, waiting[1]):
        with pytest.raises(ExchangeFailed):
            await task
    assert breaker.idle


async def test_the_next_exchange_on_a_connection_inherits_no_slots(make: Any) -> None:
    world = make()
    world.peer().say(CHUNKED, OK)
    answer = await world.forward()
    assert isinstance(answer.body, BodyStream)
    world.peer().send(world.peer().transports[0], b"0\r\n\r\n")
    assert await answer.body.read() == b""
    await world.get(2)
    assert len(world.connector.attempts) == 1
    assert world.cluster.breaker.requests == 0
