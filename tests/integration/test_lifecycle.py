"""Start, reload, drain and end: `hms sidecar` and `mitmdump -s hms_addons/mesh.py` as processes."""

from __future__ import annotations

import signal
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from tests.integration.basics import MESH, accepts, free_port, until
from tests.integration.clients import Connection, fetch
from tests.integration.processes import Program, hms_sidecar, mitmdump_mesh
from tests.integration.servers import Visit, silent, when

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.integration.clients import Response
    from tests.integration.conftest import Backends, ConfigFile
    from tests.integration.servers import Upstream

RELOAD = 15.0
"""Seconds for a changed file to be noticed."""


def plain(port: int, cluster: int, prefix: str = "/", more: str = "") -> str:
    return f"""
        listeners:
          - name: out
            port: {port}
            routes: [{{match: {{prefix: {prefix}}}, action: {{cluster: app}}}}]
        {more}
        clusters:
          - {{name: app, endpoints: ["127.0.0.1:{cluster}"]}}
        """


def hms(path: Path) -> Program:
    return hms_sidecar("--config", path)


@pytest.fixture(params=[hms, mitmdump_mesh], ids=["hms", "mitmdump"])
def start(request: pytest.FixtureRequest) -> Callable[[Path], Program]:
    """Starts a sidecar with one configuration file."""
    program: Callable[[Path], Program] = request.param
    return program


@pytest.fixture(autouse=True)
def _forget(app: Upstream) -> None:
    app.requests.clear()


# -- draining --------------------------------------------------------------------------------------


def test_sigterm_finishes_what_is_in_flight_and_exits_0(
    start: Callable[[Path], Program], config: ConfigFile, app: Upstream
) -> None:
    port = free_port()
    gates = [threading.Event(), threading.Event()]

    async def half(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + bytes(1_000_000))
        await when(gates[1], _rest)(visit)

    async def _rest(visit: Visit) -> None:
        await visit.send(bytes(1_000_000))

    app.on("/slow", when(gates[0]))
    app.on("/half", half)
    with (
        start(config.write(plain(port, app.port))) as program,
        Three(port) as (waiting, streaming, idle),
    ):
        waiting.request("GET", "/slow")
        streaming.request("GET", "/half")
        assert streaming.head().status == 200
        assert idle.exchange("GET", "/x").status == 200
        app.wait(lambda: len(app.requests) == 3, "the requests")
        program.signal(signal.SIGTERM)
        assert idle.ended, "idle connections are closed"
        until(lambda: not accepts(port), "no new connections")
        assert not program.ended
        gates[0].set()
        answer = waiting.response()
        assert answer.status == 200
        assert answer.closes
        assert waiting.ended
        assert not program.ended, "there is still a request in flight"
        gates[1].set()
        assert len(streaming.read_exactly(2_000_000)) == 2_000_000
        assert streaming.ended
        assert program.wait(10) == 0
        assert "Traceback" not in program.output


