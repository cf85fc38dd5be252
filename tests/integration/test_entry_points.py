"""The mesh started as a user types it: bare, with the seed's files, and in mitmproxy's console."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.integration.basics import MESH, ROOT, Closing, until
from tests.integration.clients import fetch
from tests.integration.mitm_kit import App, MeshFiles
from tests.integration.ports import is_free
from tests.integration.processes import Program, hms_sidecar

if TYPE_CHECKING:
    from pathlib import Path

PORT = 15001
"""What configs/routes.yaml and the seed's caller say."""
ADMIN = 15000
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b[()][A-Z0-9]|\x1b[=>]|[\x0e\x0f]")
"""What a terminal takes as orders (ECMA-48)."""


@pytest.mark.slow
@pytest.mark.timeout(600)  # others may have the ports
@pytest.mark.usefixtures("well_known")
def test_bare_in_the_repository_it_takes_the_routes_that_lie_there(tmp_path: Path) -> None:
    home = ("--set", f"confdir={tmp_path}")
    with Program("mitmdump", "-s", "hms_addons/mesh.py", *home, cwd=ROOT) as program:
        program.wait_for("HMS mesh listener 'inbound_http' listening at 127.0.0.1:15001")
        answer = fetch(PORT, "GET", "/verify-id?host=auth-svc.svc")
        # Nobody has said yet where auth-svc is, nor given it a certificate.
        assert (answer.status, answer.flag) == (503, "UH")
        assert "auth-svc" in answer.json["detail"]
        assert fetch(PORT, "GET", "/elsewhere").flag == "NR"
        ready = fetch(ADMIN, "GET", "/ready", host=f"127.0.0.1:{ADMIN}")
        assert ready.status == 200
        assert program.stop() == 0
    assert "Traceback" not in program.output


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("well_known")
def test_the_seeds_caller_is_served_by_the_seeds_routes(seed: Path, tmp_path: Path) -> None:
    with App() as app:
        files = MeshFiles(tmp_path, app)
        inbound = files.write("auth.yaml", files.inbound())
        common = files.common("claims-svc")
        overlay = {
            **common,
            "clusters": [{"name": "auth-svc", "endpoints": [f"127.0.0.1:{files.peers}"]}],
            "secrets": {"mesh_certs": common["secrets"]["claims-svc"]},
        }
        configs = f"{seed / 'routes.yaml'},{files.write('overlay.yaml', overlay)}"
        command = ("mitmdump", "-s", "hms_addons/mesh.py", "--set", f"hms_config={configs}")
        home = ("--set", f"confdir={tmp_path / 'home'}", "--set", "hms_admin=off")
        with (
            hms_sidecar("--config", inbound) as callee,
            Program(*command, *home, cwd=ROOT) as caller,
        ):
            callee.wait_listening(files.peers)
            caller.wait_listening(PORT)
            token = files.token()["Authorization"].removeprefix("Bearer ")
            assert call(seed, token) == "✅ verified"
            assert app.last.target == "/verify-id"
            assert app.last.header("x-caller-role") == "PROGRAM_MANAGER"
            assert app.last.header("x-policy-version") == "1.3.4"
            assert app.last.header("x-caller-service") == "spiffe://mpsa.mil/svc/claims-svc"
            app.requests.clear()
            assert call(seed, token[:-8] + "forged00") == "❌ invalid"
            assert not app.seen
            assert (caller.stop(), callee.stop()) == (0, 0)


def call(seed: Path, token: str) -> str:
    """What the seed's caller prints."""
    done = subprocess.run(
        [sys.executable, seed / "claims.py"],
        env={**os.environ, "SOLDIER_JWT": token, "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


class Terminal(Closing):
    """A program in a pseudo-terminal of 40 lines; all that it has written is in `screen`."""

    def __init__(self, *command: str | Path, cwd: Path) -> None:
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
        self._terminal = ours
        self._written = b""
        self._process = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
        )
        os.close(theirs)
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        with contextlib.suppress(OSError):  # EIO: the program has ended
            while data := os.read(self._terminal, 65536):
                self._written += data

    @property
    def screen(self) -> str:
        """All that was drawn, one over the other, without colours and movements."""
        return ESCAPES.sub("", self._written.decode("utf-8", "replace"))

    def shows(self, text: str) -> None:
        def shown() -> bool:
            assert self._process.poll() is None, self.screen
            return text in self.screen

        until(shown, f"{text!r} on the screen", 60)

    def type(self, keys: str) -> None:
        os.write(self._terminal, keys.encode())

    def wait(self) -> int:
        return self._process.wait(30)

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        self._reader.join()
        os.close(self._terminal)


@pytest.mark.slow
def test_the_console_lists_the_meshs_flows(tmp_path: Path) -> None:
    with App() as app:
        files = MeshFiles(tmp_path, app)
        config = files.write("mesh.yaml", files.outbound())
        options = [f"hms_config={config}", "hms_admin=off", f"confdir={tmp_path / 'home'}"]
        words = [word for option in options for word in ("--set", option)]
        with Terminal("mitmproxy", "-s", MESH, *words, cwd=tmp_path) as console:
            console.shows("Flows")
            until(lambda: not is_free(files.out), "the listener", 60)
            assert fetch(files.out, "GET", "/plain/on-the-console").status == 200
            console.shows("on-the-console")
            console.type("\r")
            console.shows("Flow Details")
            console.type("Q")
            assert console.wait() == 0


def test_hms_help_teaches() -> None:
    done = subprocess.run(
        ["hms", "--help"], capture_output=True, encoding="utf-8", timeout=60, check=True
    )
    told = " ".join(done.stdout.split())  # however its lines are broken
    for word in (
        "explain",
        "certs",
        "hms init",
        "hms up",
        "hms check FILE",
        "hms sidecar --config",
    ):
        assert word in told


def test_the_shipped_configuration_is_the_seeds(seed: Path) -> None:
    shipped = yaml.safe_load((ROOT / "configs" / "routes.yaml").read_text())
    assert shipped == yaml.safe_load((seed / "routes.yaml").read_text())
