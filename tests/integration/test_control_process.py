"""`hms control` as a process: its start, its end, and what survives."""

from __future__ import annotations

import itertools
import signal
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import requests

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.tls_context import client_context
from tests.fakes import pki
from tests.fakes.cli import GOOD
from tests.integration.basics import until
from tests.integration.control_kit import YAML, Control, unverified
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    """One for all tests that leave it running, and do not mind what others have pushed."""
    with Control(tmp_path_factory.mktemp("shared") / "data") as running:
        yield running
        assert "Traceback" not in running.program.output


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Control]:
    """One for a test alone."""
    with Control(tmp_path / "data") as running:
        yield running
        assert "Traceback" not in running.program.output


def refused_start(*words: str | Path) -> str:
    """What `hms control` says when it does not start."""
    program = Program("hms", "control", *words)
    assert program.wait() == 1
    assert "Traceback" not in program.output
    return program.output


# -- starting --------------------------------------------------------------------------------------


def test_it_shows_the_admin_token_at_its_first_start_only(tmp_path: Path) -> None:
    with Control(tmp_path / "data") as first:
        assert first.admin("GET", "/v1/ca").status == 200
        assert first.program.stop() == 0
    with Control(tmp_path / "data", port=first.port) as second:
        assert "HMS_ADMIN_TOKEN" not in second.exports
        assert second.exports["HMS_CA_PIN"] == first.exports["HMS_CA_PIN"]
        second.exports = first.exports
        assert second.admin("GET", "/v1/ca").status == 200
        assert second.program.stop() == 0


def test_a_lost_admin_token_is_replaced(tmp_path: Path) -> None:
    with Control(tmp_path / "data") as first:
        first.program.stop()
    with Control(tmp_path / "data", "--reset-admin-token") as second:
        assert second.token != first.token
        assert second.admin("GET", "/v1/ca").status == 200
        assert second.ask("GET", "/v1/ca", first.bearer).status == 401


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_an_ordinary_client_can_check_its_certificate_by_name(
    control: Control, tmp_path: Path, host: str
) -> None:
    roots = tmp_path / "roots.pem"
    roots.write_bytes(control.bundle().to_pem())
    answer = requests.get(f"https://{host}:{control.port}/healthz", verify=str(roots), timeout=20)
    assert answer.json()["status"] == "ok"


def test_the_store_of_a_running_one_is_not_shared(control: Control) -> None:
    said = refused_start("--data", control.data, "--listen", "127.0.0.1:0")
    assert str(control.data) in said
    assert control.ask("GET", "/readyz").status == 200


def test_a_taken_port_is_said_and_nothing_is_made(control: Control, tmp_path: Path) -> None:
    data = tmp_path / "other"
    said = refused_start("--data", data, "--listen", f"127.0.0.1:{control.port}")
    assert f"cannot listen on 127.0.0.1:{control.port}: the port is in use" in said
    assert not data.exists()


@pytest.mark.parametrize("what", ["a file", "damaged", "foreign"])
def test_data_that_cannot_be_used_is_said_and_left_alone(tmp_path: Path, what: str) -> None:
    data = tmp_path / "data"
    if what == "a file":
        data.write_text("not a folder")
        kept = data
    else:
        data.mkdir()
        kept = data / "control.db"
        if what == "damaged":
            kept.write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)
        else:
            with sqlite3.connect(kept) as connection:
                connection.execute("CREATE TABLE notes (text)")
            connection.close()
    before = kept.read_bytes()
    said = refused_start("--data", data, "--listen", "127.0.0.1:0")
    assert str(data) in said
    assert kept.read_bytes() == before


# -- ending ----------------------------------------------------------------------------------------


def test_sigterm_answers_fifty_long_polls_at_once(own: Control) -> None:
    sidecar = own.join("auth-svc")
    etag = sidecar.ask("GET", "/v1/snapshot?service=auth-svc").header("etag")
    assert etag is not None
    connections = [own.connect(sidecar.context) for _ in range(50)]
    try:
        for connection in connections:
            connection.request(
                "GET", "/v1/snapshot?service=auth-svc&wait=30s", f"If-None-Match: {etag}"
            )
        until(
            lambda: b"hms_control_watchers 50.0" in own.ask("GET", "/metrics").body,
            "50 watchers",
        )
        began = time.monotonic()
        own.program.signal(signal.SIGTERM)
        answers = [connection.response() for connection in connections]
        assert {answer.status for answer in answers} == {304}
        assert all(answer.closes for answer in answers)
        assert own.program.wait() == 0
        assert time.monotonic() - began < 10
    finally:
        for connection in connections:
            connection.close()


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    data, port, token, acknowledged = tmp_path / "data", None, "", 0
    for n in range(3):
        with Control(data, port=port) as control:
            port, token = control.port, control.exports.get("HMS_ADMIN_TOKEN", token)
            control.exports["HMS_ADMIN_TOKEN"] = token
            versions = control.admin("GET", "/v1/config/versions").json["versions"]
            assert len(versions) == acknowledged
            for m in range(3):
                answer = control.push(GOOD.replace("9001", f"9{n}{m}9"))
                acknowledged = answer.json["version"]
            control.program.signal(signal.SIGKILL)
            control.program.wait()
    assert acknowledged == 9


