from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.load import load
from hms_addons.control.followed_files import FollowedFiles
from hms_addons.control.registry import Instance
from hms_addons.control.snapshots import PAUSE
from hms_addons.control.store.protocol import Write
from tests.fakes.control_state import Plane, control_plane, published

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from pathlib import Path

    from hms_addons.control.snapshots import ServiceSnapshot
    from tests.fakes.clock import FakeClock

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
        "version": 3,
        "digest": snapshot.digest,
        "service": "claims-svc",
        "trust_domain": "mpsa.mil",
        "config_version": 1,
        "history": snapshot.history,
    }
    assert snapshot.etag == f'"3.{snapshot.digest}.{snapshot.history}"'
    assert len(snapshot.digest) == 12
    assert document["listeners"] == [{"name": "mine", "port": 15001}]
    assert document["clusters"][0]["endpoints"] == [{"address": "10.0.0.1:15006"}]
    taken = load([], base=document, service="claims-svc", control=True).snapshot
    assert taken is not None
    assert taken.clusters["auth-svc"].endpoints[0].host == "10.0.0.1"
    assert repr(plane.snapshots) == "<Snapshots 1 services, 0 waiting, at 3>"


async def test_whoever_has_nothing_is_answered_at_once(plane: Plane) -> None:
    for etag in (None, "", "nonsense", '"1.zz"', "1.abc", "*", '"' + "9" * 400 + '.ab"'):
        assert (await soon(plane.snapshots.wait("x", etag))).version == 1


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
    assert second.version == 3 > first.version


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
    assert (await soon(waiting[1])).version == 3
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
    assert {snapshot.version for snapshot in found} == {3}


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
    assert [snapshot.version for snapshot in seen] == [2]
    await published(plane)
    await asyncio.sleep(0)
    assert [snapshot.version for snapshot in seen] == [2, 21]
    following.cancel()
    await asyncio.wait([following])


async def test_the_first_change_after_a_rest_does_not_wait(plane: Plane) -> None:
    await plane.clock.advance(10)
    waiting = asyncio.ensure_future(plane.snapshots.wait("x", plane.snapshots.get("x").etag))
    await asyncio.sleep(0)
    await plane.registry.register(instance())
    assert (await soon(waiting)).version == 2  # and the clock has not moved


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
        assert after.version == 5 > before.version
        waiting = asyncio.ensure_future(second.snapshots.wait("x", before.etag))
        await asyncio.sleep(0)
        assert not waiting.done(), "nothing has changed for it"
        await second.push(MESH.replace("auth", "pay"))
        assert (await soon(waiting)).version == 6


async def lost(path: Path, clock: FakeClock) -> list[ServiceSnapshot]:
    """What was handed out after the backup at `path` was taken, which then is put back."""
    handed = []
    async with control_plane(path, clock) as plane:
        await plane.push(MESH)
        await published(plane)
        await plane.store.close()
        backup = await asyncio.to_thread(path.read_bytes)
    async with control_plane(path, clock) as plane:
        await plane.push(MESH.replace("auth", "pay"))
        await published(plane)
        handed = [plane.snapshots.get("x"), plane.snapshots.get("claims-svc")]
    await asyncio.to_thread(path.write_bytes, backup)
    return handed


async def test_a_restored_backup_replaces_nothing_however_much_is_written(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "other" / "control.db"
    handed = await lost(path, clock)
    async with control_plane(path, clock) as plane:
        waiting = [asyncio.ensure_future(plane.snapshots.wait(s.service, s.etag)) for s in handed]
        for n in range(20):  # the store's revision passes what was lost
            await plane.registry.register(instance(n))
            await published(plane)
        assert plane.snapshots.get("x").version > handed[0].version
        assert not any(one.done() for one in waiting), "each keeps what it has"
        assert all(plane.snapshots.holds(s.service, s.etag) for s in handed)
        assert all(plane.snapshots.news(s.service, s.etag) is None for s in handed)
        fresh = await soon(plane.snapshots.wait("x", None))
        assert b"auth" in fresh.body, "who has nothing is sent what there is"
        assert not plane.snapshots.holds("x", fresh.etag)

        # This push says nothing new to `x`, which all the same must come back to this history.
        await plane.push(MESH.replace("15001", "15002"))
        await published(plane)
        for old, new in zip(handed, await soon(asyncio.gather(*waiting)), strict=True):
            assert new.history != old.history
            assert b"auth" in new.body
        assert not any(plane.snapshots.holds(s.service, s.etag) for s in handed)


async def test_what_is_in_force_can_be_pushed_again_to_decide_for_it(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "other" / "control.db"
    handed = await lost(path, clock)
    async with control_plane(path, clock) as plane:
        waiting = asyncio.ensure_future(plane.snapshots.wait("x", handed[0].etag))
        assert (await plane.push(MESH, dry_run=True)).changed is False
        await published(plane)
        assert not waiting.done()
        assert (await plane.push(MESH)).changed is False
        await published(plane)
        assert b"auth" in (await soon(waiting)).body


async def test_files_that_are_followed_decide_once_they_are_good(
    tmp_path: Path, clock: FakeClock
) -> None:
    path = tmp_path / "other" / "control.db"
    file = tmp_path / "mesh.yaml"
    handed = await lost(path, clock)
    async with control_plane(path, clock) as plane:
        await asyncio.to_thread(file.write_text, "clusters: 5")
        files = FollowedFiles(plane.configs, file, clock)
        await files.start()
        assert plane.snapshots.news("x", handed[0].etag) is None, "bad files decide nothing"
        await files.close()
        await asyncio.to_thread(file.write_text, MESH)
        files = FollowedFiles(plane.configs, file, clock)
        await files.start()
        await published(plane)
        assert b"auth" in (await soon(plane.snapshots.wait("x", handed[0].etag))).body
        await files.close()


async def test_who_has_the_same_is_not_held(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "other" / "control.db"
    await lost(path, clock)
    async with control_plane(path, clock) as plane:
        same = plane.snapshots.get("x").digest
        assert not plane.snapshots.holds("x", f'"900.{same}.abcdef01"')
        assert plane.snapshots.news("x", f'"900.{same}.abcdef01"') is None


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
    assert "cannot be handed out" in caplog.text
    assert plane.snapshots.get("x") == last
    assert plane.snapshots.trouble is not None
    assert plane.snapshots.trouble in plane.fleet.status()["problems"][0]

    # For as long as it lasts, the log gets ever fewer lines, however much changes meanwhile.
    for n in range(600):
        if n % 10 == 0:
            await plane.registry.register(instance(n))
        await plane.clock.advance(PAUSE)
        await plane.store.get("a")
    assert 5 < len(caplog.records) < 13
    assert plane.snapshots.get("x").config_version == 1

    caplog.clear()
    caplog.set_level(logging.INFO)
    await plane.push(MESH.replace("auth", "pay"))
    await published(plane)
    assert plane.snapshots.get("x").config_version == 3
    assert plane.snapshots.trouble is None
    assert plane.fleet.status()["problems"] == []
    assert "is handed out again" in caplog.text
