"""`hms status` where something is wrong with a real sidecar: its certificate ends, or it is gone."""

from __future__ import annotations

import contextlib
import signal
import socket
import sqlite3
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.basics import free_port, until
from tests.integration.control_kit import Control, hms_here
from tests.integration.processes import hms_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

LIFETIME = "6s"
"""Of certificates: due for renewal after three seconds, and near their end after four and a half."""


@pytest.fixture
def app() -> Iterator[int]:
    """The port of an app that listens; nobody calls it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def fleet(control: Control) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = control.admin("GET", "/v1/sidecars").json["sidecars"]
    return found


def problems(control: Control) -> str:
    return "; ".join(problem for row in fleet(control) for problem in row["problems"])


def shorten_leases(data: Path) -> None:
    """Let what is left of a sidecar end a second after the next start; thirty are long in a test."""
    with contextlib.closing(sqlite3.connect(data / "control.db")) as store, store:
        store.execute("UPDATE leases SET ttl = 1")


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_status_tells_of_a_certificate_that_ends_and_of_a_sidecar_that_is_gone(
    tmp_path: Path, app: int
) -> None:
    data = tmp_path / "data"
    with contextlib.ExitStack() as stack:
        control = stack.enter_context(Control(data, "--svid-lifetime", LIFETIME))
        exports, port = control.exports, control.port
        made = control.admin("POST", "/v1/tokens", json={"service": "auth-svc"})
        where = {"HMS_CONTROL": exports["HMS_CONTROL"], "HMS_CA_PIN": exports["HMS_CA_PIN"]}
        sidecar = stack.enter_context(
            hms_sidecar(
                *("--service", "auth-svc", "--state", tmp_path / "state", "--outbound", "off"),
                *("--app", f"127.0.0.1:{app}", "--inbound", f"127.0.0.1:{free_port()}"),
                *("--metadata", "team=blue", "--metadata", "build=7,rack=b"),
                env={**where, "HMS_TOKEN": made.json["token"]},
            )
        )
        until(lambda: [row["state"] for row in fleet(control)] == ["in sync"], "it is in sync")
        until(lambda: control.admin("GET", "/v1/services").json["services"], "it is registered")
        assert "build=7, rack=b, team=blue" in hms_here(control, "services").stdout

        sidecar.signal(signal.SIGSTOP)  # so it renews nothing; its last report is still there
        until(lambda: problems(control), "something is wrong")
        assert "its certificate expires in" in problems(control)
        assert "has not been renewed" in problems(control)
        near = hms_here(control, "status")
        assert near.returncode == 1
        assert ": its certificate expire" in near.stdout

        sidecar.signal(signal.SIGKILL)
        assert control.program.stop() == 0
        shorten_leases(data)
        with Control(data, port=port) as control:
            control.exports = exports
            until(lambda: "is gone" in problems(control), "it is gone")
            assert control.program.stop() == 0
        with Control(data, port=port) as control:
            control.exports = exports
            gone = hms_here(control, "status")
            assert gone.returncode == 1
            assert "is gone: it has not reported, and did not say goodbye" in gone.stdout
            assert "wrong: 1 thing; 1 sidecar, 0 in sync" in gone.stdout
