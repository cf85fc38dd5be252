from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control.registry import (
    MAX_INSTANCES,
    Instance,
    InstanceError,
    TooManyInstancesError,
)
from tests.fakes.control_state import Plane, control_plane

if TYPE_CHECKING:
    from pathlib import Path


def instance(**more: Any) -> Instance:
    return Instance(**{"id": "i1", "service": "auth-svc", "address": "10.0.0.1:15006"} | more)


async def test_what_is_registered_is_there_at_once(plane: Plane) -> None:
    one = instance(version="v1", weight=3, zone="b", metadata={"rack": "7"}, ttl=20.0)
    two = instance(id="i2", address="[::1]:15006")
    assert await plane.registry.register(two)
    assert await plane.registry.register(one)
    assert plane.registry.services() == {"auth-svc": (one, two)}
    assert one.to_json()["metadata"] == {"rack": "7"}
    assert repr(plane.registry) == "<Registry 1 services, 2 instances>"


async def test_a_renewal_changes_nothing(plane: Plane) -> None:
    await plane.registry.register(instance())
    revision = plane.store.revision
    for _ in range(5):
        await plane.clock.advance(14)
        assert not await plane.registry.register(instance())
    assert plane.store.revision == revision
    assert await plane.registry.register(instance(weight=2))
    assert plane.registry.instances("auth-svc")[0].weight == 2


async def test_whoever_does_not_renew_is_gone(plane: Plane) -> None:
    await plane.registry.register(instance())
    await plane.registry.register(instance(id="i2", ttl=60.0))
    await plane.clock.advance(15.1)
    await plane.mirror.reach(4)
    assert [i.id for i in plane.registry.instances("auth-svc")] == ["i2"]
    await plane.clock.advance(45)
    await plane.mirror.reach(5)
    assert plane.registry.services() == {}
    assert await plane.registry.register(instance())


@pytest.mark.parametrize("step", [-120, 120])
async def test_a_clock_that_is_set_moves_nobody(plane: Plane, step: float) -> None:
    await plane.registry.register(instance())
    plane.clock.step(step)
    await plane.clock.advance(14)
    assert not await plane.registry.register(instance())
    assert plane.registry.services()


async def test_an_orderly_goodbye(plane: Plane) -> None:
    await plane.registry.register(instance())
    assert await plane.registry.deregister("auth-svc", "i1")
    assert plane.registry.services() == {}
    assert not await plane.registry.deregister("auth-svc", "i1")
    assert not await plane.registry.deregister("auth-svc", "../x")
    assert await plane.registry.register(instance())


async def test_a_restart_forgets_nobody(tmp_path: Path, plane: Plane) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        await first.registry.register(instance())
    await plane.clock.advance(600)
    async with control_plane(path, plane.clock) as second:
        assert second.registry.services() == {"auth-svc": (instance(),)}
        assert not await second.registry.register(instance())


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"address": "10.0.0.1"}, "host:port"),
        ({"address": "10.0.0.1:0"}, "port"),
        ({"address": "10.0.0.1:99999"}, "port"),
        ({"address": "a b:1"}, "host:port"),
        ({"service": "-svc"}, "name"),
        ({"service": "a/b"}, "name"),
        ({"service": ""}, "name"),
        ({"id": "../../config"}, "name"),
        ({"id": "x" * 129}, "name"),
        ({"weight": -1}, "weight"),
        ({"weight": 10**9}, "weight"),
        ({"service": "AUTH-svc"}, "differ only in case"),
        ({"metadata": {f"k{n:02}": "ä" * 65 for n in range(31)}}, "4123 bytes"),
    ],
)
async def test_what_would_harm_every_sidecar_is_refused(
    plane: Plane, wrong: dict[str, Any], why: str
) -> None:
    await plane.registry.register(instance(id="other"))
    revision = plane.store.revision
    with pytest.raises(InstanceError, match=why):
        await plane.registry.register(instance(**wrong))
    assert plane.store.revision == revision


async def test_a_service_has_so_many_instances_and_no_more(plane: Plane) -> None:
    def nth(n: int, **more: Any) -> Instance:
        return instance(id=f"i{n}", ttl=600.0, **more)

    async def taken(n: int) -> bool:
        try:
            return await plane.registry.register(nth(n), bounded=True)
        except TooManyInstancesError:
            return False

    at_once = await asyncio.gather(*(taken(n) for n in range(MAX_INSTANCES + 50)))
    assert at_once == [True] * MAX_INSTANCES + [False] * 50
    with pytest.raises(TooManyInstancesError, match="auth-svc has 1000 instances, and its sidecar"):
        await plane.registry.register(nth(MAX_INSTANCES), bounded=True)
    assert not await plane.registry.register(nth(7), bounded=True), "a renewal passes"
    assert await plane.registry.register(nth(7, weight=2), bounded=True), "and a change"
    assert await plane.registry.register(instance(service="claims-svc"), bounded=True)
    await plane.registry.deregister("auth-svc", "i7")
    assert await taken(MAX_INSTANCES)
    assert await plane.registry.register(nth(MAX_INSTANCES + 1)), "the admin's"
