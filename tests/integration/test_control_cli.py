"""What an operator types, against a real control plane."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest

from tests.fakes.cli import BAD, GOOD
from tests.integration.control_kit import Control, hms, hms_here
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Control]:
    with Control(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest.fixture
def routes(tmp_path: Path) -> Path:
    path = tmp_path / "routes.yaml"
    path.write_text(GOOD)
    return path


@pytest.mark.slow
@pytest.mark.timeout(
    400
)  # a dozen processes, each of which takes seconds to start on a busy machine
def test_a_day_of_an_operator(control: Control, routes: Path) -> None:
    pushed = hms(control, "config", "push", routes)
    assert (pushed.returncode, pushed.stdout) == (0, "ok: version 1 is in force, after none\n")
    again = hms_here(control, "config", "push", routes)
    assert again.stdout == "ok: nothing has changed; version 1 says the same already\n"

    routes.write_text(GOOD.replace("9001", "9002"))
    diff = hms(control, "config", "diff", routes)
    assert "-  - { name: auth-svc, endpoints: [127.0.0.1:9001] }" in diff.stdout
    assert hms_here(control, "config", "push", routes).returncode == 0

    routes.write_text(GOOD.replace("9001", "9003"))
    late = hms_here(control, "config", "push", routes, "--made-from", "1")
    assert late.returncode == 1
    assert "somebody else has pushed: version 2 is in force" in late.stdout
    assert "hms config diff 1 2" in late.stdout
    assert "9002" in hms_here(control, "config", "diff", "1", "2").stdout

    routes.write_text(BAD)
    refused = hms_here(control, "config", "push", routes)
    checked = hms(control, "check", routes)
    assert refused.returncode == checked.returncode == 1
    assert refused.stdout == checked.stdout.rstrip("\n") + "; nothing has changed\n"

    assert hms(control, "config", "rollback", "1").returncode == 0
    assert hms(control, "config", "show").stdout == GOOD
    history = hms(control, "config", "history", "--json")
    assert [item["version"] for item in json.loads(history.stdout)["versions"]] == [3, 2, 1]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_an_operator_does_not_overwrite_what_another_has_pushed(
    tmp_path: Path, routes: Path
) -> None:
    with Control(tmp_path / "data") as control:
        homes = {name: {"XDG_STATE_HOME": str(tmp_path / name)} for name in ("anna", "bert")}

        def push(name: str, port: str, *more: str) -> tuple[int, str]:
            routes.write_text(GOOD.replace("9001", port))
            done = hms_here(control, "config", "push", routes, *more, **homes[name])
            return done.returncode, done.stdout

        assert push("anna", "9001") == (0, "ok: version 1 is in force, after none\n")
        code, said = push("bert", "9002")
        assert code == 0
        assert f"replaces one that was not shown here before: {routes}, by admin" in said

        code, said = push("anna", "9003")
        assert code == 1
        assert f"version 2 is in force ({routes}, by admin" in said
        assert "hms config diff 1 2" in said
        assert "9002" in hms_here(control, "config", "show").stdout
        assert "9002" in hms_here(control, "config", "diff", "1", "2", **homes["anna"]).stdout
        assert push("anna", "9003") == (0, "ok: version 3 is in force, after 2\n")

        assert push("bert", "9004", "--force")[0] == 0
        kept = tmp_path / "anna" / "hms" / "seen-versions.json"
        kept.write_text("half a fi")
        code, said = push("anna", "9005")
        assert code == 0
        assert f"hms: warning: {kept}" in said


@pytest.mark.timeout(300)
def test_status_tells_the_truth(control: Control) -> None:
    assert hms_here(control, "status").returncode == 0
    sidecar = control.join("auth-svc")
    snapshot = sidecar.ask("GET", "/v1/snapshot?service=auth-svc").json
    report = {
        "service": "auth-svc",
        "version": snapshot["version"],
        "digest": snapshot["digest"],
        "state": "ack",
        "ready": True,
        "certificate": {"not_after": sidecar.material.svid.not_after, "serial": "ab"},
        "endpoints": {"usable": 1, "total": 1},
    }
    path = "/v1/sidecars/s1/report"
    assert sidecar.ask("POST", path, json=report).status == 200
    well = hms(control, "status")
    assert well.returncode == 0
    assert "in sync" in well.stdout
    nack = {**report, "state": "nack", "reason": "routes.yaml:3:5: no such cluster"}
    assert sidecar.ask("POST", path, json=nack).status == 200
    wrong = hms_here(control, "status")
    assert wrong.returncode == 1
    assert "routes.yaml:3:5: no such cluster" in wrong.stdout
    assert json.loads(hms_here(control, "status", "--json").stdout)["ok"] is False
    assert sidecar.ask("DELETE", "/v1/sidecars/s1?service=auth-svc").status == 204
    assert hms_here(control, "status").returncode == 0


def test_status_can_be_watched(control: Control) -> None:
    with Program("hms", "status", "--watch", env=control.exports) as watching:
        watching.wait_for("sidecars, 0 in sync")
        watching.wait_for("sidecars, 0 in sync", after=len(watching.output))
        watching.signal(signal.SIGINT)
        assert watching.wait() == 0


def test_services_are_listed(control: Control) -> None:
    sidecar = control.join("auth-svc")
    path = "/v1/services/auth-svc/instances/i1"
    instance = {"address": "127.0.0.1:15006", "version": "v2", "ttl": 60}
    assert sidecar.ask("PUT", path, json=instance).status == 200
    assert "127.0.0.1:15006" in hms(control, "services").stdout
    assert sidecar.ask("DELETE", path).status == 204
    assert "no instance is registered" in hms_here(control, "services").stdout


def test_a_wrong_pin_or_token_is_said_and_the_token_is_not(control: Control) -> None:
    other = hms_here(control, "status", HMS_CA_PIN="sha256:" + "ab" * 32)
    assert other.returncode == 1
    assert "is not the control plane that was pinned" in other.stdout
    guessed = hms(control, "status", HMS_ADMIN_TOKEN="hmsadm1.guessed")
    assert guessed.returncode == 1
    assert "this token is not the admin token" in guessed.stdout
    assert "guessed" not in guessed.stdout
