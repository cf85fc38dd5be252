"""The README's commands for a mesh with a control plane, read from it and run word by word."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.conftest import ROOT
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Iterator

HEADING = "### With a control plane"
PATIENCE = 120.0


def commands() -> list[str]:
    """The commands of the section's console block, without their comments."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    section = text[text.index(HEADING) :]
    block = re.search(r"```console\n(.*?)```", section, re.DOTALL)
    assert block is not None
    lines = block[1].replace("\\\n", " ").splitlines()
    assert all(line.startswith("$ ") for line in lines)
    return [re.sub(r"\s+#.*", "", line.removeprefix("$ ")) for line in lines]


def test_there_is_one_section_and_what_it_names_is_there() -> None:
    assert (ROOT / "README.md").read_text(encoding="utf-8").count(HEADING) == 1
    words = " ".join(commands()).split()
    files = [word for word in words if word.endswith((".yaml", ".py"))]
    files += [f"{word.replace('.', '/')}.py" for word in words if word.startswith("scripts.")]
    assert files == ["configs/routes.yaml", "scripts/lost_package/auth_svc.py"]
    assert [name for name in files if not (ROOT / name).is_file()] == []


class Terminals:
    """A person with as many terminals as it takes, all in the project's folder.

    The folder is another one that has the project's files, so that nothing is left in the real one.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        for name in ("configs", "scripts"):
            (folder / name).symlink_to(ROOT / name)
        programs = Path(sys.executable).parent
        self._env = {"PATH": f"{programs}{os.pathsep}{os.environ['PATH']}", "NO_PROXY": "*"}
        self._programs: list[Program] = []

    def stay(self, command: str) -> Program:
        """Run one that stays."""
        # Signals reach the command itself, not a shell before it; `env` takes variables in front.
        program = Program("sh", "-c", f"exec env {command}", env=self._env, cwd=self._folder)
        self._programs.append(program)
        return program

    def run(self, command: str) -> tuple[int, str]:
        """Run one that ends. Returns its exit code and what it printed."""
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HMS_")}
        done = subprocess.run(
            ["sh", "-c", command],
            env=clean | self._env,
            cwd=self._folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=PATIENCE,
            check=False,
        )
        return done.returncode, done.stdout

    def run_until(self, command: str, text: str) -> str:
        """Run it again and again until it succeeds and prints `text`, as a person does who waits."""
        deadline = time.monotonic() + PATIENCE
        while True:
            code, output = self.run(command)
            if code == 0 and text in output:
                return output
            logs = "\n".join(program.output for program in self._programs)
            assert time.monotonic() < deadline, f"$ {command}\n{output}\n{logs}"

    def copy_exports(self, text: str) -> None:
        """Copy what is printed as `export NAME=value` into every terminal."""
        self._env |= dict(re.findall(r"^export (\w+)=(\S+)", text, re.MULTILINE))

    def close(self) -> None:
        for program in reversed(self._programs):
            program.close()


@pytest.fixture
def terminals(tmp_path: Path) -> Iterator[Terminals]:
    terminals = Terminals(tmp_path)
    yield terminals
    terminals.close()


def test_it_is_under_ten_lines() -> None:
    section = (ROOT / "README.md").read_text(encoding="utf-8").split(HEADING)[1]
    assert len(section.split("```")[1].strip().splitlines()) - 1 < 10  # one says `console`


@pytest.mark.slow
@pytest.mark.curl
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("well_known")
def test_its_commands_bring_up_a_mesh(terminals: Terminals) -> None:
    control, push, auth, claims, curl, status = commands()
    running = terminals.stay(control)
    running.wait_for("export HMS_ADMIN_TOKEN=")
    running.wait_for("\n", after=running.output.index("export HMS_ADMIN_TOKEN="))
    terminals.copy_exports(running.output)

    code, said = terminals.run(push)
    assert code == 0, said
    terminals.stay(auth)
    terminals.stay(claims)
    assert '"replica": "auth-svc"' in terminals.run_until(curl, '"verified": true')
    fleet = terminals.run_until(status, "claims-svc")
    assert "auth-svc" in fleet
