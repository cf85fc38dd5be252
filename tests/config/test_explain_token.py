from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
from tests.fakes import pki
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from pathlib import Path

MESH = """\
listeners: [{{name: out, port: 1, routes: [{{action: {{cluster: pay}}}}]}}]
clusters: [{{name: pay, endpoints: ["h:1"]}}]
rbac:
  providers: [{provider}]
  policies:
    - {{name: managers, action: ALLOW, roles: [MANAGER, CLERK]}}
    - {{name: no-clerks, action: DENY, roles: [CLERK]}}
"""
SECRET = "{name: p, hs256_secret_env: NOT_HERE}"


def asked(provider: str, authorization: str | None) -> tuple[dict[str, Any] | None, str]:
    headers = {} if authorization is None else {"Authorization": authorization}
    found = explain(snapshot_of(MESH.format(provider=provider)), "GET /", headers)
    return found["policies"]["token"], to_text(found)


def test_keys_are_not_fetched_for_an_explanation() -> None:
    found, text = asked("{name: p, jwks_uri: 'https://id.example/keys'}", "Bearer x.y.z")
    assert found is not None
    assert found["looked_at"] is False
    assert "the provider p fetches its keys (jwks_uri)" in text
    assert "if it is genuine, with MANAGER: allowed" in text


def test_a_token_that_cannot_be_verified_here_is_not_looked_at() -> None:
    found, text = asked(SECRET, "Bearer x.y.z")
    assert found == {
        "looked_at": False,
        "detail": "the token was not looked at: the provider p verifies with a secret",
        "roles": {"MANAGER": True, "CLERK": False},
        "other": False,
    }
    assert "the token was not looked at" in text
    assert "if it is genuine, with MANAGER: allowed" in text
    assert "if it is genuine, with CLERK, any other role: refused with 403" in text


@pytest.mark.parametrize("authorization", [None, "Basic dXNlcjpwYXNz"])
def test_no_token_is_none(authorization: str | None) -> None:
    found, text = asked(SECRET, authorization)
    assert found is None
    assert "without a token: refused" in text


def test_without_providers_a_token_is_the_apps() -> None:
    found, text = asked("", "Bearer x")
    assert found is not None
    assert not found["looked_at"]
    assert "no rbac.providers" in text


def test_keys_that_are_not_here_are_named(tmp_path: Path) -> None:
    found, text = asked(f"{{name: p, public_key_file: {tmp_path}/none.pem}}", "Bearer x")
    assert found is not None
    assert not found["looked_at"]
    assert "none.pem" in text


@pytest.mark.parametrize(
    ("roles", "verdict"),
    [
        (["MANAGER"], "allowed: policy 'managers'"),
        (["CLERK"], "refused with 403: policy 'no-clerks'"),
    ],
)
def test_with_public_keys_the_token_says_its_role(
    tmp_path: Path, roles: list[str], verdict: str
) -> None:
    key = pki.jwt_key()
    (tmp_path / "key.pem").write_bytes(key.public_pem)
    token = key.sign({"sub": "ann", "roles": roles, "exp": time.time() + 60})
    found, text = asked(f"{{name: p, public_key_file: {tmp_path}/key.pem}}", f"Bearer {token}")
    assert found is not None
    assert (found["looked_at"], found["roles"], found["subject"]) == (True, roles, "ann")
    assert f"with this token (roles {roles[0]}, subject ann): {verdict}" in text
    assert token not in text


def test_a_token_that_a_sidecar_would_refuse(tmp_path: Path) -> None:
    key = pki.jwt_key()
    (tmp_path / "key.pem").write_bytes(key.public_pem)
    token = key.sign({"roles": ["MANAGER"], "exp": time.time() - 3600})
    found, text = asked(f"{{name: p, public_key_file: {tmp_path}/key.pem}}", f"Bearer {token}")
    assert found is not None
    assert (found["allowed"], found["status"]) == (False, 401)
    assert "with this token: refused with 401: " in text
    assert "expired" in text
