from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.fakes.cli import hms

if TYPE_CHECKING:
    from pathlib import Path


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


def test_check_says_what_a_sidecar_here_would_say(good: Path, tmp_path: Path) -> None:
    """Exit code 0 means usable: certificates, plugins and balancers are looked for."""
    local = tmp_path / "local.yaml"
    secrets = "secrets: {s: {certificate: c.pem, key: k.pem, bundle: b.pem}}\n"
    local.write_text(
        f"{secrets}plugins: {{stemp: {{}}}}\nclusters: [{{name: x, load_balancer: y}}]\n"
    )
    result = hms("check", good, local)
    assert result.exit_code == 1
    for path in ("secrets.s.certificate", "secrets.s.key", "secrets.s.bundle", "plugins.stemp"):
        assert f": {path}: " in result.stdout
    assert "load_balancer: 'y' is not known" in result.stdout
    local.write_text(f"{secrets}plugins: {{stemp: {{}}}}\n")
    assert hms("check", good, local, "--no-files").exit_code == 1
    result = hms("check", good, local, "--no-files", "--disable", "stemp")
    assert result.exit_code == 0
    assert "c.pem" not in result.stdout


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


def test_explain_sees_a_header_that_is_there_twice(good: Path) -> None:
    words = [word for host in ("a", "b") for word in ("-H", f"Host: {host}")]
    result = hms("explain", good, "GET /verify-id", *words)
    assert result.exit_code == 1
    assert "answer    400 DPE" in result.stdout
    assert "Host was sent more than once" in result.stdout


def test_explain_of_a_bad_file(bad: Path) -> None:
    result = hms("explain", bad, "GET /verify-id")
    assert result.exit_code == 1
    assert f"{bad}:3:" in result.stderr
    assert result.stdout == ""
