from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

import pytest

from hms_addons.tasks import TaskSet
from hms_addons.up import member as member_module
from hms_addons.up.admin_port import AdminPorts
from hms_addons.up.control_plane import ControlPlane
from hms_addons.up.keeper import Keeper, State
from hms_addons.up.machine import FreePorts
from hms_addons.up.member import MISSED, Member
from hms_addons.up.plan import Instance
from hms_addons.up.run_state import RunState
from tests.fakes.clock import FakeClock
from tests.fakes.up import Launcher

if TYPE_CHECKING:
    from pathlib import Path


class Ports(AdminPorts):
    """Answers what `well` says, by path."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.well: dict[str, bool] = {}

    async def ok(self, port: int, path: str) -> bool:
        return self.well.get(path, False)


@pytest.fixture
def instance(tmp_path: Path) -> Instance:
    words = ("run", "{port}")
    return Instance("a-1", "a", "a-svc", words, tmp_path, "v2", 3, (("X", "1"),), health="/health")


def option(words: list[str], name: str) -> str:
    return words[words.index(name) + 1]


def test_its_command_says_all_that_a_sidecar_needs(instance: Instance, tmp_path: Path) -> None:
    member = Member(replace(instance, port=8123, outbound=15101, asked=True), FreePorts())
    plane = ControlPlane(RunState(tmp_path / "mesh.yaml"), 15010, FakeClock())
    words = member.command(plane, tmp_path / "s", "warning")
    assert words[words.index("--") :] == ["--", "run", "8123"]
    assert option(words, "--service") == "a-svc"
    assert option(words, "--app") == "http://127.0.0.1:8123"
    assert option(words, "--outbound") == "127.0.0.1:15101"
    assert option(words, "--version") == "v2"
    assert option(words, "--weight") == "3"
    assert "--window" in words
    found = member.environment({"HOME": "/"}, "join")
    assert found["HMS_TOKEN"] == "join"
    assert found["HMS_URL"] == "http://127.0.0.1:15101"
    assert (found["PORT"], found["X"], found["HOME"]) == ("8123", "1", "/")
    assert "join" not in words
    assert "HMS_TOKEN" not in member.environment({}, "")


async def test_without_a_sidecar_it_is_its_app(instance: Instance, tmp_path: Path) -> None:
    ports = FreePorts()
    member = Member(replace(instance, alone=True), ports)
    plane = ControlPlane(RunState(tmp_path / "mesh.yaml"), 15010, FakeClock())
    assert member.command(plane, tmp_path / "s", "warning") == ["run", str(member.port)]
    assert "HMS_URL" not in member.environment({}, "")
    member.keeper = Keeper(Launcher(), lambda *_: None, FakeClock(), Random(1))
    tasks = TaskSet("test")
    tasks.start(member.keeper.run(), "keeper")
    async with Ports() as admin:
        await asyncio.sleep(0)
        admin.well = {"/health": True}  # and nobody says /ready
        await member.look(admin)
        assert member.keeper.state is State.READY
        await member.measure(admin)
    assert member.row(0.0).rate is None
    assert (member.document()["url"], member.document()["admin"]) == ("", 0)
    member.keeper.kill()
    await tasks.close()
    member.give_back(ports)
    assert ports.taken == set()


def test_ports_are_its_own_and_given_back(instance: Instance) -> None:
    ports = FreePorts()
    one, two = Member(instance, ports), Member(instance, ports)
    taken = {getattr(m, n) for m in (one, two) for n in ("port", "inbound", "outbound", "admin")}
    assert len(taken) == 8
    one.give_back(ports)
    two.give_back(ports)
    assert ports.taken == set()


def test_a_port_that_a_stranger_has_taken_is_replaced(
    instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = FreePorts()
    member = Member(replace(instance, port=8123), ports)
    before = member.admin
    member.new_ports(ports)
    assert member.admin == before
    monkeypatch.setattr(member_module, "accepts", lambda port: port == before)
    member.new_ports(ports)
    assert member.admin != before
    assert member.port == 8123


async def test_it_is_ready_when_sidecar_and_app_are_well(instance: Instance) -> None:
    member = Member(instance, FreePorts())
    told: list[tuple[State, str]] = []
    member.keeper = Keeper(
        Launcher(), lambda *what: told.append(what), FakeClock(), Random(1)
    )  # fmt: skip
    tasks = TaskSet("test")
    async with Ports() as ports:
        await member.look(ports)
        assert not told, "it does not run yet"
        tasks.start(member.keeper.run(), "keeper")
        settled = tasks.start(member.settled(), "settled")
        await member.look(ports)
        ports.well = {"/ready": True}
        await member.look(ports)
        assert member.document()["state"] == "starting"
        ports.well = {"/ready": True, "/health": True}
        while member.keeper.child is None:
            await member.look(ports)
            await tasks_turn()
        await member.look(ports)
        assert member.document()["state"] == "ready"
        await settled
        ports.well = {"/ready": True}
        for _ in range(MISSED - 1):
            await member.look(ports)
            assert member.document()["state"] == "ready"
        await member.look(ports)
        assert told[-1] == (State.UNHEALTHY, "is unhealthy: /health does not answer")
        assert member.document()["state"] == "unhealthy"
        assert member.row(0).state == "unhealthy"
    await tasks.close()


async def tasks_turn() -> None:
    import asyncio  # noqa: PLC0415 - only here

    await asyncio.sleep(0)


def test_it_watches_other_files_without_a_restart(instance: Instance, tmp_path: Path) -> None:
    member = Member(instance, FreePorts())
    member.files.begin()
    before = member.files
    member.go_on(replace(instance, health="/healthz"))
    assert member.files is before
    member.go_on(replace(instance, watch=("*.py",)))
    (tmp_path / "a.py").write_text("")
    assert member.files.changed({}) is None, "it is there when it is looked at first"
    (tmp_path / "b.py").write_text("")
    assert member.files.changed({}) == tmp_path / "b.py"
