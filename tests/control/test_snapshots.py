from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.load import load
from hms_addons.control.registry import Instance
from hms_addons.control.snapshots import PAUSE
from hms_addons.control.store.protocol import Write
from tests.fakes.control_state import Plane, control_plane, published

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from hms_addons.control.snapshots import ServiceSnapshot

MESH = """
listeners:
  - {name: mine, port: 15001, services: [claims-svc]}
clusters:
  - {name: auth-svc, tls_context: {sds: mesh_certs}}
"""


def instance(n: int = 1, service: str = "auth-svc") -> Instance:
    return Instance(f"i{n}", service, f"10.0.0.{n}:15006")


async def soon[T](work: Awaitable[T]) -> T:
    async with asyncio.timeout(10):
        return await work


async def test_it_is_a_configuration_that_a_sidecar_takes(plane: Plane) -> None:
    await plane.push(MESH)
    await plane.registry.register(instance())
    await published(plane)
    snapshot = plane.snapshots.get("claims-svc")
    body = json.loads(snapshot.body)
    document = body.pop("document")
    assert body == {
        "version": 2,
        "digest": snapshot.digest,
        "service": "claims-svc",
        "trust_domain": "mpsa.mil",
        "config_version": 1,
    }
    assert snapshot.etag == f'"2.{snapshot.digest}"'
    assert len(snapshot.digest) == 12
    assert document["listeners"] == [{"name": "mine", "port": 15001}]
    assert document["clusters"][0]["endpoints"] == [{"address": "10.0.0.1:15006"}]
    taken = load([], base=document, service="claims-svc", control=True).snapshot
    assert taken is not None
    assert taken.clusters["auth-svc"].endpoints[0].host == "10.0.0.1"
    assert repr(plane.snapshots) == "<Snapshots 1 services, 0 waiting, at 2>"


async def test_whoever_has_nothing_is_answered_at_once(plane: Plane) -> None:
    for etag in (None, "", "nonsense", '"1.zz"', "1.abc", "*", '"' + "9" * 400 + '.ab"'):
        assert (await soon(plane.snapshots.wait("x", etag))).version == 0


@pytest.mark.parametrize("form", ["{}", "W/{}", " {} "])
async def test_whoever_has_it_waits_for_a_change(plane: Plane, form: str) -> None:
    await plane.push(MESH)
    await published(plane)
    first = await soon(plane.snapshots.wait("x", None))
    waiting = asyncio.ensure_future(plane.snapshots.wait("x", form.format(first.etag)))
    await plane.clock.advance(60)
    assert not waiting.done()
    await plane.registry.register(instance())
    second = await soon(waiting)
    assert second.version == 2 > first.version


async def test_a_change_that_is_not_about_a_service_does_not_reach_it(plane: Plane) -> None:
    await plane.push(MESH)
    await published(plane)
    other = await soon(plane.snapshots.wait("other", None))
    claims = await soon(plane.snapshots.wait("claims-svc", None))
    waiting = [
        asyncio.ensure_future(plane.snapshots.wait(s.service, s.etag)) for s in (other, claims)
    ]
    await asyncio.sleep(0)
    await plane.push(MESH.replace("15001", "15002"))
    await published(plane)
    assert (await soon(waiting[1])).version == 2
    assert not waiting[0].done()
    assert plane.snapshots.get("other") == other
    waiting[0].cancel()
    await asyncio.wait(waiting)


async def test_a_thousand_who_wait_for_ten_services_cost_ten_documents(plane: Plane) -> None:
    await plane.push(MESH)
    await published(plane)
    names = [f"svc-{n}" for n in range(10)]
    have = {name: plane.snapshots.get(name).etag for name in names}
    waiting = [
        asyncio.ensure_future(plane.snapshots.wait(names[n % 10], have[names[n % 10]]))
        for n in range(1000)
    ]
    await asyncio.sleep(0)
    before = plane.snapshots.computed

    await plane.registry.register(instance())
    await published(plane)
    found = await soon(asyncio.gather(*waiting))

    assert plane.snapshots.computed - before == 10
    assert len({id(snapshot) for snapshot in found}) == 10
    assert {snapshot.version for snapshot in found} == {2}


