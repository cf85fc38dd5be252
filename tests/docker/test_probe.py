"""docker/probe.py, run as the images run it: against servers that answer, refuse, and go away."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tests.docker.kit import DOCKER

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Admin(BaseHTTPRequestHandler):
    """Of a sidecar: `answers` by method and path; closed after `left` looks at /live."""

    answers: Mapping[str, int] = {}
    asked: list[str]
    left = 0

    def do_GET(self) -> None:
        asked = f"{self.command} {self.path}"
        self.asked.append(asked)
        self.send_response(self.answers.get(asked, 200))
        self.end_headers()
        self.wfile.write(b"because\n")
        if asked == "GET /live" and self.asked.count(asked) >= self.left > 0:
            assert isinstance(self.server, ThreadingHTTPServer)
            self.server.socket.close()

    do_POST = do_GET  # noqa: N815 - the name http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its base's name
        pass


@contextmanager
def admin(left: int = 0, **answers: int) -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []
    told = {name.replace("_", " /"): status for name, status in answers.items()}
    kind = type("Told", (Admin,), {"answers": told, "asked": asked, "left": left})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"127.0.0.1:{port}", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def probe(*words: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-I", DOCKER / "probe.py", *words],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout == ""
    return done.returncode, done.stderr


@pytest.mark.parametrize("question", ["ready", "live"])
def test_it_says_yes_without_a_word(question: str) -> None:
    with admin() as (address, asked):
        assert probe(question, HMS_ADMIN=address) == (0, "")
    assert asked == [f"GET /{question}"]


def test_it_says_no_and_why() -> None:
    with admin(GET_ready=503) as (address, _):
        assert probe("ready", HMS_ADMIN=address) == (1, "hms-probe: 503: because\n")


def test_where_all_addresses_are_listened_on_it_asks_at_the_loopback_one() -> None:
    with admin() as (address, asked):
        assert probe("ready", HMS_ADMIN=address.replace("127.0.0.1", "0.0.0.0")) == (0, "")
    assert asked


@pytest.mark.parametrize("address", ["127.0.0.1:1", "off", "nonsense:x"])
def test_who_does_not_answer_is_not_ready(address: str) -> None:
    code, told = probe("ready", HMS_ADMIN=address)
    assert code == 1
    assert told.startswith("hms-probe: ")


def test_a_control_plane_that_does_not_speak_tls_is_not_ready() -> None:
    with admin() as (address, asked):
        code, told = probe("control", HMS_LISTEN=address)
    assert code == 1
    assert "SSL" in told
    assert not asked


def test_a_drain_waits_until_the_sidecar_has_ended() -> None:
    with admin(left=2, POST_drain=202) as (address, asked):
        assert probe("drain", "30", HMS_ADMIN=address) == (0, "")
    assert asked == ["POST /drain", "GET /live", "GET /live"]


def test_a_drain_that_takes_too_long_is_a_failure() -> None:
    with admin(POST_drain=202) as (address, _):
        assert probe("drain", "0", HMS_ADMIN=address) == (1, "hms-probe: 504: it still drains\n")


def test_a_drain_that_is_refused_is_a_failure() -> None:
    with admin(POST_drain=403) as (address, _):
        assert probe("drain", HMS_ADMIN=address) == (1, "hms-probe: 403: because\n")


def test_a_sidecar_that_has_gone_already_is_drained() -> None:
    assert probe("drain", HMS_ADMIN="127.0.0.1:1") == (0, "")


@pytest.mark.parametrize("words", [(), ("redy",), ("drain", "soon"), ("ready", "x")])
def test_what_it_does_not_know_it_explains(words: tuple[str, ...]) -> None:
    code, told = probe(*words)
    assert code == 2
    assert "hms-probe ready" in told