# -- who may come in -------------------------------------------------------------------------------


def test_a_sidecar_joins_by_token_and_renews_by_its_svid(control: Control) -> None:
    sidecar = control.join("auth-svc")
    renewal = {"service": "auth-svc", "csr": _csr()}
    assert sidecar.ask("POST", "/v1/svids", json=renewal).status == 200
    assert sidecar.ask("GET", "/v1/snapshot?service=auth-svc").status == 200
    other = sidecar.ask("GET", "/v1/snapshot?service=claims-svc")
    assert other.status == 403
    assert "is auth-svc" in other.json["detail"]
    assert sidecar.ask("GET", "/v1/config").status == 403
    assert control.ask("GET", "/v1/snapshot?service=auth-svc").status == 401


def _csr() -> str:
    from tests.fakes.plane import csr  # noqa: PLC0415 - a whole plane comes with it

    return csr()


def test_a_certificate_of_another_ca_gets_no_connection(control: Control) -> None:
    stranger = pki.svid("auth-svc", authority=CertificateAuthority.create("mpsa.mil"))
    context = client_context(stranger, control.bundle())
    # TLS 1.3: the client learns of the refusal when it first reads.
    with control.connect(context) as connection, pytest.raises(OSError, match="UNKNOWN_CA"):
        connection.exchange("GET", "/healthz")
    assert control.ask("GET", "/healthz").status == 200


def test_tokens_that_are_none_do_not_come_in_and_are_not_logged(control: Control) -> None:
    for token in ("hmsadm1.guessed-by-somebody", "hms1.0123456789ab.guessed-by-somebody"):
        answer = control.ask("GET", "/v1/config", f"Authorization: Bearer {token}")
        assert answer.status in {401, 403}
    assert "guessed-by-somebody" not in control.program.output
    assert control.program.output.count(control.token) == 1


# -- what it costs ---------------------------------------------------------------------------------


def test_a_hundred_megabytes_are_refused_unread(own: Control) -> None:
    own.push(GOOD)
    before = own.program.rss
    size = 100 * 1024 * 1024
    with own.connect(unverified()) as connection:
        connection.request("PUT", "/v1/config", own.bearer, f"Content-Length: {size}")
        try:
            for _ in range(100):
                connection.send(b"x" * 1024 * 1024)
        except OSError:
            pass  # it has closed: what it answered is there to be read
        assert connection.response().status == 413
    with own.connect(unverified()) as connection:
        connection.request("PUT", "/v1/config", own.bearer, YAML, "Transfer-Encoding: chunked")
        try:
            for _ in range(100):
                connection.send(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
        except OSError:
            pass
        assert connection.response().status == 413
    assert own.program.rss - before < 60 * 1024 * 1024
    assert own.ask("GET", "/readyz").status == 200


def test_a_yaml_bomb_is_refused_cheaply(control: Control) -> None:
    letters = "abcdefghijklmnop"
    bomb = ["a: &a [x,x,x,x,x,x,x,x,x,x]"]
    for last, this in itertools.pairwise(letters):
        bomb.append(f"{this}: &{this} [{','.join([f'*{last}'] * 10)}]")
    began = time.monotonic()
    assert control.push("\n".join(bomb)).status == 422
    assert time.monotonic() - began < 5
    assert control.ask("GET", "/readyz").status == 200


def test_two_operators_cannot_overwrite_each_other_unseen(own: Control) -> None:
    own.push(GOOD)
    texts = [GOOD.replace("9001", f"90{n:02}") for n in range(10, 18)]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda text: own.push(text, 'If-Match: "1"'), texts))
    assert sorted(answer.status for answer in answers) == [200, *[412] * 7]
    assert len(own.admin("GET", "/v1/config/versions").json["versions"]) == 2