class Three:
    """Three connections to a port, once something listens there."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._open: list[Connection] = []

    def __enter__(self) -> tuple[Connection, Connection, Connection]:
        until(lambda: accepts(self._port), f"something on {self._port}")
        self._open = [Connection(self._port) for _ in range(3)]
        first, second, third = self._open
        return first, second, third

    def __exit__(self, *_: object) -> None:
        for connection in self._open:
            connection.close()


def test_a_second_sigterm_ends_at_once(config: ConfigFile, app: Upstream) -> None:
    port = free_port()
    path = app.on("/never", silent)
    with hms(config.write(plain(port, app.port))) as program:
        program.wait_listening(port)
        with Connection(port) as connection:
            connection.request("GET", path)
            app.wait(lambda: app.got(path), "the request")
            program.signal(signal.SIGTERM)
            program.wait_for("draining")
            program.signal(signal.SIGTERM)
            assert program.wait(5) == 0
            assert connection.ended


@pytest.mark.parametrize("program_name", ["hms", "mitmdump"])
def test_quit_ends_at_once_and_cuts_off_what_is_in_flight(
    program_name: str, config: ConfigFile, app: Upstream
) -> None:
    port, admin = free_port(), free_port()
    path = app.on("/never", silent)
    file, address = config.write(plain(port, app.port)), f"127.0.0.1:{admin}"
    with (
        hms_sidecar("--config", file, "--admin", address)
        if program_name == "hms"
        else Program(
            *("mitmdump", "-s", MESH, "--set", f"hms_config={file}"),
            *("--set", f"hms_admin={address}", "--set", f"confdir={file.parent}"),
        )
    ) as program:
        program.wait_listening(port, admin)
        with Connection(port) as connection:
            connection.request("GET", path)
            app.wait(lambda: app.got(path), "the request")
            answer = fetch(admin, "POST", "/quit", host=f"127.0.0.1:{admin}")
            assert answer.status == 202
            assert program.wait(10) == 0
            assert connection.ended
    assert "Traceback" not in program.output


def test_sigint_drains_too(
    start: Callable[[Path], Program], config: ConfigFile, app: Upstream
) -> None:
    port = free_port()
    with start(config.write(plain(port, app.port))) as program:
        program.wait_listening(port)
        assert fetch(port, "GET", "/x").status == 200
        program.signal(signal.SIGINT)
        assert program.wait(10) == 0
        assert "Traceback" not in program.output


def test_the_admin_port_drains(config: ConfigFile, app: Upstream) -> None:
    port, admin = free_port(), free_port()
    gate = threading.Event()
    path = app.on("/slow", when(gate))
    config.write(plain(port, app.port))

    def ask(method: str, what: str) -> Response:
        return fetch(admin, method, what, host=f"127.0.0.1:{admin}")

    with hms_sidecar("--config", config.path, "--admin", f"127.0.0.1:{admin}") as program:
        program.wait_listening(port, admin)
        assert ask("GET", "/ready").status == 200
        assert ask("GET", "/live").status == 200
        with Connection(port) as connection:
            connection.request("GET", path)
            app.wait(lambda: app.got(path), "the request")
            assert ask("POST", "/drain").status == 202
            answer = ask("GET", "/ready")
            assert answer.status == 503
            assert b"drain" in answer.body
            assert ask("GET", "/live").status == 200
            assert not accepts(port)
            gate.set()
            assert connection.response().status == 200
        assert program.wait(10) == 0


# -- the app beside it -----------------------------------------------------------------------------

CALLS = """
import sys, urllib.request
with urllib.request.urlopen("http://127.0.0.1:{port}/from-app") as answer:
    print("the app got", answer.status, flush=True)
sys.exit(7)
"""
WAITS = """
import signal, sys
def say(number, frame):
    print("the app got", signal.Signals(number).name, flush=True)
    if number == signal.SIGTERM:
        sys.exit(5)
for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
    signal.signal(number, say)
print("the app runs", flush=True)
while True:
    signal.pause()
