from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from contextlib import asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.bootstrap import build_plugins
from hms_addons.errors import MeshError, NotAllowedError
from hms_addons.sidecar import Sidecar
from hms_addons.sidecar_process import NOT_STARTED, _LateWindow, app_environment, run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIMIT = 40.0
"""Seconds for a process to say what a test waits for; only ever used up by one that is stuck."""


class Process:
    """A real `hms sidecar`, and what it has written to stderr."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.log = ""

    async def says(self, text: str) -> None:
        """Read on until it has said `text`."""
        assert self.process.stderr is not None
        async with asyncio.timeout(LIMIT):
            while text not in self.log:
                line = await self.process.stderr.readline()
                assert line, f"it ended without {text!r}:\n{self.log}"
                self.log += line.decode()

    async def ends(self) -> int:
        """Its exit code."""
        async with asyncio.timeout(LIMIT):
            _, rest = await self.process.communicate()
        self.log += rest.decode()
        assert "Traceback" not in self.log, self.log
        assert self.process.returncode is not None
        return self.process.returncode

    async def out(self) -> str:
        """The next line on stdout, the app's."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT):
            return (await self.process.stdout.readline()).decode().strip()


async def test_a_window_is_not_opened_unless_asked_for() -> None:
    sidecar = Sidecar(build_plugins(None, Random(0)))
    window = _LateWindow(sidecar, allowed=False)
    with pytest.raises(NotAllowedError, match=r"hms sidecar --window.*HMS_WINDOW=1"):
        await window.open()
    assert not await window.close()
    await sidecar.stop()


def write(path: Path, text: str) -> None:
    """At once: a test may block for as long as that takes."""
    path.write_text(text)


@asynccontextmanager
async def sidecar(*arguments: Any, env: dict[str, str] | None = None) -> AsyncIterator[Process]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HMS_")}
    process = await asyncio.create_subprocess_exec(
        *("hms", "sidecar", *map(str, arguments)),
        env={**clean, "HMS_ADMIN": "off", **(env or {})},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield Process(process)
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An outbound listener on a port that is picked."""
    path = tmp_path / "routes.yaml"
    path.write_text("listeners:\n  - { name: out, port: 0, routes: [] }\n")
    return path


async def test_a_bad_file_is_named_with_its_line(config: Path) -> None:
    write(config, "listeners:\n  - { name: out, port: x }\n")
    async with sidecar("--config", config) as process:
        assert await process.ends() == NOT_STARTED
        assert f"hms: {config}:2:" in process.log


async def test_an_occupied_port_is_named_with_a_remedy(config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        write(config, f"listeners:\n  - {{ name: out, port: {port}, routes: [] }}\n")
        async with sidecar("--config", config) as process:
            assert await process.ends() == NOT_STARTED
            assert f"127.0.0.1:{port}: the port is in use" in process.log


async def test_the_zone_of_the_command_line_goes_over_the_files(config: Path) -> None:
    members = ", ".join(f"{{address: 'h:{n}', zone: {zone}}}" for n, zone in ((1, "a"), (2, "b")))
    listeners = "listeners: [{name: out, port: 0, routes: []}]"
    write(config, f"{listeners}\nzone: a\nclusters: [{{name: c, endpoints: [{members}]}}]\n")
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
    admin = ("--admin", f"127.0.0.1:{port}")
    async with sidecar("--config", config, *admin, env={"HMS_ZONE": "b"}) as process:
        await process.says("ready: out")
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /clusters HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert b"own zone b, own zone load percent 100" in answer


@pytest.mark.parametrize("loop", ["uvloop", "asyncio"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_it(config: Path, loop: str, number: signal.Signals) -> None:
    async with sidecar(env={"HMS_CONFIG": str(config), "HMS_LOOP": loop}) as process:
        await process.says("ready: out")
        process.process.send_signal(number)
        assert await process.ends() == 0
        assert f"{number.name}: draining" in process.log
        assert "drained" in process.log


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("raise SystemExit(0)", 0),
        ("raise SystemExit(7)", 7),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", 128 + signal.SIGKILL),
    ],
)
async def test_it_ends_with_the_status_of_its_app(config: Path, code: str, status: int) -> None:
    async with sidecar("-c", config, "--", sys.executable, "-c", code) as process:
        assert await process.ends() == status


async def test_an_app_that_is_not_there(config: Path) -> None:
    async with sidecar("-c", config, "--", "/no/such/program") as process:
        assert await process.ends() == NOT_STARTED
        assert "cannot run '/no/such/program': No such file or directory" in process.log


async def test_the_app_gets_the_environment_without_the_meshs_tokens(config: Path) -> None:
    code = "import os; print(*sorted(name for name in os.environ if name.startswith('HMS_')))"
    tokens = ("HMS_TOKEN", "HMS_ADMIN_TOKEN", "HMS_TOKEN_FILE")
    env = {"HMS_SERVICE": "auth-svc", **dict.fromkeys(tokens, "not-to-be-shown")}
    async with sidecar("-c", config, "--", sys.executable, "-c", code, env=env) as process:
        assert await process.out() == "HMS_ADMIN HMS_SERVICE"
        assert await process.ends() == 0


@pytest.mark.parametrize("name", ["HMS_TOKEN_TTL", "HMS_CONTROL", "TOKEN", "MY_HMS_TOKEN", "PATH"])
def test_what_is_no_token_of_the_mesh_stays(name: str) -> None:
    given = {name: "1", "HMS_TOKEN": "2", "HMS_OTHER_TOKEN": "3"}
    assert app_environment(given) == {name: "1"}


WAITING = """
import signal, sys
def said(number, frame):
    print(signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(3)
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
    signal.signal(number, said)
print("up", flush=True)
while True:
    signal.pause()
"""


async def test_signals_reach_the_app(config: Path) -> None:
    async with sidecar("-c", config, "--", sys.executable, "-c", WAITING) as process:
        assert await process.out() == "up"
        for number in (signal.SIGHUP, signal.SIGUSR1):
            process.process.send_signal(number)
            assert await process.out() == number.name
        process.process.send_signal(signal.SIGTERM)
        assert await process.out() == "SIGTERM"
        assert await process.ends() == 3


async def test_a_changed_file_is_applied_and_a_bad_one_refused(config: Path) -> None:
    async with sidecar("-c", config) as process:
        await process.says("ready: out")
        assert re.search(r"ready: out on 127\.0\.0\.1:[0-9]+$", process.log, re.MULTILINE)
        write(config, "listeners: 7\n")
        await process.says("the new configuration is refused, the old one goes on")
        write(config, "service: claims-svc\nlisteners:\n  - {name: out, port: 0, routes: []}\n")
        process.log = ""
        await process.says("is in force")
        process.process.send_signal(signal.SIGTERM)
        assert await process.ends() == 0


def test_run_gives_the_status(capsys: pytest.CaptureFixture[str]) -> None:
    async def main() -> int:
        await asyncio.sleep(0)
        return 5

    async def failing() -> int:
        raise MeshError("no port")

    assert run(main, loop="asyncio") == 5
    assert run(failing, loop="asyncio") == NOT_STARTED
    assert capsys.readouterr().err == "hms: no port\n"
