"""`scripts/demo` for real: every process, the whole tour, and nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import uuid
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING

import pytest

from scripts.demonstration.calls import call
from scripts.demonstration.lost_package import DOOR, ISSUER, JSON, MESH
from tests.integration.basics import ROOT, until
from tests.integration.ports import is_free
from tests.integration.prometheus_kit import Prometheus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CHILD_MARK = "LOST_PACKAGE_TEST"  # Children inherit it; HMS_… the demo hides from them.

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.usefixtures("well_known"),
]


class Demo:
    """A running demo; its output is read line by line."""

    def __init__(self, work: Path, *arguments: str) -> None:
        self.mark = uuid.uuid4().hex
        env = {**os.environ, CHILD_MARK: self.mark}
        # The environment that runs this test has all that the demo needs.
        env.setdefault("HMS_VENV", str(Path(sys.executable).parent.parent))
        self.process = subprocess.Popen(
            [ROOT / "scripts" / "demo", "--work", work, *arguments],
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
        )
        self.output = ""

    @property
    def lines(self) -> IO[str]:
        assert self.process.stdout is not None
        return self.process.stdout

    def read_until(self, text: str) -> None:
        for line in self.lines:
            self.output += line
            if text in line:
                return
        pytest.fail(f"the demo ended before it said {text!r}:\n{self.output}")

    def finish(self) -> int:
        self.output += self.lines.read()
        return self.process.wait(60)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(60)
        self.lines.close()

    def left_over(self) -> list[str]:
        """Processes that inherited this demo's mark and still run."""
        found = []
        wanted = f"{CHILD_MARK}={self.mark}".encode()
        for path in Path("/proc").glob("[0-9]*/environ"):
            try:
                if wanted in path.read_bytes().split(b"\0"):
                    found.append(path.with_name("cmdline").read_bytes().decode())
            except OSError:
                continue
        return found


def readme_start() -> tuple[str, str]:
    """What the README's first block does once the demo is up, and what it says that this prints."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block = text[text.index("## Start") :].partition("```console\n")[2].partition("```")[0]
    assert len(block.splitlines()) <= 10
    after = block.partition("$ scripts/demo --keep")[2].partition("\n")[2].splitlines()
    commands = [line.removeprefix("$ ") for line in after if line.startswith("$ ")]
    printed = "".join(f"{line}\n" for line in after if not line.startswith("$ "))
    return "\n".join(commands), re.sub(
        r"LP-[0-9a-f]+", "LP-[0-9a-f]+", re.escape(printed).replace(r"\-", "-")
    )


@pytest.fixture
def demos() -> Iterator[list[Demo]]:
    started: list[Demo] = []
    yield started
    for demo in started:
        demo.end()


def no_panel_is_empty(folder: Path, mesh: Path, claim: Callable[[], object]) -> None:
    """A real Prometheus scrapes the demo's mesh, and every query of the dashboard gives data."""
    with Prometheus(folder, mesh) as prometheus:
        missing: list[str] = []

        def all_there() -> bool:
            claim()
            missing[:] = prometheus.without_data()
            return not missing

        try:
            until(all_there, "data in each panel")
        finally:
            assert not missing
        listed = json.loads((mesh / "prometheus.json").read_text())
        names = [one["labels"]["instance"] for one in listed]
        assert "payments-svc-v2-1" in names, "the tour has started it by an edit"
        wanted = dict.fromkeys(names, "up")
        until(lambda: prometheus.targets() == wanted, f"all of {names}")
        # What the tour has done is in it, and not only zeros.
        for text in (
            'hms_policy_version_info{service="payments-svc",revision!=""}',
            'hms_rbac_decisions_total{decision="denied"} > 0',
            'hms_requests_total{service="claims-svc",destination="auth-svc"} > 0',
        ):
            until(partial(prometheus.query, text), text)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_the_whole_tour_is_as_it_should_be_and_ctrl_c_ends_everything(
    demos: list[Demo], tmp_path: Path
) -> None:
    demo = Demo(tmp_path / "work", "--keep")
    demos.append(demo)
    demo.read_until("Ctrl-C ends it")
    demo.read_until("$EDITOR")

    commands, printed = readme_start()
    if shutil.which("curl"):
        done = subprocess.run(
            ["sh", "-c", commands],
            env={**os.environ, "NO_PROXY": "*"},
            capture_output=True,
            encoding="utf-8",
            check=False,
        )
        assert re.fullmatch(printed, done.stdout), done.stdout + done.stderr
    token = call(ISSUER, "/token?role=PROGRAM_MANAGER&subject=me").body.decode()

    def claim() -> tuple[int, str]:
        found = call(DOOR, "/claims", {**JSON, "Authorization": token}, method="POST", body=b"{}")
        return found.status, found.json()["state"]

    assert claim() == (202, "refund accepted")
    state = tmp_path / "work" / "configs" / "lost-package" / ".hms" / "up"
    if shutil.which("prometheus"):  # else tests/integration/test_up.py says what is missing
        no_panel_is_empty(tmp_path, state.parent, claim)
    secret = state / "admin-token"
    assert secret.stat().st_mode & 0o777 == 0o600
    written = demo.output + "".join(path.read_text() for path in state.rglob("*.log"))
    assert written.count("POST /claims") > 20, "the logs are there"
    assert secret.read_text() not in written
    assert not re.search(r"hms1\.[0-9a-f]", written), "join tokens are in no log"

    demo.process.send_signal(signal.SIGINT)
    assert demo.finish() == 0, demo.output
    assert re.search(r"^    ✅ verified$", demo.output, re.MULTILINE)
    assert re.search(r"ready after [0-9.]+ s", demo.output)
    assert "All as it should be: 22 steps" in demo.output
    assert "✗" not in demo.output
    assert "\x1b" not in demo.output, "no colours where there is no terminal"
    assert demo.left_over() == []
    assert is_free(MESH)


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="looks into /proc")
def test_a_signal_while_it_starts_ends_everything(demos: list[Demo], tmp_path: Path) -> None:
    demo = Demo(tmp_path / "work")
    demos.append(demo)
    demo.read_until("hms-gov-1 is ready")
    demo.process.send_signal(signal.SIGTERM)
    assert demo.finish() == 143, demo.output
    assert demo.left_over() == []