"""


def beside(config: Path, code: str) -> Program:
    return hms_sidecar("--config", config, "--", sys.executable, "-c", code)


def test_the_app_starts_when_the_sidecar_is_ready_and_its_status_is_passed_on(
    config: ConfigFile, app: Upstream
) -> None:
    port = free_port()
    config.write(plain(port, app.port))
    with beside(config.path, CALLS.format(port=port)) as program:
        assert program.wait() == 7
    assert "the app got 200" in program.output
    assert len(app.got("/from-app")) == 1


def test_signals_are_passed_to_the_app(config: ConfigFile, app: Upstream) -> None:
    port = free_port()
    config.write(plain(port, app.port))
    with beside(config.path, WAITS) as program:
        program.wait_for("the app runs")
        for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            program.signal(number)
            program.wait_for(f"the app got {number.name}")
        assert fetch(port, "GET", "/x").status == 200
        program.signal(signal.SIGTERM)
        assert program.wait(10) == 5
    said = program.output
    assert said.index("draining") < said.index("the app got SIGTERM"), "drained before it is told"


def test_the_app_lives_until_what_needs_it_is_finished(config: ConfigFile, app: Upstream) -> None:
    port = free_port()
    gate = threading.Event()
    path = app.on("/slow", when(gate))
    config.write(plain(port, app.port))
    with beside(config.path, WAITS) as program, Three(port) as (connection, _, _):
        program.wait_for("the app runs")
        connection.request("GET", path)
        app.wait(lambda: app.got(path), "the request")
        program.signal(signal.SIGTERM)
        program.wait_for("draining")
        until(lambda: not accepts(port), "no new connections")
        assert "SIGTERM: the app" not in program.output
        assert "the app got SIGTERM" not in program.output
        gate.set()
        assert connection.response().status == 200
        assert program.wait(10) == 5


def test_an_app_that_is_killed(config: ConfigFile, app: Upstream) -> None:
    config.write(plain(free_port(), app.port))
    code = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    with beside(config.path, code) as program:
        assert program.wait() == 128 + signal.SIGKILL


def test_an_app_that_cannot_be_run(config: ConfigFile, app: Upstream) -> None:
    config.write(plain(free_port(), app.port))
    with hms_sidecar("--config", config.path, "--", "no-such-command") as program:
        assert program.wait() == 1
    assert "no-such-command" in program.output
    assert "Traceback" not in program.output


# -- starts that fail ------------------------------------------------------------------------------


def test_an_occupied_port_is_named(
    start: Callable[[Path], Program], config: ConfigFile, app: Upstream
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with start(config.write(plain(port, app.port))) as program:
            assert program.wait() == 1
    assert f"listener 'out' cannot listen on 127.0.0.1:{port}: the port is in use" in program.output
    assert "Traceback" not in program.output


def test_a_bad_configuration_is_refused_with_its_places(
    start: Callable[[Path], Program], config: ConfigFile, app: Upstream
) -> None:
    text = plain(free_port(), app.port).replace("prefix", "prefx")
    with start(config.write(text)) as program:
        assert program.wait() == 1
    assert f"{config.path}:5:" in program.output
    assert "did you mean prefix?" in program.output
    assert "Traceback" not in program.output


def test_a_file_that_is_not_there(start: Callable[[Path], Program], tmp_path: Path) -> None:
    with start(tmp_path / "nowhere.yaml") as program:
        assert program.wait() == 1
    assert str(tmp_path / "nowhere.yaml") in program.output
    assert "Traceback" not in program.output


# -- reloads ---------------------------------------------------------------------------------------


def test_a_good_change_is_applied_and_a_bad_one_refused(
    start: Callable[[Path], Program], config: ConfigFile, app: Upstream
) -> None:
    port, other = free_port(), free_port()
    with start(config.write(plain(port, app.port))) as program:
        program.wait_listening(port)
        with Connection(port) as kept:
            assert kept.exchange("GET", "/a/x").status == 200
            assert kept.exchange("GET", "/b/x").status == 200

            config.write(plain(port, app.port, "/b"))
            until(lambda: fetch(port, "GET", "/a/x").status == 404, "the new route", RELOAD)
            assert kept.exchange("GET", "/a/x").status == 404
            assert kept.exchange("GET", "/b/x").status == 200

            seen = len(program.output)
            config.write(plain(port, app.port, "/c").replace("cluster: app", "cluster: nope"))
            program.wait_for("nope", RELOAD, after=seen)
            assert "refused" in program.output[seen:]
            assert f"{config.path}:" in program.output[seen:]
            assert kept.exchange("GET", "/b/x").status == 200

            with socket.socket() as taken:
                taken.bind(("127.0.0.1", other))
                taken.listen()
                seen = len(program.output)
                config.write(plain(other, app.port, "/c"))
                program.wait_for(f"{other}: the port is in use", RELOAD, after=seen)
                assert kept.exchange("GET", "/b/x").status == 200
                assert fetch(port, "GET", "/b/x").status == 200

            config.write(plain(other, app.port, "/c"))
            until(lambda: accepts(other), "the new port", RELOAD)
            assert fetch(other, "GET", "/c/x").status == 200
            assert kept.ended
            until(lambda: not accepts(port), "the end of the old port")
        assert program.stop() == 0
        assert "Traceback" not in program.output


def test_no_request_fails_while_the_configuration_changes(
    config: ConfigFile, backends: Backends
) -> None:
    port = free_port()
    stop = threading.Event()
    failures: list[object] = []
    served = [0]

    def traffic() -> None:
        while not stop.is_set():
            try:
                with Connection(port) as connection:
                    for _ in range(10):
                        answer = connection.exchange("GET", "/x")
                        if answer.status != 200:
                            failures.append(answer)
                        served[0] += 1
            except (OSError, EOFError) as error:
                failures.append(error)

    with hms(config.write(plain(port, backends.app.port))) as program:
        program.wait_listening(port)
        threads = [threading.Thread(target=traffic) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for n in range(3):
                target = (backends.second, backends.app)[n % 2].port
                seen = len(program.output)
                config.write(plain(port, target))
                program.wait_for("is in force", RELOAD, after=seen)
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        assert failures == []
        assert served[0] > 100
