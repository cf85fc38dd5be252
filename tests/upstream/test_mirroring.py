"""Mirroring: copies go elsewhere, never in the original's way, and are counted."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import OutlierDetection, Route, Thresholds, WeightedCluster
from hms_addons.config.snapshot_forwarding import Mirror
from hms_addons.errors import ExchangeFailed
from hms_addons.http_message import BodyStream
from hms_addons.upstream import mirroring
from hms_addons.upstream.endpoint import EndpointState
from tests.fakes.upstream import (
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

    from hms_addons.http_message import Answer
    from tests.fakes.upstream import Peer

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def mirror(percent: float = 100.0, cluster: str = "auth-svc-v2") -> Mirror:
    route = Route(
        name="verify-id",
        listener="inbound_http",
        clusters=(WeightedCluster(cluster=cluster),),
        service="auth-svc",
        timeout=2.0,
        follows_failover=False,
    )
    return Mirror(cluster=cluster, percent=percent, route=route)


class Mirrored(World):
    """auth-svc, whose requests are mirrored to auth-svc-v2."""

    def __init__(self, *mirrors: Mirror, v2: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(1, route={"mirrors": mirrors or (mirror(),)}, **options)
        cluster = {"service": "auth-svc", "endpoints": other_specs(1)} | (v2 or {})
        self.apply(make_cluster(), make_cluster("auth-svc-v2", **cluster))

    @property
    def v2(self) -> Peer:
        return self.connector.peer("10.0.1.1:80")

    @property
    def counts(self) -> dict[str, int]:
        return self.manager.mirrors.describe("auth-svc-v2") or {}

    @property
    def shadow_breaker(self) -> Any:
        cluster = self.manager.get("auth-svc-v2")
        assert cluster is not None
        return cluster.breaker


@pytest.fixture
async def make() -> AsyncIterator[Callable[..., Mirrored]]:
    """Makes worlds; each is closed and must have nothing left over."""
    worlds: list[Mirrored] = []

    def make(*args: Any, **options: Any) -> Mirrored:
        worlds.append(Mirrored(*args, **options))
        return worlds[-1]

    yield make
    for world in worlds:
        await settle()
        if world.manager.get("auth-svc") is not None and not world.manager.mirrors.in_flight:
            world.check_quiet()
        await world.close()
        assert (world.manager.mirrors.in_flight, world.manager.mirrors._held) == (0, 0)


async def test_a_copy_goes_to_the_other_cluster(make: Any) -> None:
    world = make()
    fields = ((b"Host", b"auth-svc.svc:80"), (b"X-Caller-Role", b"A"), (b"x-hms-mirror", b"no"))
    exchange = world.exchange(method="POST", fields=fields, content=b"hello")
    answer = await world.forward(exchange)
    await settle()
    assert (answer.status, answer.body) == (200, b"ok")
    (copy,) = world.v2.requests
    assert copy == (
        b"POST /verify-id?id=7 HTTP/1.1\r\nHost: auth-svc.svc-shadow:80\r\nX-Caller-Role: A\r\n"
        b"X-HMS-Mirror: 1\r\nContent-Length: 5\r\n\r\nhello"
    )
    assert [attempt.cluster for attempt in exchange.attempts] == ["auth-svc"]
    assert exchange.cluster.name == "auth-svc"
    assert world.counts == {"answered": 1}


async def test_the_copy_is_answered_for_nobody(make: Any) -> None:
    world = make()
    world.v2.say(UNAVAILABLE)
    assert await world.get(3) == [200] * 3
    await settle()
    assert world.counts == {"answered": 3}


async def test_a_share_of_the_requests(make: Any) -> None:
    world = make(mirror(percent=25))
    await world.get(400)
    await settle()
    assert 70 <= len(world.v2.requests) <= 130


async def test_several_mirrors(make: Any) -> None:
    world = make(mirror(), mirror(cluster="auth-svc-v3"))
    third = make_cluster("auth-svc-v3", service="auth-svc", endpoints=other_specs(2)[1:])
    world.apply(*world.snapshot.clusters.values(), third)
    await world.get()
    await settle()
    assert len(world.v2.requests) == 1
    assert len(world.connector.peer("10.0.1.2:80").requests) == 1


async def test_a_mirror_that_hangs_slows_nobody(make: Any) -> None:
    world = make()
    world.v2.say(SILENCE)
    assert await world.get(50) == [200] * 50
    await settle()
    assert world.manager.mirrors.in_flight == 50
    await world.clock.advance(2)
    await settle()
    assert world.counts == {"failed": 50}, "their own time-out"


async def test_past_the_breaker_copies_are_dropped_not_queued(make: Any) -> None:
    world = make(v2={"thresholds": Thresholds(max_connections=2)})
    world.v2.say(SILENCE)
    for _ in range(5):
        await world.get()
        await settle()
    assert len(world.v2.requests) == 2
    assert world.shadow_breaker.pending == 0
    assert world.counts == {"dropped": 3}
    await world.clock.advance(2)


async def test_past_the_memory_for_bodies_copies_are_dropped(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "MAX_HELD", 10)
    world = make()
    world.v2.say(SILENCE)
    for _ in range(3):
        await world.forward(world.exchange(method="POST", content=b"12345"))
    await settle()
    assert world.counts == {"dropped": 1}
    await world.clock.advance(2)


async def test_a_body_that_streams_is_not_copied(make: Any) -> None:
    world = make()
    body = BodyStream(lambda: None, lambda: None)
    body.feed(b"x")
    body.feed_eof()
    assert (await world.forward(world.exchange(method="POST", body=body))).status == 200
    await settle()
    assert world.v2.requests == []
    assert world.counts == {"streaming": 1}


async def test_an_upgrade_is_not_copied(make: Any) -> None:
    world = make()
    fields = ((b"Host", b"a"), (b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"))
    await world.forward(world.exchange(fields=fields))
    await settle()
    assert world.counts == {"upgrade": 1}


async def test_where_the_request_goes_itself_no_copy_follows(make: Any) -> None:
    world = make()
    exchange = world.exchange()
    exchange.cluster = world.snapshot.clusters["auth-svc-v2"]
    await world.forward(exchange)
    await settle()
    assert len(world.v2.requests) == 1


async def test_the_original_that_leaves_takes_no_copy_with_it(make: Any) -> None:
    world = make()
    world.peer().say(SILENCE)
    task: asyncio.Task[Answer] = asyncio.create_task(world.forward())
    await asyncio.sleep(0)
    task.cancel()
    await settle()
    assert len(world.v2.requests) == 1
    assert world.counts == {"answered": 1}


async def test_a_streaming_answer_is_drained_so_that_its_connection_serves_again(make: Any) -> None:
    world = make()
    world.v2.say(CHUNKED)
    await world.get()
    await settle()
    world.v2.send(world.v2.transports[0], b"2\r\nok\r\n0\r\n\r\n")
    await settle()
    await world.get()
    await settle()
    assert len(world.v2.transports) == 1
    world.v2.send(world.v2.transports[0], b"0\r\n\r\n")


async def test_an_answer_without_end_is_given_up(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirroring, "MAX_DRAINED", 10)
    world = make()
    world.v2.say(CHUNKED)
    await world.get()
    await settle()
    world.v2.send(world.v2.transports[0], b"14\r\n" + b"x" * 20 + b"\r\n")
    await settle()
    assert world.v2.transports[0].aborted
    assert world.counts == {"answered": 1}


async def test_a_copys_failures_count_for_the_endpoints_it_meets(make: Any) -> None:
    world = make(v2={"outlier_detection": OutlierDetection(consecutive_gateway_failure=2)})
    world.v2.on_connect(REFUSED)
    await world.get(2)
    await settle()
    cluster = world.manager.get("auth-svc-v2")
    (endpoint,) = cluster.endpoints.values()
    assert endpoint.state is EndpointState.OPEN
    assert world.endpoint().state is EndpointState.CLOSED
    assert world.counts == {"failed": 2}


async def test_a_copy_follows_no_failover(make: Any) -> None:
    world = make(v2={"endpoints": (), "failover": ("auth-svc",)})
    await world.get()
    await settle()
    assert len(world.peer().requests) == 1, "else it would be executed twice"
    assert world.counts == {"failed": 1}


async def test_a_plugin_that_picks_endpoints_sees_the_copys_flow(make: Any) -> None:
    world = make()
    seen: list[str] = []

    def pick(exchange: Any, candidates: Any) -> Any:
        seen.append(exchange.flow.request.headers["Host"])
        return candidates[0]

    world.manager.pick_endpoint = pick
    await world.get()
    await settle()
    assert sorted(seen) == ["auth-svc.svc", "auth-svc.svc-shadow"]


async def test_what_is_on_its_way_ends_with_the_sidecar(make: Any) -> None:
    world = make()
    world.v2.say(SILENCE)
    await world.get()
    await settle()
    assert repr(world.manager.mirrors) == "<Mirrors in_flight=1 held=0>"
    await world.manager.close()
    assert world.manager.mirrors.in_flight == 0
    with pytest.raises((ExchangeFailed, RuntimeError)):
        await world.forward()


async def test_a_removed_cluster_is_forgotten(make: Any) -> None:
    world = make()
    await world.get()
    await settle()
    assert [c["mirrored"] for c in world.manager.describe()] == [None, {"answered": 1}]
    world.apply(make_cluster())
    assert world.counts == {}
    await world.get()
    await settle()
    assert world.counts == {"dropped": 1}


@pytest.mark.parametrize("turns", range(12))
async def test_closed_at_any_await_of_a_copy_nothing_is_left(turns: int) -> None:
    world = Mirrored()
    world.v2.say(CHUNKED)
    await world.get()
    await settle(turns)
    await world.close()
    assert world.manager.mirrors.in_flight == 0
    assert world.shadow_breaker.idle
