from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.control.fleet import MAX_VERSION, TTL, FleetError
from hms_addons.control.gone import MAX_GONE, REMEMBERED
from hms_addons.control.store.protocol import StoreError
from tests.fakes.control_state import Plane, control_plane, published

if TYPE_CHECKING:
    from pathlib import Path

MESH = "clusters: [{name: auth-svc, tls_context: {sds: mesh_certs}}]"


async def report(plane: Plane, id_: str = "s1", service: str = "claims-svc", **more: Any) -> None:
    """A report of a sidecar that is well, but for `more`."""
    wanted = plane.snapshots.get(service)
    certificate = {"not_after": plane.clock.wall() + 3600.0, "serial": "ab"}
    told = {
        "service": service,
        "version": wanted.version,
        "digest": wanted.digest,
        "history": wanted.history,
        "state": "ack",
        "reason": "",
        "certificate": certificate,
        "bundle_sequence": 1,
        "address": "10.0.0.7:15006",
        "ready": True,
        "endpoints": {"usable": 4, "total": 5},
        "breakers_open": [],
        "hms_version": "1",
    }
    await plane.fleet.report(id_, service, told | more)


def row(plane: Plane) -> dict[str, Any]:
    (found,) = plane.fleet.status()["sidecars"]
    assert isinstance(found, dict)
    return found


def row_of(plane: Plane, id_: str) -> dict[str, Any]:
    (found,) = [row for row in plane.fleet.status()["sidecars"] if row["id"] == id_]
    assert isinstance(found, dict)
    return found


async def pushed(plane: Plane, text: str = MESH) -> None:
    await plane.push(text)
    await published(plane)


