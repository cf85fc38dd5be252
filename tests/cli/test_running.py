from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hms_addons.up.log_files import LogFiles
from hms_addons.up.run_state import RunState
from tests.fakes.cli import hms
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ONE = {
    "name": "auth-svc-1", "group": "auth-svc", "service": "auth-svc", "state": "ready",
    "app": "http://127.0.0.1:9001", "url": "http://127.0.0.1:15001", "admin": 1,
}  # fmt: skip


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Path]:
    state = RunState(tmp_path / "mesh.yaml")
    state.take()
    state.admin_token = "secret"
    state.tell({"control": "https://x", "ca_pin": "sha256:1", "instances": [ONE]})
    yield tmp_path / "mesh.yaml"
    state.release()


def test_open_says_where_things_are(running: Path) -> None:
    said = hms("open", "auth-svc", running).stdout
    for address in ("http://127.0.0.1:9001", "http://127.0.0.1:15001", "http://127.0.0.1:1\n"):
        assert address in said
    assert json.loads(hms("open", "auth-svc-1", running, "--json").stdout) == [ONE]
    wrong = hms("open", "auth-scv", running)
    assert wrong.exit_code == 1
    assert "did you mean auth-svc?" in wrong.stderr


def test_open_control_plane_is_for_a_shell(running: Path) -> None:
    assert hms("open", "control-plane", running).stdout.splitlines() == [
        "export HMS_CONTROL=https://x",
        "export HMS_CA_PIN=sha256:1",
        "export HMS_ADMIN_TOKEN=secret",
    ]


def test_top_shows_the_table_once_where_there_is_no_terminal(running: Path) -> None:
    result = hms("top", running)
    assert result.exit_code == 0
    assert "INSTANCE" in result.stdout
    assert "auth-svc-1" in result.stdout


@pytest.mark.parametrize("command", [("open", "a"), ("top",)])
def test_what_is_not_up_is_told(tmp_path: Path, command: tuple[str, ...]) -> None:
    result = hms(*command, tmp_path / "mesh.yaml")
    assert result.exit_code == 1
    assert "is not up: `hms up" in result.stderr


def test_logs_outlive_the_mesh(tmp_path: Path) -> None:
    files = LogFiles(RunState(tmp_path / "mesh.yaml").logs, FakeClock())
    files.write("a-1", "hello")
    files.close()
    assert hms("logs", "a", tmp_path / "mesh.yaml").stdout == "a-1 │ hello\n"
    wrong = hms("logs", "b", tmp_path / "mesh.yaml")
    assert wrong.exit_code == 1
    assert "there is no log of b; there are: a-1" in wrong.stderr
