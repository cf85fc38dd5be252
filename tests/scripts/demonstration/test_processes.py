from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration.processes import ROOT, Done, Processes, child_environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    processes = Processes(tmp_path / "logs")
    yield processes
    processes.close()


def test_children_see_no_settings_of_the_persons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMS_CONFIG", "/elsewhere.yaml")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    env = child_environment()
    assert not [name for name in env if name.startswith("HMS_")]
    assert "PYTHONPATH" not in env
    assert "127.0.0.1" in env["no_proxy"]


def test_a_command_is_run_to_its_end_in_the_projects_folder(processes: Processes) -> None:
    code = "import os, sys; print(os.getcwd()); sys.stderr.write(os.environ['MINE']); sys.exit(3)"
    done = processes.run([sys.executable, "-c", code], {"MINE": "mine"})
    assert done == Done(3, f"{ROOT}\nmine")


def test_output_that_is_not_for_the_log_goes_to_its_file(
    processes: Processes, tmp_path: Path
) -> None:
    secrets = tmp_path / "secrets"
    secrets.touch(0o600)
    code = "import sys; print('secret', flush=True); sys.stderr.write('public')"
    child = processes.spawn("one", [sys.executable, "-c", code], output=secrets)
    assert child.wait(20)
    assert secrets.read_text() == "secret\n"
    assert secrets.stat().st_mode & 0o777 == 0o600
    assert processes.log_tails() == "one:\n  | public"


def test_everything_is_ended(processes: Processes) -> None:
    code = "import signal; signal.pause()"
    child = processes.spawn("one", [sys.executable, "-c", code])
    assert child.running
    processes.close()
    assert not child.running
    processes.close()
