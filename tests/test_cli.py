"""The `hms` command: what it prints and what it exits with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from hms_addons.cli import app

ROOT = Path(__file__).parent.parent
ROUTES = str(ROOT / "configs" / "routes.yaml")


def hms(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments, env={"COLUMNS": "200"})


@pytest.mark.parametrize(
    ("command", "teaches"),
    [
        ((), "hms check"),
        (("sidecar",), "Run a sidecar"),
        (("check",), "every problem at once"),
        (("explain",), "why not others"),
        (("certs",), "certificate authority"),
        (("certs", "init"), "never overwritten"),
        (("certs", "issue"), "Run it again to renew"),
    ],
)
def test_help_teaches(command: tuple[str, ...], teaches: str) -> None:
    result = hms(*command, "--help")
    assert result.exit_code == 0
    assert teaches in " ".join(result.output.split())


def test_check_accepts_the_seeds_file() -> None:
    result = hms("check", ROUTES)
    assert result.exit_code == 0
    assert "mesh_certs" in result.output  # nobody provides it here: a warning


def test_check_names_the_place_and_the_remedy(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("clusters:\n  - name: a\n    conect_timeout: 1s\n")
    result = hms("check", str(bad))
    assert result.exit_code == 1
    assert f"{bad}:3:5" in result.output
    assert "did you mean connect_timeout" in result.output
    found = json.loads(hms("check", "--json", str(bad)).output)
    assert found["ok"] is False


def test_check_of_a_file_that_is_not_there() -> None:
    result = hms("check", "/nowhere/at/all.yaml")
    assert result.exit_code == 1
    assert "/nowhere/at/all.yaml" in result.output


def test_explain_says_which_route_and_exits_by_it() -> None:
    result = hms("explain", ROUTES, "GET http://auth-svc.svc/verify-id")
    assert result.exit_code == 0
    assert "auth-svc" in result.output
    found = json.loads(hms("explain", "--json", ROUTES, "GET /verify-id").output)
    assert found["route"]
    assert hms("explain", ROUTES, "GET /elsewhere").exit_code == 1
    assert hms("explain", ROUTES, "GET /x", "--header", "no colon").exit_code == 2


def test_certs(tmp_path: Path) -> None:
    ca, out = tmp_path / "ca", tmp_path / "out"
    made = hms("certs", "init", str(ca))
    assert made.exit_code == 0
    assert "hms certs issue" in made.output
    again = hms("certs", "init", str(ca))
    assert again.exit_code == 1
    assert "never overwritten" in again.output
    issued = hms(
        "certs",
        "issue",
        "auth-svc",
        "--ca",
        str(ca),
        "--out",
        str(out),
        "--lifetime",
        "2h",
        "--json",
    )
    assert issued.exit_code == 0
    assert json.loads(issued.output)["spiffe_id"] == "spiffe://mpsa.mil/svc/auth-svc"
    assert {path.name for path in out.iterdir()} == {"auth-svc.pem", "auth-svc.key", "bundle.pem"}
    issue = ("certs", "issue", "--ca", str(ca), "--out", str(out))
    assert hms(*issue, "not a service").exit_code == 1
    assert hms(*issue, "auth-svc", "--lifetime", "soon").exit_code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        ("--loop", "twisted"),
        ("--log-level", "loud"),
        ("--admin", "nonsense"),
    ],
)
def test_sidecar_usage_errors(arguments: tuple[str, ...]) -> None:
    result = hms("sidecar", "--config", ROUTES, *arguments)
    assert result.exit_code == 2
    assert arguments[0].strip("-") in result.output or "admin address" in result.output


def test_sidecar_needs_a_configuration() -> None:
    assert hms("sidecar").exit_code == 2
