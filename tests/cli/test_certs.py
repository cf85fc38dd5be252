from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from tests.fakes.cli import hms

if TYPE_CHECKING:
    from pathlib import Path


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
