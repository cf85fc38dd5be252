from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from hms_addons.cli import app

if TYPE_CHECKING:
    from pathlib import Path

    from typer.testing import Result

GOOD = """\
listeners:
  - name: out
    port: 15001
    routes:
      - { name: verify, match: { prefix: /verify-id }, action: { cluster: auth-svc } }
clusters:
  - { name: auth-svc, endpoints: [127.0.0.1:9001] }
"""


def hms(*arguments: Any, env: dict[str, str] | None = None) -> Result:
    """Run the command; whatever it raises but its exit is a bug."""
    result = CliRunner().invoke(app, [str(word) for word in arguments], env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    return path


@pytest.fixture
def bad(tmp_path: Path) -> Path:
    path = tmp_path / "bad.yaml"
    path.write_text(GOOD.replace("port: 15001", "port: 150010").replace("prefix", "prefx"))
    return path


# -- check -----------------------------------------------------------------------------------------


def test_check_of_a_good_file(good: Path) -> None:
    result = hms("check", good)
    assert result.exit_code == 0
    assert "ok: 1 listener, 1 route, 1 cluster" in result.stdout


def test_check_of_a_bad_file_tells_every_problem_with_its_place(bad: Path) -> None:
    result = hms("check", bad)
    assert result.exit_code == 1
    assert f"{bad}:3:" in result.stdout
    assert f"{bad}:5:" in result.stdout
    assert "refused: 2 errors" in result.stdout


def test_check_as_json(good: Path, bad: Path) -> None:
    result = hms("check", good, "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["ok"] is True
    result = hms("check", bad, "--json")
    assert result.exit_code == 1
    found = json.loads(result.stdout)
    assert (found["ok"], found["errors"], found["version"]) == (False, 2, None)


def test_check_of_a_file_that_is_not_there(tmp_path: Path) -> None:
    result = hms("check", tmp_path / "none.yaml")
    assert result.exit_code == 1
    assert "none.yaml" in result.stdout


def test_check_takes_files_with_commas_too(good: Path, tmp_path: Path) -> None:
    local = tmp_path / "local.yaml"
    local.write_text("clusters:\n  - { name: other, endpoints: [127.0.0.1:9002] }\n")
    for arguments in ((good, local), (f"{good},{local}",)):
        result = hms("check", *arguments)
        assert "2 clusters" in result.stdout


# -- explain ---------------------------------------------------------------------------------------


def test_explain_names_the_route(good: Path) -> None:
    result = hms("explain", good, "GET http://auth-svc.svc/verify-id")
    assert result.exit_code == 0
    assert "verify" in result.stdout
    assert "auth-svc" in result.stdout


def test_explain_as_json(good: Path) -> None:
    result = hms("explain", good, "GET /verify-id", "-H", "X-Channel: portal", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout)["route"] is not None


def test_explain_where_nothing_matches(good: Path) -> None:
    result = hms("explain", good, "GET /elsewhere", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["route"] is None


def test_explain_takes_headers_as_name_and_value(good: Path) -> None:
    result = hms("explain", good, "GET /verify-id", "-H", "X-Channel=portal")
    assert result.exit_code == 2
    assert "give it as 'Name: value'" in result.stderr


def test_explain_of_a_bad_file(bad: Path) -> None:
    result = hms("explain", bad, "GET /verify-id")
    assert result.exit_code == 1
    assert f"{bad}:3:" in result.stderr
    assert result.stdout == ""


# -- certs -----------------------------------------------------------------------------------------


def test_certs_make_what_a_sidecar_takes(tmp_path: Path, good: Path) -> None:
    ca, out = tmp_path / "ca", tmp_path / "out"
    result = hms("certs", "init", ca, "--trust-domain", "example.org")
    assert result.exit_code == 0
    assert "CA of example.org" in result.stdout
    assert f"hms certs issue SERVICE --ca {ca}" in result.stdout
    result = hms("certs", "issue", "auth-svc", "--ca", ca, "--out", out, "--json")
    assert result.exit_code == 0
    made = json.loads(result.stdout)
    assert made["spiffe_id"] == "spiffe://example.org/svc/auth-svc"
    assert stat.S_IMODE((out / "auth-svc.key").stat().st_mode) == 0o600
    result = hms("certs", "issue", "auth-svc", "--ca", ca, "--out", out)
    assert "valid until" in result.stdout


def test_certs_init_overwrites_nothing(tmp_path: Path) -> None:
    assert hms("certs", "init", tmp_path / "ca").exit_code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "ca").iterdir()}
    result = hms("certs", "init", tmp_path / "ca")
    assert result.exit_code == 1
    assert "never overwritten" in result.stderr
    assert before == {path: path.read_bytes() for path in (tmp_path / "ca").iterdir()}


@pytest.mark.parametrize(
    ("service", "lifetime", "code", "said"),
    [
        ("auth-svc", "soon", 2, "--lifetime soon"),
        ("auth svc", "1h", 1, "auth svc"),
        ("../auth", "1h", 1, "../auth"),
        ("auth-svc", "0", 2, "--lifetime 0"),
    ],
)
def test_certs_issue_refuses(
    tmp_path: Path, service: str, lifetime: str, code: int, said: str
) -> None:
    ca, out = tmp_path / "ca", tmp_path / "out"
    hms("certs", "init", ca)
    result = hms("certs", "issue", service, "--ca", ca, "--out", out, "--lifetime", lifetime)
    assert result.exit_code == code
    assert said in result.stderr
    assert not out.exists()


def test_certs_issue_without_a_ca(tmp_path: Path) -> None:
    result = hms("certs", "issue", "auth-svc", "--ca", tmp_path / "no", "--out", tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("hms: ")


# -- sidecar: what is decided before anything runs -------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--loop", "twisted"], "give uvloop or asyncio"),
        (["--log-level", "loud"], "give debug, info, warning or error"),
        (["--admin", "here"], "give host:port"),
    ],
)
def test_sidecar_usage_errors(good: Path, arguments: list[str], said: str) -> None:
    result = hms("sidecar", "--config", good, *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_sidecar_needs_a_configuration() -> None:
    result = hms("sidecar", env={"HMS_CONFIG": ""})
    assert result.exit_code == 2
    assert "--config" in result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [("HMS_LOOP", "twisted", "--loop"), ("HMS_ADMIN", "x", "host:port")],
)
def test_sidecar_reads_its_variables(good: Path, variable: str, value: str, said: str) -> None:
    result = hms("sidecar", env={"HMS_CONFIG": str(good), variable: value})
    assert result.exit_code == 2
    assert said in result.stderr


# -- help ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("", ["check", "explain", "sidecar", "certs"]),
        ("sidecar", ["--config", "HMS_CONFIG", "--admin", "SIGTERM drains", "Example"]),
        ("check", ["FILE", "--json", "Exit code 0"]),
        ("explain", ["FILE", "REQUEST", "--header", "Exit code 0"]),
        ("certs", ["init", "issue"]),
        ("certs init", ["DIR", "--trust-domain", "never overwritten"]),
        ("certs issue", ["SERVICE", "--ca", "--out", "--lifetime"]),
    ],
)
def test_help_teaches(command: str, taught: list[str]) -> None:
    result = hms(*command.split(), "--help", env={"COLUMNS": "160", "TERMINAL_WIDTH": "160"})
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert [word for word in taught if word not in text] == []


def test_an_unknown_command_is_a_usage_error() -> None:
    assert hms("sidcar").exit_code == 2
