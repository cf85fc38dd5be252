"""Host names: followed while they change, kept while they cannot be resolved."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from hms_addons.config.snapshot import EndpointSpec
from hms_addons.upstream.dns import INTERVAL, system_lookup
from tests.fakes.upstream import World, make_cluster, settle


class Names:
    """A resolver that a test can change, break and hold."""

    def __init__(self, *addresses: str) -> None:
        self.addresses: list[str] | None = list(addresses)
        self.gate: asyncio.Event | None = None
        self.asked: list[tuple[str, int]] = []

    async def __call__(self, host: str, port: int) -> list[str]:
        self.asked.append((host, port))
        if self.gate is not None:
            await self.gate.wait()
        if self.addresses is None:
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return list(self.addresses)


AUTH = EndpointSpec(host="auth.internal", port=8080, weight=3)


def members(world: World) -> list[str]:
    return [endpoint.address for endpoint in world.cluster.endpoints.values()]


async def next_round(world: World) -> None:
    await world.clock.advance(INTERVAL * 1.2)
    await settle()


async def test_each_address_is_an_endpoint_with_the_names_weight() -> None:
    names = Names("10.1.0.2", "10.1.0.1")
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    assert names.asked == [("auth.internal", 8080)]
    assert members(world) == ["10.1.0.1:8080", "10.1.0.2:8080"]
    assert {endpoint.spec.weight for endpoint in world.cluster.endpoints.values()} == {3}
    assert await world.get() == [200]
    await world.close()


async def test_static_endpoints_stay_beside_them() -> None:
    world = World(1, dns=(AUTH,), lookup=Names("10.1.0.1"))
    await world.manager.first_resolution()
    assert members(world) == ["10.0.0.1:80", "10.1.0.1:8080"]
    await world.close()


async def test_a_change_is_followed_and_who_stays_keeps_its_connections() -> None:
    names = Names("10.1.0.1", "10.1.0.2")
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    await world.get(2)
    stays = world.cluster.endpoints["10.1.0.2", 8080]
    goes = world.cluster.endpoints["10.1.0.1", 8080]
    names.addresses = ["10.1.0.2", "10.1.0.3"]
    await next_round(world)
    assert members(world) == ["10.1.0.2:8080", "10.1.0.3:8080"]
    assert world.cluster.endpoints["10.1.0.2", 8080] is stays
    assert len(stays.pool.idle) == 1
    assert (goes.drained, goes.pool.idle) == (True, [])
    await world.close()


async def test_failure_keeps_the_last_good_answer(caplog: pytest.LogCaptureFixture) -> None:
    names = Names("10.1.0.1")
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    answers: list[list[str] | None] = [None, None, []]
    for answer in answers:
        names.addresses = answer
        with caplog.at_level(logging.WARNING):
            await next_round(world)
        assert members(world) == ["10.1.0.1:8080"]
    assert caplog.messages == [  # once, not every five seconds
        (
            "cluster auth-svc: cannot resolve auth.internal: Temporary failure in name "
            "resolution; going on with 10.1.0.1"
        )
    ]
    await world.close()


async def test_requests_are_answered_while_a_look_up_hangs() -> None:
    names = Names("10.1.0.1")
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    names.gate = asyncio.Event()
    await next_round(world)
    assert len(names.asked) == 2
    assert await world.get(3) == [200] * 3
    await world.close()


async def test_never_more_often_than_the_floor() -> None:
    names = Names("10.1.0.1")
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    await world.clock.advance(INTERVAL - 0.01)
    assert len(names.asked) == 1
    await world.close()


async def test_a_new_configuration_starts_and_stops_look_ups() -> None:
    names = Names("10.1.0.1")
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    other = EndpointSpec(host="other.internal", port=1)
    world.apply(make_cluster(endpoints=(), dns=(other,)))
    assert members(world) == []
    await world.manager.first_resolution()
    assert members(world) == ["10.1.0.1:1"]
    await next_round(world)
    assert names.asked == [("auth.internal", 8080), ("other.internal", 1), ("other.internal", 1)]
    world.apply()
    await settle()
    assert len(world.manager._tasks) == 0
    await world.manager.close()


async def test_the_first_round_ends_even_if_nothing_resolves() -> None:
    names = Names()
    names.addresses = None
    world = World(0, dns=(AUTH,), lookup=names)
    await world.manager.first_resolution()
    assert repr(world.manager._resolver) == "<Resolver names=1 unresolved=0>"
    await world.close()


async def test_the_systems_resolver() -> None:
    assert await system_lookup("127.0.0.1", 80) == ["127.0.0.1"]
    assert await system_lookup("::1", 80) == ["::1"]
    with pytest.raises(OSError, match=r"."):
        await system_lookup("no such host.invalid", 80)