async def test_a_sidecar_that_is_well(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    status = plane.fleet.status()
    assert status["config_version"] == 1
    assert status["problems"] == []
    assert row(plane) == {
        "id": "s1",
        "service": "claims-svc",
        "state": "in sync",
        "version": 2,
        "wanted": 2,
        "reason": "",
        "problems": [],
        "ready": True,
        "address": "10.0.0.7:15006",
        "certificate": {"not_after": plane.clock.wall() + 3600, "serial": "ab"},
        "endpoints": {"usable": 4, "total": 5},
        "breakers_open": [],
        "hms_version": "1",
        "seen": plane.clock.wall(),
    }
    assert repr(plane.fleet) == "<Fleet 1 sidecars, 0 gone>"


async def test_the_same_report_again_writes_nothing_and_is_seen(plane: Plane) -> None:
    await pushed(plane)
    not_after = plane.clock.wall() + 3600
    for _ in range(5):
        await report(plane, certificate={"not_after": not_after, "serial": "ab"})
        assert row(plane)["seen"] == plane.clock.wall()
        await plane.clock.advance(10)
    assert plane.store.revision == 3


async def test_a_refusal_and_its_reason(plane: Plane) -> None:
    await pushed(plane)
    await report(plane, state="nack", reason="(control plane):1:1: no such plugin")
    assert row(plane)["state"] == "refused"
    assert row(plane)["problems"] == ["refuses version 2: (control plane):1:1: no such plugin"]
    await report(plane)
    assert row(plane)["problems"] == []


async def test_one_that_has_not_taken_the_newest_yet(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    await pushed(plane, MESH.replace("auth", "pay"))
    assert row(plane)["state"] == "behind"
    assert row(plane)["problems"] == ["has version 2, not 4"]
    await report(plane)
    assert row(plane)["state"] == "in sync"


async def test_one_that_has_nothing_yet_is_behind(plane: Plane) -> None:
    await report(plane, version=0, digest="")
    assert row(plane)["state"] == "behind"


async def test_a_restart_alone_puts_nobody_behind(tmp_path: Path, plane: Plane) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        await pushed(first)
        await report(first)
        await first.store.put("elsewhere", b"")
    await plane.clock.advance(3600)
    async with control_plane(path, plane.clock) as second:
        assert (row(second)["state"], row(second)["wanted"]) == ("in sync", 5)
        await report(second)
        assert second.fleet.status()["sidecars"][0]["problems"] == []


async def test_one_that_has_seen_more_than_this_store(
    tmp_path: Path, plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        await pushed(first)
    async with control_plane(path, plane.clock) as restored:
        for _ in range(3):
            await report(restored, version=2, digest="ab" * 6, history="abcdef01")
            await report(restored, "s2", version=400, digest="ab" * 6, history="")
            await report(restored, "s3", "auth-svc", version=400, digest="ab" * 6, history="")
            await report(restored, "s4", "pay-svc")
        status = restored.fleet.status()
        assert [row["state"] for row in status["sidecars"]] == [*["ahead"] * 3, "in sync"]
        (problem,) = status["problems"]
        assert problem.startswith(
            "sidecars have configurations that this control plane knows nothing of "
            "(those of auth-svc, claims-svc): was a backup restored?"
        )
        wanted = restored.snapshots.get("claims-svc").version
        assert row_of(restored, "s1")["problems"] == [
            f"has version 2, of which this control plane, at {wanted}, knows nothing"
        ]
        assert caplog.text.count("was a backup restored?") == 1

        await pushed(restored, MESH.replace("auth", "pay"))
        assert restored.fleet.status()["problems"] == []
        await report(restored)
        await report(restored, "s2")
        await report(restored, "s3", "auth-svc")
        await report(restored, "s4", "pay-svc")
        assert restored.fleet.status()["problems"] == []
        assert {row["state"] for row in restored.fleet.status()["sidecars"]} == {"in sync"}


async def test_after_a_push_a_sidecar_cannot_tell_of_a_backup(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    await pushed(plane)
    await report(plane, version=MAX_VERSION, digest="ab" * 6, history="abcdef01")
    assert row(plane)["state"] == "ahead"
    assert plane.fleet.status()["problems"] == []
    assert not caplog.records


async def test_a_backup_is_warned_of_again_once_none_was_ahead(
    plane: Plane, caplog: pytest.LogCaptureFixture
) -> None:
    services = [f"svc-{n}" for n in range(7)]
    for count in (1, 2):
        for service in services:
            await report(plane, "s1", service, version=MAX_VERSION, digest="ab" * 6)
        assert caplog.text.count("was a backup restored?") == count
        (problem,) = plane.fleet.status()["problems"]
        assert "(those of svc-0, svc-1, svc-2, svc-3, svc-4 and 2 more)" in problem
        for service in services:
            await report(plane, "s1", service, version=0, digest="")
        assert plane.fleet.status()["problems"] == []


async def test_what_is_wrong_with_the_control_plane_itself_is_said(plane: Plane) -> None:
    plane.mirror.failure = StoreError("the store cannot be followed any more")
    plane.snapshots.trouble = "no JSON"
    handed_out, followed = plane.fleet.status()["problems"]
    assert handed_out.endswith("(the control plane's log says more): no JSON")
    assert followed == "the store cannot be followed any more"


@pytest.mark.parametrize("version", [-1, MAX_VERSION + 1])
async def test_a_version_that_nobody_handed_out_is_refused(plane: Plane, version: int) -> None:
    with pytest.raises(FleetError, match="is no version"):
        await report(plane, version=version)
    assert plane.fleet.status()["sidecars"] == []


async def test_a_certificate_that_ends(plane: Plane) -> None:
    await pushed(plane)
    certificate = {"not_after": plane.clock.wall() + 1000, "serial": "ab"}
    await report(plane, certificate=certificate)

    async def later(seconds: float) -> list[str]:
        for _ in range(int(seconds / 10)):
            await plane.clock.advance(10)
            await report(plane, certificate=certificate)
        problems = row(plane)["problems"]
        assert isinstance(problems, list)
        return problems

    assert await later(740) == []
    assert await later(20) == ["its certificate expires in 240 s and has not been renewed"]
    assert await later(250) == [
        "its certificate expired 10 s ago: look for renewal errors in its log"
    ]
    await report(plane, certificate={"not_after": plane.clock.wall() + 1000, "serial": "cd"})
    assert row(plane)["problems"] == []
    await report(plane, certificate=None)
    assert (row(plane)["certificate"], row(plane)["problems"]) == (None, [])


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"ready": False}, "is not ready"),
        ({"endpoints": {"usable": 0, "total": 3}}, "can use none of its endpoints"),
        ({"breakers_open": ["auth-svc"]}, "the breaker of auth-svc is open"),
    ],
)
async def test_what_else_is_wrong(plane: Plane, wrong: dict[str, Any], problem: str) -> None:
    await pushed(plane)
    await report(plane, **wrong)
    assert row(plane)["problems"] == [problem]