async def test_changes_in_quick_succession_are_worked_out_together(plane: Plane) -> None:
    seen: list[ServiceSnapshot] = []

    async def follow() -> None:
        etag = plane.snapshots.get("x").etag
        while True:
            seen.append(await plane.snapshots.wait("x", etag))
            etag = seen[-1].etag

    following = asyncio.ensure_future(follow())
    await asyncio.sleep(0)
    for n in range(1, 21):
        await plane.registry.register(instance(n))
    assert [snapshot.version for snapshot in seen] == [1]
    await published(plane)
    await asyncio.sleep(0)
    assert [snapshot.version for snapshot in seen] == [1, 20]
    following.cancel()
    await asyncio.wait([following])


async def test_the_first_change_after_a_rest_does_not_wait(plane: Plane) -> None:
    await plane.clock.advance(10)
    waiting = asyncio.ensure_future(plane.snapshots.wait("x", plane.snapshots.get("x").etag))
    await asyncio.sleep(0)
    await plane.registry.register(instance())
    assert (await soon(waiting)).version == 1  # and the clock has not moved


async def test_one_who_leaves_disturbs_nobody(plane: Plane) -> None:
    etag = plane.snapshots.get("x").etag
    waiting = [asyncio.ensure_future(plane.snapshots.wait("x", etag)) for _ in range(10)]
    await asyncio.sleep(0)
    for one in waiting[::2]:
        one.cancel()
    await asyncio.wait(waiting[::2])
    assert "5 waiting" in repr(plane.snapshots)
    await plane.registry.register(instance())
    await soon(asyncio.gather(*waiting[1::2]))
    assert "0 waiting" in repr(plane.snapshots)


async def test_a_restart_hands_out_nothing_older(tmp_path: Path, plane: Plane) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        await first.push(MESH)
        await first.registry.register(instance())
        await published(first)
        before = first.snapshots.get("x")
        await first.store.put("elsewhere", b"")
    plane.clock.step(-120)
    async with control_plane(path, plane.clock) as second:
        after = second.snapshots.get("x")
        assert after.digest == before.digest
        assert after.version == 3 > before.version
        waiting = asyncio.ensure_future(second.snapshots.wait("x", before.etag))
        await asyncio.sleep(0)
        assert not waiting.done(), "nothing has changed for it"
        await second.push(MESH.replace("auth", "pay"))
        assert (await soon(waiting)).version == 4


async def test_after_a_backup_was_restored_the_next_push_goes_beyond_what_was_seen(
    plane: Plane,
) -> None:
    await plane.push(MESH)
    report: dict[str, Any] = {"version": 500, "digest": "ab" * 6, "state": "ack"}
    await plane.fleet.report("s1", "other", report)
    await published(plane)
    waiting = asyncio.ensure_future(plane.snapshots.wait("other", f'"500.{"ab" * 6}"'))
    await plane.registry.register(instance())
    await published(plane)
    assert not waiting.done(), "a sidecar keeps what is later"

    # This push says nothing new to `other`, which all the same must come back to this history.
    await plane.push(MESH.replace("15001", "15002"))
    await published(plane)

    snapshot = await soon(waiting)
    assert snapshot.version >= 501
    assert plane.store.revision >= 501


async def test_services_that_nobody_waits_for_are_kept_within_bounds(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_addons.control.snapshots.MAX_SERVICES", 10)
    etag = plane.snapshots.get("waits").etag
    waiting = asyncio.ensure_future(plane.snapshots.wait("waits", etag))
    await asyncio.sleep(0)
    for n in range(100):
        plane.snapshots.get(f"svc-{n}")
    assert len(plane.snapshots._slots) <= 11
    await plane.registry.register(instance())
    await soon(waiting)


async def test_what_cannot_be_handed_out_is_tried_again(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = asyncio.ensure_future(plane.snapshots.wait("x", plane.snapshots.get("x").etag))
    await plane.clock.advance(PAUSE)
    good = await plane.configs.version((await plane.push(MESH, dry_run=False)).version)
    await soon(waiting)
    last = plane.snapshots.get("x")
    await plane.store.write(
        [Write(f"config/versions/{good.about.version + 1}", b"no JSON")],
    )
    entry = await plane.store.get("config/current")
    assert entry is not None
    versions = json.loads(entry.value)
    damaged = [*versions, versions[-1] | {"version": 2}]
    await plane.mirror.reach(await plane.store.put(entry.key, json.dumps(damaged).encode()))
    for _ in range(3):
        await plane.clock.advance(PAUSE)
        await plane.store.get("a")
    assert "cannot be handed out yet" in caplog.text
    assert plane.snapshots.get("x") == last

    await plane.push(MESH.replace("auth", "pay"))
    await published(plane)
    assert plane.snapshots.get("x").config_version == 3
