"""What it does is shown with real processes in tests/integration/test_up.py; here, what it decides."""

from __future__ import annotations

import socket
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.errors import MeshError
from hms_addons.up import child
from hms_addons.up.control_plane import ControlPlane, RefusedConfigError
from hms_addons.up.keeper import State
from hms_addons.up.mesh_file import Mesh, read_mesh
from hms_addons.up.run_state import RunState
from hms_addons.up.scraped import CONTROL
from hms_addons.up.supervisor import Supervisor
from tests.fakes.clock import FakeClock
from tests.fakes.up import FakeChild, FakeReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

FILE = """\
services:
  a-svc: {{ command: sh, env: {{ V: "{v}" }} }}
  b-svc: {{ command: sh, replicas: {b} }}
mesh: {{ zone: {zone} }}
"""


class Bench:
    """A supervisor whose processes are fakes."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "mesh.yaml"
        self.mesh = self.write()
        self.state = RunState(self.file)
        self.state.take()
        self.report = FakeReport()
        self.clock = FakeClock()
        self.started: list[tuple[str, FakeChild]] = []
        self.env: dict[str, dict[str, str]] = {}
        self.pushed: list[Any] = []
        self.refusal: MeshError | None = None
        self.expected = 3
        env = {"HOME": "/", "HMS_TOKEN": "of the shell"}
        self.supervisor = Supervisor(self.state, self.mesh, env, self.report, self.clock, Random(1))

    def write(self, v: int = 1, b: int = 1, zone: str = "a") -> Mesh:
        self.file.write_text(FILE.format(v=v, b=b, zone=zone))
        return read_mesh(self.file)

    async def start(self, argv: list[str], **about: Any) -> FakeChild:
        found = FakeChild()
        name = about["name"]
        self.started.append((name, found))
        self.env[name] = dict(about["env"])
        if name == CONTROL:
            about["on_line"]("export HMS_CA_PIN=sha256:" + "a" * 64)
            about["on_line"]("export HMS_ADMIN_TOKEN=secret")
        else:
            about["on_line"]("hello")
        return found

    async def push(self, files: Any) -> int:
        if self.refusal is not None:
            raise self.refusal
        self.pushed.append(files)
        return len(self.pushed)

    async def run(self, meanwhile: Callable[[], Any]) -> int:
        """Run it; once all have started, do something, then stop."""
        runs = self.supervisor._tasks.start(self.supervisor.run(), "run")
        while not runs.done() and len(self.started) < self.expected:
            await self.clock.advance(0.01)
        await meanwhile()
        self.supervisor.stop()
        while not runs.done():
            await self.clock.advance(0.01)
        return int(await runs)


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    found = Bench(tmp_path)
    monkeypatch.setattr(child, "start", found.start)
    monkeypatch.setattr(ControlPlane, "push", lambda _, files: found.push(files))

    async def token(_: ControlPlane, service: str) -> str:
        return f"token of {service}"

    async def idle(*_: object) -> None:
        """Nobody looks by himself: each test says when."""

    monkeypatch.setattr(ControlPlane, "join_token", token)
    monkeypatch.setattr(Supervisor, "_follow", idle)
    monkeypatch.setattr(Supervisor, "_watch_members", idle)
    yield found
    found.state.release()


async def nothing() -> None:
    """Do nothing."""


async def test_the_order_is_control_plane_configuration_instances_and_back(bench: Bench) -> None:
    assert await bench.run(nothing) == 0
    assert [name for name, _ in bench.started] == [CONTROL, "a-svc-1", "b-svc-1"]
    assert len(bench.pushed) == 1
    stopped = [said.split()[0] for said in bench.report.said if said.endswith(" stopped")]
    assert stopped == ["a-svc-1", "b-svc-1", CONTROL], "the entry first"
    assert "a-svc-1| hello" in bench.report.said
    assert not any("secret" in said for said in bench.report.said)


async def test_each_has_a_token_of_its_own_and_nothing_of_the_shells_mesh(bench: Bench) -> None:
    await bench.run(nothing)
    assert bench.env["b-svc-1"]["HMS_TOKEN"] == "token of b-svc"
    assert "HMS_TOKEN" not in bench.env[CONTROL]
    assert bench.env[CONTROL]["HOME"] == "/"


async def test_what_has_no_sidecar_needs_no_token_and_ends_after_those_that_ask_it(
    bench: Bench,
) -> None:
    async def edit() -> None:
        lines = "services:\n  gov-svc: { command: sh, sidecar: false }\n"
        text = bench.file.read_text().replace("services:\n", lines)
        bench.file.write_text(text)
        await bench.supervisor._apply(read_mesh(bench.file))
        await bench.clock.advance(0.01)

    await bench.run(edit)
    assert bench.started[-1][0] == "gov-svc-1"
    assert "HMS_TOKEN" not in bench.env["gov-svc-1"]
    stopped = [said.split()[0] for said in bench.report.said if said.endswith(" stopped")]
    assert stopped == ["a-svc-1", "b-svc-1", "gov-svc-1", CONTROL]


async def test_an_edit_touches_only_what_it_changes(bench: Bench) -> None:
    async def edit() -> None:
        first = dict(bench.started)
        await bench.supervisor._apply(bench.write(v=2, b=2))
        await bench.clock.advance(0.01)
        assert [name for name, _ in bench.started[3:]] == ["b-svc-2", "a-svc-1"]
        assert first["a-svc-1"].signals == ["TERM"]
        assert first["b-svc-1"].signals == []
        assert len(bench.pushed) == 1, "its configuration is the same"
        await bench.supervisor._apply(bench.write(v=2, b=2, zone="b"))
        assert len(bench.pushed) == 2
        assert len(bench.started) == 5

    assert await bench.run(edit) == 0
    assert "the file has changed: restart a-svc-1; start b-svc-2" in bench.report.said


async def test_another_life_of_certificates_restarts_the_control_plane_alone(bench: Bench) -> None:
    async def edit() -> None:
        with bench.file.open("a") as file:
            file.write("svid_lifetime: 60s\n")
        await bench.supervisor._apply(read_mesh(bench.file))
        await bench.clock.advance(0.01)
        assert [name for name, _ in bench.started[3:]] == [CONTROL]

    assert await bench.run(edit) == 0
    assert any("svid_lifetime has changed" in said for said in bench.report.said)


async def test_a_refused_configuration_changes_nothing(bench: Bench) -> None:
    async def edit() -> None:
        bench.refusal = RefusedConfigError("m.yaml:1:1: no")
        await bench.supervisor._apply(bench.write(b=3, zone="b"))
        assert len(bench.started) == 3

    assert await bench.run(edit) == 0
    assert "m.yaml:1:1: no" in bench.report.said


async def test_a_configuration_that_is_refused_at_the_start_ends_it(bench: Bench) -> None:
    bench.refusal = RefusedConfigError("m.yaml:1:1: no")
    assert await bench.run(nothing) == 1
    assert [name for name, _ in bench.started] == [CONTROL]


async def test_a_changed_file_restarts_its_service_one_instance_after_the_other(
    bench: Bench,
) -> None:
    bench.file.write_text(
        'services: { a: { command: sh, replicas: 2, watch: "*.py" }, b: { command: sh } }'
    )
    bench.supervisor._mesh = read_mesh(bench.file)

    async def edit() -> None:
        members = list(bench.supervisor._members.values())
        for member in members:
            member.keeper.set(State.READY)
        (bench.file.parent / "app.py").write_text("")
        await bench.supervisor._restart_changed(members)
        while len(bench.started) < 5:
            await bench.clock.advance(0.01)
        started = [name for name, _ in bench.started]
        assert started[4:] == ["a-1"], "a-2 goes on until a-1 is ready again"
        members[0].keeper.set(State.READY)
        while len(bench.started) < 6:
            await bench.clock.advance(0.01)
        assert [name for name, _ in bench.started[4:]] == ["a-1", "a-2"]

    bench.expected = 4
    assert await bench.run(edit) == 0


async def test_a_second_stop_kills(bench: Bench) -> None:
    async def hang() -> None:
        for _, process in bench.started:
            process.terminate = lambda: None  # type: ignore[method-assign]
        bench.supervisor.stop()
        bench.supervisor.stop(hurry=False)  # another `hms down`
        await bench.clock.advance(1)
        assert bench.supervisor._members["a-svc-1"].keeper.state is State.STOPPING
        assert not any(process.signals for _, process in bench.started)

    await bench.run(hang)
    assert {tuple(process.signals) for _, process in bench.started} == {("KILL",)}


async def test_a_taken_port_is_named_before_anything_starts(bench: Bench) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        bench.file.write_text(f"services: {{ a: {{ command: sh, port: {port} }} }}")
        bench.supervisor._mesh = read_mesh(bench.file)
        with pytest.raises(MeshError, match=rf"port {port} for a-1 is in use by process \d+ "):
            await bench.supervisor.run()
    assert not bench.started


async def test_the_table_tells_how_they_end(bench: Bench) -> None:
    bench.report.shows_table = True
    assert await bench.run(nothing) == 0
    rows = [said for said in bench.report.said if "Row(" in said]
    assert "name='a-svc-1', state=<State.STOPPED" in rows[-1]
    assert "name='b-svc-1', state=<State.STOPPED" in rows[-1]
