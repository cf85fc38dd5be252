from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, ClassVar

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


def test_open_tells_a_script_where_things_are(running: Path) -> None:
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


# -- a window --------------------------------------------------------------------------------------


class Admin(BaseHTTPRequestHandler):
    """A sidecar's admin port, as far as windows go."""

    asked: ClassVar[list[str]] = []
    port = 0
    status = 200

    def do_POST(self) -> None:
        self.asked.append(self.path)
        closing = "open=no" in self.path
        told = {"closed": True} if closing else {"url": "http://127.0.0.1:2/?token=t"}
        body = json.dumps(told if self.status == 200 else {"detail": "not now"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def admin() -> Iterator[type[Admin]]:
    class Asked(Admin):
        asked: ClassVar[list[str]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Asked) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        Asked.port = server.server_address[1]
        yield Asked
        server.shutdown()
        thread.join()


def up_with(folder: Path, *instances: dict[str, object]) -> RunState:
    state = RunState(folder / "mesh.yaml")
    state.take()
    state.tell({"control": "https://x", "ca_pin": "sha256:1", "instances": list(instances)})
    return state


def test_open_opens_a_window_and_close_closes_it(tmp_path: Path, admin: type[Admin]) -> None:
    state = up_with(tmp_path, ONE | {"admin": admin.port})
    said = hms("open", "auth-svc", state.file, "--no-browser").stdout
    for line in ("app     http://127.0.0.1:9001", "calls   http://127.0.0.1:15001"):
        assert line in said
    assert "window  http://127.0.0.1:2/?token=t\n" in said
    assert "window  closed" in hms("open", "auth-svc-1", state.file, "--close").stdout
    assert admin.asked == ["/window?open=yes&format=json", "/window?open=no&format=json"]
    state.release()


def test_of_several_instances_one_must_be_chosen(tmp_path: Path) -> None:
    state = up_with(tmp_path, ONE, ONE | {"name": "auth-svc-2"})
    wrong = hms("open", "auth-svc", state.file)
    assert wrong.exit_code == 1
    assert "2 instances" in wrong.stderr
    assert "`hms open auth-svc-1` or `hms open auth-svc-2`" in wrong.stderr
    assert len(json.loads(hms("open", "auth-svc", state.file, "--json").stdout)) == 2
    state.release()


def test_what_has_no_sidecar_has_no_window(tmp_path: Path) -> None:
    state = up_with(tmp_path, ONE | {"admin": None})
    wrong = hms("open", "auth-svc", state.file)
    assert wrong.exit_code == 1
    assert "auth-svc-1 has no sidecar" in wrong.stderr
    state.release()


def test_a_sidecar_that_has_no_window_says_why(tmp_path: Path, admin: type[Admin]) -> None:
    admin.status = 409
    state = up_with(tmp_path, ONE | {"admin": admin.port})
    wrong = hms("open", "auth-svc", state.file, "--no-browser")
    assert wrong.exit_code != 0
    assert "auth-svc-1: not now" in wrong.stderr
    state.release()


def test_a_sidecar_that_does_not_answer_is_told(tmp_path: Path) -> None:
    state = up_with(tmp_path, ONE)
    wrong = hms("open", "auth-svc", state.file, "--no-browser")
    assert wrong.exit_code != 0
    assert "does not answer at http://127.0.0.1:1/window" in wrong.stderr
    state.release()


@pytest.mark.parametrize("display", [True, False])
def test_a_browser_is_opened_where_there_is_a_display(
    tmp_path: Path, admin: type[Admin], monkeypatch: pytest.MonkeyPatch, *, display: bool
) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)  # there is none here
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    if display:
        monkeypatch.setenv("DISPLAY", ":0")
    state = up_with(tmp_path, ONE | {"admin": admin.port})
    hms("open", "auth-svc", state.file)
    assert opened == (["http://127.0.0.1:2/?token=t"] if display else [])
    state.release()
