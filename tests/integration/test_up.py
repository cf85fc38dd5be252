"""`hms init`, then `hms up`, with real processes: what a person does in an empty folder."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.up.machine import marked, send
from tests.integration.basics import PATIENCE, free_port, until
from tests.integration.load import Load
from tests.integration.processes import START, Program
from tests.integration.prometheus_kit import Prometheus, check_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

BROKEN = """
  broken-svc:
    command: ["{python}", "-c", "print('no database'); raise SystemExit(3)"]
"""


class Up:
    """A running `hms up --json`, and its folder."""

    def __init__(self, folder: Path, replicas: int = 2) -> None:
        self.folder = folder
        self.file = folder / "mesh.yaml"
        self.state = folder / ".hms" / "up"
        self.hms("init")
        self.entry = free_port()
        text = self.file.read_text()
        assert "# entry: true  " in text
        # What else runs on this machine may want 15001 as well.
        self.edit(lambda text: text.replace("# entry: true  ", f"entry: {self.entry}"))
        if replicas != 2:  # the starter's
            self.edit(lambda text: text.replace("replicas: 2", f"replicas: {replicas}"))
        self.web = int(text.partition("curl localhost:")[2].split()[0])
        self.program = Program("hms", "up", "--json", cwd=folder)

    def hms(self, *words: str, code: int = 0) -> str:
        """Run a command in the folder."""
        done = subprocess.run(
            ["hms", *words],
            cwd=self.folder,
            env={k: v for k, v in os.environ.items() if not k.startswith("HMS_")},
            capture_output=True,
            encoding="utf-8",
            timeout=START,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def edit(self, change: Callable[[str], str]) -> None:
        """Change the file."""
        before = self.file.read_text()
        assert change(before) != before
        self.file.write_text(change(before))

    @property
    def events(self) -> list[dict[str, Any]]:
        """All that it has said so far."""
        return [json.loads(line) for line in self.program.output.splitlines()]

    def mark(self) -> int:
        """How much it has said."""
        return len(self.events)

    def event(self, after: int = 0, **wanted: str) -> dict[str, Any]:
        """Wait for an event; texts need only be in what is said."""

        def found() -> dict[str, Any] | None:
            for event in self.events[after:]:
                if all(text in str(event.get(key, "")) for key, text in wanted.items()):
                    return event
            assert not self.program.ended, self.program.output
            return None

        return until(found, f"event {wanted}", START)

    def scraped(self) -> set[str]:
        """The instances that Prometheus is told of."""
        found = json.loads((self.state.parent / "prometheus.json").read_text())
        return {one["labels"]["instance"] for one in found}

    def get(self, port: int, path: str = "/hello") -> str:
        """Call a port of this machine."""
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=PATIENCE) as answer:
            return str(answer.read().decode())


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    running = Up(tmp_path_factory.mktemp("up"))
    try:
        running.event(event="up")
        yield running
    finally:
        running.program.close()
        send(marked(running.state), signal.SIGKILL)


def test_what_init_writes_comes_up_and_carries_calls(up: Up) -> None:
    assert up.get(up.web, "/").startswith("web-svc has asked: Hello from hello-svc-")
    wanted, said = {f"Hello from hello-svc-{n}\n" for n in (1, 2)}, set[str]()
    # An instance that is ready reaches its callers a moment later.
    until(lambda: said.add(up.get(up.entry)) or said == wanted, "answers of both")
    assert up.get(up.entry, "/x?host=hello-svc.svc").startswith("Hello from")
    assert "is up already" in up.hms("up", code=1)
    assert f"http://127.0.0.1:{up.web}" in up.hms("open", "web-svc", "--json")
    assert "did you mean web-svc?" in up.hms("open", "web-scv", code=1)
    assert "GET /hello" in up.hms("logs", "hello-svc")
    rows = up.hms("top", "--once").splitlines()
    assert [line.split()[0] for line in rows[1:]] == ["web-svc-1", "hello-svc-1", "hello-svc-2"]


@pytest.mark.prometheus
def test_a_real_prometheus_scrapes_it_all_and_no_panel_of_the_dashboard_is_empty(
    up: Up, tmp_path: Path
) -> None:
    with Prometheus(tmp_path, up.state.parent) as prometheus:
        assert not check_config(tmp_path / "prometheus.yml")
        missing: list[str] = []

        def all_there() -> bool:
            up.get(up.web, "/")
            missing[:] = prometheus.without_data()
            return not missing

        until(all_there, "data in each panel", START)
        names = ("control-plane", "web-svc-1", "hello-svc-1", "hello-svc-2")
        until(lambda: prometheus.targets() == dict.fromkeys(names, "up"), "all targets")
        # Whose sidecar, which called service, which way: three things, three labels.
        text = "sum by (service, destination, direction) (hms_requests_total) > 0"
        called = {"service": "web-svc", "destination": "hello-svc", "direction": "outbound"}
        until(
            lambda: called in [one["metric"] for one in prometheus.query(text)], "web-svc's calls"
        )
        assert not prometheus.query('{__name__=~"hms_.*",exported_service!=""}')
        assert "level=error" not in prometheus.output


def test_a_window_opens_on_a_sidecar_and_loses_no_request(up: Up) -> None:
    assert "`hms open hello-svc-1` or" in up.hms("open", "hello-svc", code=1)
    with Load(up.entry, "hello-svc.svc", kept=1, fresh=1) as load:
        url = up.hms("open", "web-svc", "--no-browser").rpartition("window  ")[2].strip()
        page, _, token = url.partition("?token=")
        asked = urllib.request.Request(f"{page}flows", headers={"Authorization": f"Bearer {token}"})

        def seen() -> list[dict[str, Any]]:
            with urllib.request.urlopen(asked, timeout=PATIENCE) as answer:
                return list(json.load(answer))

        [flow, *_] = until(seen, "flow in the window")
        assert flow["comment"].startswith("outbound route=")
        assert "window  closed" in up.hms("open", "web-svc", "--close")
        answered = load.answered
        until(lambda: load.answered > answered, "requests after the window was closed")
    assert not load.failures
    with pytest.raises(urllib.error.URLError):
        seen()


def test_a_killed_sidecar_comes_back_and_leaves_no_app_behind(up: Up) -> None:
    after = up.mark()
    old = marked(up.state, "hello-svc-1")
    sidecar = min(old)
    assert len(old) == 2
    os.kill(sidecar, signal.SIGKILL)
    waiting = up.event(after, instance="hello-svc-1", state="waiting")
    assert "SIGKILL; starting it again in" in waiting["detail"]
    up.event(after, instance="hello-svc-1", state="ready")
    assert not set(old) & set(marked(up.state, "hello-svc-1"))
    until(lambda: up.get(up.entry) == "Hello from hello-svc-1\n", "answer of hello-svc-1")


def test_the_control_plane_comes_back_too(up: Up) -> None:
    after = up.mark()
    send(marked(up.state, "control-plane"), signal.SIGKILL)
    up.event(after, instance="control-plane", state="waiting")
    up.event(after, instance="control-plane", state="ready")
    assert up.get(up.entry).startswith("Hello from")


def test_edits_are_applied_while_it_runs_and_faults_are_not(up: Up) -> None:
    before = marked(up.state, "web-svc-1")
    up.edit(lambda text: text.replace("replicas: 2", "replicas: 3"))
    up.event(instance="hello-svc-3", state="ready")
    until(lambda: up.get(up.entry) == "Hello from hello-svc-3\n", "answer of hello-svc-3")
    assert "hello-svc-3" in up.scraped()

    after = up.mark()
    up.edit(lambda text: text.replace("replicas: 3", "replcas: 3"))
    problem = up.event(after, event="problem")["message"]
    assert "replcas' (did you mean replicas?)" in problem
    assert "mesh.yaml:" in problem
    assert "what runs goes on" in problem
    assert up.get(up.entry).startswith("Hello from")

    after = up.mark()
    up.edit(
        lambda text: text.replace("replcas: 3", "replicas: 2").replace(
            "\n# The mesh's configuration", f"{BROKEN}\n# The mesh's configuration"
        )
    )
    up.event(after, instance="hello-svc-3", state="stopped")
    until(lambda: "hello-svc-3" not in up.scraped(), "Prometheus' list without it")
    detail = up.event(after, instance="broken-svc-1", state="waiting")["detail"]
    assert "exit code 3; starting it again in" in detail
    assert "no database" in detail

    after = up.mark()
    up.edit(lambda text: text.replace(BROKEN, "").replace("prefix: /hello", "prefix: /hallo"))
    up.event(after, message="configuration version 2 is in force")
    up.event(after, instance="broken-svc-1", state="stopped")
    until(lambda: up.get(up.entry, "/hallo").startswith("Hello from"), "answer on the new route")
    assert marked(up.state, "web-svc-1") == before, "it was not restarted"


def test_ctrl_c_ends_all_in_order_and_leaves_nothing(tmp_path: Path) -> None:
    up = Up(tmp_path, replicas=1)
    try:
        up.event(event="up")
        after = up.mark()
        up.program.signal(signal.SIGINT)
        assert up.program.wait() == 0
        stopped = [e["instance"] for e in up.events[after:] if e.get("state") == "stopped"]
        assert stopped[0] == "web-svc-1"
        assert stopped[-1] == "control-plane"
        assert len(stopped) == 3
        assert marked(up.state) == []
        assert "is not up" in up.hms("down")
        assert "hms up" in up.hms("top", code=1)
        assert not (up.state.parent / "prometheus.json").exists()
    finally:
        up.program.close()
        send(marked(up.state), signal.SIGKILL)


def test_down_ends_what_a_killed_up_has_left(tmp_path: Path) -> None:
    up = Up(tmp_path, replicas=1)
    try:
        up.event(instance="hello-svc-1", state="ready")
        up.program.signal(signal.SIGKILL)
        up.program.wait()
        assert marked(up.state)
        assert "left behind" in up.hms("down")
        assert marked(up.state) == []
    finally:
        up.program.close()
        send(marked(up.state), signal.SIGKILL)