async def test_one_that_falls_silent_is_gone_and_forgotten_later(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    seen = plane.clock.wall()
    await plane.clock.advance(TTL + 0.1)
    await plane.mirror.reach(4)
    assert (row(plane)["state"], row(plane)["seen"]) == ("gone", seen)
    assert row(plane)["problems"] == ["is gone: it has not reported, and did not say goodbye"]
    assert not row(plane)["ready"]
    await plane.clock.advance(REMEMBERED)
    assert plane.fleet.status()["sidecars"] == []


async def test_one_that_comes_back_is_not_gone(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    await plane.clock.advance(TTL + 0.1)
    await plane.mirror.reach(4)
    await report(plane)
    assert row(plane)["state"] == "in sync"


async def test_one_whose_certificate_had_expired_is_gone_for_a_reason(plane: Plane) -> None:
    await pushed(plane)
    await report(plane, certificate={"not_after": plane.clock.wall() + 5, "serial": "ab"})
    await plane.clock.advance(TTL + 0.1)
    await plane.mirror.reach(4)
    assert row(plane)["problems"] == [
        "is gone: it has not reported, and did not say goodbye (its certificate had expired)"
    ]


async def test_those_that_are_gone_are_gone_after_a_restart(tmp_path: Path, plane: Plane) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        await pushed(first)
        for id_ in ("s1", "s2", "s3"):
            await report(first, id_)
        seen = first.clock.wall()
        await first.clock.advance(TTL + 0.1)
        await first.mirror.reach(first.store.revision)
        await report(first, "s3")
        before = [row_of(first, id_) for id_ in ("s1", "s2")]
    async with control_plane(path, plane.clock) as second:
        assert [row_of(second, id_) for id_ in ("s1", "s2")] == before
        assert {(found["state"], found["seen"]) for found in before} == {("gone", seen)}
        assert row_of(second, "s3")["state"] == "in sync"
        await report(second, "s1")
        await second.fleet.leave("s2", "claims-svc")
    async with control_plane(path, plane.clock) as third:
        rows = third.fleet.status()["sidecars"]
        assert [(found["id"], found["state"]) for found in rows] == [
            ("s1", "in sync"),
            ("s3", "in sync"),
        ]


async def test_one_that_says_goodbye_is_not_gone(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    await plane.fleet.leave("s1", "another-svc")
    assert len(plane.fleet.status()["sidecars"]) == 1
    await plane.fleet.leave("s1", "claims-svc")
    await plane.fleet.leave("s1", "claims-svc")
    assert plane.fleet.status()["sidecars"] == []
    assert await plane.store.list("sidecars/") == []


async def test_nobody_touches_another_services_rows(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    await report(plane, service="auth-svc", ready=False)
    with pytest.raises(FleetError, match="cannot be an id"):
        await report(plane, id_="a/b")
    with pytest.raises(FleetError, match="cannot be an id"):
        await report(plane, service="a/b")
    assert [
        (found["service"], found["id"], found["ready"])
        for found in plane.fleet.status()["sidecars"]
    ] == [("auth-svc", "s1", False), ("claims-svc", "s1", True)]
    await plane.fleet.leave("s1", "auth-svc")
    assert (row(plane)["service"], row(plane)["state"]) == ("claims-svc", "in sync")


async def test_nor_those_of_its_sidecars_that_are_gone(plane: Plane) -> None:
    await pushed(plane)
    await report(plane)
    await plane.clock.advance(TTL + 0.1)
    await plane.mirror.reach(4)
    await report(plane, service="auth-svc")
    await plane.fleet.leave("s1", "auth-svc")
    assert (row(plane)["service"], row(plane)["state"]) == ("claims-svc", "gone")


async def test_a_service_has_so_many_sidecars_and_no_more(
    plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_addons.control.fleet.MAX_SIDECARS", 3)

    async def taken(id_: str) -> bool:
        try:
            await report(plane, id_, version=0)
        except FleetError:
            return False
        return True

    at_once = await asyncio.gather(*(taken(f"s{n}") for n in range(9)))
    assert at_once == [True] * 3 + [False] * 6
    await report(plane, "s1", version=0)
    await report(plane, "s9", "auth-svc", version=0)
    await plane.fleet.leave("s1", "claims-svc")
    assert await taken("s9")
    with pytest.raises(FleetError, match="3 sidecars of claims-svc report, and no more"):
        await report(plane, "s1", version=0)
    await plane.clock.advance(TTL + 0.1)
    async with asyncio.timeout(10):
        while {row["state"] for row in plane.fleet.status()["sidecars"]} != {"gone"}:  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert await taken("s1")


async def test_what_an_older_version_kept_without_the_service_runs_out(
    tmp_path: Path, plane: Plane
) -> None:
    path = tmp_path / "other" / "control.db"
    async with control_plane(path, plane.clock) as first:
        lease = await first.store.grant(TTL)
        old = b'{"service": "claims-svc", "version": 1, "digest": "", "state": "ack"}'
        await first.store.put("sidecars/s1", old, lease=lease)
    async with control_plane(path, plane.clock) as second:
        assert second.fleet.status()["sidecars"] == []
        await report(second)
        await second.clock.advance(TTL / 2)
        await report(second)
        await second.clock.advance(TTL / 2 + 0.1)
        await second.mirror.reach(second.store.revision)
        assert row(second)["state"] == "in sync"
        assert [entry.key for entry in await second.store.list("sidecars/")] == [
            "sidecars/claims-svc/s1"
        ]


async def test_those_that_are_gone_are_remembered_within_bounds(plane: Plane) -> None:
    for n in range(MAX_GONE + 50):
        await report(plane, f"s{n}", version=0)
    await plane.clock.advance(TTL + 0.1)
    await plane.mirror.reach(MAX_GONE + 52)
    assert len(plane.fleet.status()["sidecars"]) == MAX_GONE


@pytest.mark.parametrize("step", [-120, 120])
async def test_a_clock_that_is_set_makes_nobody_gone(plane: Plane, step: float) -> None:
    await report(plane)
    plane.clock.step(step)
    await plane.clock.advance(TTL - 1)
    assert row(plane)["state"] != "gone"
