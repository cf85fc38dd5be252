"""All clusters: following snapshots, making connections in time, and ending without a trace."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest

from hms_addons.config.snapshot import EndpointSpec, Snapshot, Thresholds
from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.upstream.balancers.round_robin import RoundRobin
from hms_addons.upstream.cluster_manager import ClusterManager
from tests.fakes.clock import FakeClock
from tests.fakes.upstream import OK, REFUSED, SILENCE, World, make_cluster, make_route, settle

if TYPE_CHECKING:
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection


# -- snapshots -------------------------------------------------------------------------------------


async def test_clusters_come_and_go_with_the_snapshot() -> None:
    world = World()
    await world.get()
    before = world.cluster
    world.apply(make_cluster(), make_cluster("claims-svc"))
    assert world.manager.get("auth-svc") is before
    assert world.manager.get("claims-svc") is not None
    world.apply(make_cluster("claims-svc"))
    assert world.manager.get("auth-svc") is None
    assert world.connector.open == 0
    assert repr(world.manager) == "<ClusterManager clusters=1 connections=1 tasks=0>"
    await settle()
    assert repr(world.manager) == "<ClusterManager clusters=1 connections=0 tasks=0>"
    await world.close()


async def test_a_request_of_the_old_snapshot_to_a_removed_cluster() -> None:
    world = World()
    exchange = world.exchange()
    world.apply()
    with pytest.raises(ExchangeFailed, match="has just been removed") as caught:
        await world.forward(exchange)
    assert caught.value.failure.flag is Flag.UH
    await world.close()


async def test_an_unknown_balancer_is_named_with_what_there_is() -> None:
    manager = ClusterManager(
        FakeClock(),
        random.Random(1),
        lambda secret: None,
        balancers={"sticky": RoundRobin},
    )
    clusters = [make_cluster("a", load_balancer="sticky"), make_cluster("b", load_balancer="magic")]
    snapshot = Snapshot(version="1", source="", clusters={c.name: c for c in clusters})
    assert manager.unknown_balancers(snapshot) == [
        (
            "clusters.b.load_balancer: 'magic' is not known; use ewma, least_request, maglev, "
            "random, ring_hash, round_robin, sticky"
        )
    ]
    await manager.close()


async def test_a_plugins_balancer_balances() -> None:
    picked: list[Any] = []

    class First:
        def __init__(self, rng: random.Random) -> None:
            self.candidates: Any = ()

        def update(self, candidates: Any) -> None:
            self.candidates = candidates

        def pick(self, exchange: object) -> Endpoint:
            picked.append(exchange)
            endpoint: Endpoint = self.candidates[0]
            return endpoint

    world = World(3)
    world.manager.balancers["first"] = First
    world.apply(make_cluster(load_balancer="first", endpoints=world.cluster.spec.endpoints))
    exchange = world.exchange()
    await world.forward(exchange)
    assert (picked, exchange.endpoint) == ([exchange], "10.0.0.1:80")
    await world.close()


async def test_a_routes_breaker_is_its_own_and_follows_its_thresholds() -> None:
    world = World()
    assert world.manager.route_breaker(world.route) is None
    route = make_route(thresholds=Thresholds(max_requests=1))
    breaker = world.manager.route_breaker(route)
    assert breaker is not None
    assert world.manager.route_breaker(route) is breaker
    assert world.manager.route_breaker(replace(route, listener="other")) is not breaker
    breaker.begin_request()
    changed = replace(route, thresholds=Thresholds(max_requests=2))
    world.apply(make_cluster())
    assert world.manager.route_breaker(changed) is breaker
    assert breaker.thresholds.max_requests == 2
    breaker.end_request()
    world.apply(make_cluster())
    assert world.manager._route_breakers.breakers == []
    await world.close()


async def test_the_description_is_json() -> None:
    world = World(2)
    await world.get(2)
    (cluster,) = json.loads(json.dumps(world.manager.describe()))
    assert cluster["name"] == "auth-svc"
    assert [e["address"] for e in cluster["endpoints"]] == ["10.0.0.1:80", "10.0.0.2:80"]
    await world.close()


# -- connecting ------------------------------------------------------------------------------------


async def failure(world: World, **options: Any) -> tuple[Flag, str]:
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward(world.exchange(**options))
    world.check_quiet()
    return caught.value.failure.flag, caught.value.failure.detail


async def test_the_connect_timeout() -> None:
    world = World(connect_timeout=0.25)
    world.peer().on_connect(SILENCE)
    request = asyncio.create_task(failure(world))
    await world.clock.advance(0.24)
    assert not request.done()
    await world.clock.advance(0.01)
    flag, detail = await request
    assert flag is Flag.UF
    assert "10.0.0.1:80: no connection within 0.25s" in detail
    assert world.endpoint().consecutive_gateway_failure == 1
    await world.close()


async def test_the_routes_timeout_bounds_connecting_too() -> None:
    world = World(route={"timeout": 1.0}, connect_timeout=5.0)
    world.peer().on_connect(SILENCE)
    request = asyncio.create_task(failure(world))
    await world.clock.advance(1)
    flag, _ = await request
    assert flag is Flag.UT
    await world.close()


async def test_close_ends_what_is_in_flight() -> None:
    world = World(3)
    world.peer(1).say(SILENCE)
    world.peer(2).on_connect(SILENCE)
    requests = [asyncio.create_task(world.forward()) for _ in range(3)]
    await settle()
    await world.close()
    outcomes = await asyncio.gather(*requests, return_exceptions=True)
    assert sum(isinstance(outcome, BaseException) for outcome in outcomes) == 2
    await world.close()  # twice is fine
    world.check_quiet()


class Observer:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.refuse: Exception | None = None
        self.spoil: Exception | None = None
        self.gate: asyncio.Event | None = None

    async def connecting(self, endpoint: Endpoint) -> Self:
        self.seen.append(f"connecting {endpoint.address}")
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse is not None:
            raise self.refuse
        return self

    async def connected(self, handle: object, connection: Http1Connection) -> None:
        assert handle is self
        self.seen.append("connected")
        if self.spoil is not None:
            raise self.spoil

    async def failed(self, handle: object, error: str) -> None:
        self.seen.append(f"failed: {error}")

    def disconnected(self, handle: object) -> None:
        self.seen.append("disconnected")


async def test_the_observer_sees_each_connection_once() -> None:
    world, observer = World(), Observer()
    world.manager.observer = observer
    exchange = world.exchange()
    await world.forward(exchange)
    assert exchange.flow.server_conn is observer  # type: ignore[comparison-overlap]
    await world.get(2)
    assert observer.seen == ["connecting 10.0.0.1:80", "connected"]
    await world.clock.advance(60)
    assert observer.seen[2:] == ["disconnected"]
    await world.close()


async def test_the_observer_hears_of_failures() -> None:
    world, observer = World(), Observer()
    world.manager.observer = observer
    world.peer().on_connect(REFUSED)
    await failure(world)
    assert observer.seen == ["connecting 10.0.0.1:80", "failed: connection refused"]
    await world.close()


async def test_the_observer_may_refuse() -> None:
    world, observer = World(), Observer()
    world.manager.observer = observer
    observer.refuse = ConnectionRefusedError("not today")
    flag, detail = await failure(world)
    assert flag is Flag.UF
    assert "refused by an addon: not today" in detail
    assert world.connector.attempts == []
    await world.close()


async def test_an_observer_that_waits_is_bounded_by_the_connect_timeout() -> None:
    world, observer = World(), Observer()
    world.manager.observer = observer
    observer.gate = asyncio.Event()
    request = asyncio.create_task(failure(world))
    await settle()
    await world.clock.advance(5)
    assert (await request)[0] is Flag.UF
    await world.close()


async def test_an_observer_that_breaks_leaves_no_connection() -> None:
    world, observer = World(), Observer()
    world.manager.observer = observer
    observer.spoil = RuntimeError("broken")
    flag, detail = await failure(world)
    assert flag is Flag.UF
    assert "broken" in detail
    assert world.connector.open == 0
    await settle()
    assert observer.seen[-1] == "disconnected"
    await world.close()


async def test_a_kept_connection_is_not_disturbed_by_an_answer_elsewhere() -> None:
    world = World(2)
    world.manager.pick_endpoint = lambda exchange, candidates: world.endpoint(1)
    world.peer(1).say(SILENCE, OK)
    slow = asyncio.create_task(world.forward())
    await settle()
    await world.get(3)
    assert not slow.done()
    slow.cancel()
    await asyncio.wait([slow])
    world.check_quiet()
    await world.close()


async def test_the_own_zone_is_the_configurations_or_the_command_lines() -> None:
    members = (
        EndpointSpec(host="10.0.0.1", port=80, zone="a"),
        EndpointSpec(host="10.0.0.2", port=80, zone="b"),
    )
    clusters = {"auth-svc": make_cluster(endpoints=members)}

    def own(manager: ClusterManager) -> list[int]:
        cluster = manager.get("auth-svc")
        assert cluster is not None
        groups = cluster._levels.levels[0].groups
        return [group.load // 100 for group in groups]

    manager = ClusterManager(FakeClock(), random.Random(1), lambda secret: None)
    manager.apply(Snapshot(version="1", source="", clusters=clusters))
    assert own(manager) == [100]
    manager.apply(Snapshot(version="2", source="", clusters=clusters, zone="b"))
    cluster = manager.get("auth-svc")
    assert cluster is not None
    assert own(manager) == [100, 0], "though nothing of the cluster has changed"
    assert cluster._levels.levels[0].groups[0].members[0].spec.zone == "b"
    await manager.close()

    manager = ClusterManager(FakeClock(), random.Random(1), lambda secret: None)
    manager.told_zone = "a"
    manager.apply(Snapshot(version="1", source="", clusters=clusters, zone="b"))
    assert manager.zone == "a"
    await manager.close()
