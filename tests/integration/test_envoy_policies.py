"""Beside Envoy's JWT and RBAC filters, put together as Istio does: who may do what."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.integration.envoy_kit import Pair, pair
from tests.integration.servers import Upstream

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.envoy

ISSUER = "https://issuer.mpsa.mil"
KEY, OTHER = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())

POLICIES = [
    {"name": "no-admin", "action": "DENY", "paths": ["/admin", "/admin/*"]},
    {"name": "no-trace", "action": "DENY", "methods": ["PATCH", "OPTIONS"], "paths": ["/claims*"]},
    {"name": "not-him", "action": "DENY", "subjects": ["mallory"]},
    {"name": "no-trainee-pays", "action": "DENY", "roles": ["TRAINEE"], "paths": ["/payments"]},
    {"name": "public", "action": "ALLOW", "paths": ["/public*", "/health"]},
    {"name": "soldiers", "action": "ALLOW", "roles": ["SOLDIER"], "methods": ["GET", "POST"],
     "paths": ["/claims", "/claims/*"]},
    {"name": "clerks", "action": "ALLOW", "roles": ["CLERK", "OFFICER"],
     "paths": ["/claims*", "/payments"]},
    {"name": "auditor", "action": "ALLOW", "subjects": ["audit"], "methods": ["GET", "HEAD"]},
]  # fmt: skip


def token(key: Any = KEY, **claims: Any) -> str:
    """A Bearer header; a claim of None is left out."""
    now = int(time.time())
    whole = {"iss": ISSUER, "aud": "mesh", "sub": "s-1", "exp": now + 600, **claims}
    payload = {name: value for name, value in whole.items() if value is not None}
    return f"Bearer {jwt.encode(payload, key, 'ES256', {'kid': 'k1'})}"


def tokens() -> dict[str, str | None]:
    now = int(time.time())
    unsigned = jwt.encode({"iss": ISSUER, "aud": "mesh"}, "", "none")
    whole = token(roles=["SOLDIER"])
    return {
        "nobody": None,
        "no-roles": token(),
        "soldier": token(roles=["SOLDIER"]),
        "clerk": token(roles=["CLERK"]),
        "both": token(roles=["SOLDIER", "CLERK"]),
        "trainee": token(roles=["CLERK", "TRAINEE"]),
        "audit": token(sub="audit"),
        "mallory": token(sub="mallory", roles=["OFFICER"]),
        "several-audiences": token(roles=["CLERK"], aud=["other", "mesh"]),
        "expired": token(roles=["CLERK"], exp=now - 600),
        "just-expired": token(roles=["CLERK"], exp=now - 20),
        "not-yet": token(roles=["CLERK"], nbf=now + 600),
        "other-audience": token(roles=["CLERK"], aud="other"),
        "no-audience": token(roles=["CLERK"], aud=None),
        "other-issuer": token(roles=["CLERK"], iss="https://elsewhere.example"),
        "other-key": token(OTHER, roles=["CLERK"]),
        "unsigned": f"Bearer {unsigned}",
        "cut": whole[:-8],
        "nonsense": "Bearer not.a.token",
    }


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("envoy")
    key = json.loads(jwt.get_algorithm_by_name("ES256").to_jwk(KEY.public_key()))
    file = folder / "jwks.json"
    file.write_text(json.dumps({"keys": [key | {"kid": "k1", "alg": "ES256", "use": "sig"}]}))
    provider = {
        "name": "issuer",
        "issuer": ISSUER,
        "audiences": ["mesh"],
        "algorithms": ["ES256"],
        "jwks_file": str(file),
    }
    with Upstream() as upstream:
        listener = {
            "name": "l",
            "port": 0,
            "routes": [{"match": {}, "action": {"cluster": "here", "timeout": "5s"}}],
        }
        config = {
            "listeners": [listener],
            "clusters": [{"name": "here", "endpoints": [f"127.0.0.1:{upstream.port}"]}],
            "rbac": {"providers": [provider], "policies": POLICIES},
        }
        yield from pair(folder, config, upstream)


ASKED = [
    ("GET", "/public/news"),
    ("GET", "/publicity"),
    ("GET", "/health"),
    ("GET", "/healthy"),
    ("GET", "/claims"),
    ("POST", "/claims/7"),
    ("DELETE", "/claims/7"),
    ("PATCH", "/claims/7"),
    ("GET", "/claimsx"),
    ("POST", "/payments"),
    ("GET", "/payments/7"),
    ("GET", "/admin"),
    ("GET", "/admin/x"),
    ("GET", "/public/../admin"),
    ("GET", "/public?next=/admin"),
    ("HEAD", "/other"),
]


@pytest.mark.parametrize("who", tokens())
def test_both_decide_alike(proxies: Pair, who: str) -> None:
    given = tokens()[who]
    fields = () if given is None else (f"Authorization: {given}",)
    found: list[dict[str, tuple[int, int]]] = []
    for port in proxies.ports:
        decided = {}
        for method, target in ASKED:
            seen = proxies.ask(port, method, target, *fields)
            decided[f"{method} {target}"] = (seen.status, len(seen.took))
        found.append(decided)
    assert found[0] == found[1]


def test_the_table_is_not_all_the_same(proxies: Pair) -> None:
    for port in proxies.ports:
        told = tokens()
        statuses = [
            proxies.ask(port, "GET", "/claims/7", *fields).status
            for fields in (
                (),
                *(
                    (f"Authorization: {told[who]}",)
                    for who in ("soldier", "mallory", "expired", "other-audience")
                ),
            )
        ]
        assert statuses == [403, 200, 403, 401, 403]


@pytest.mark.parametrize("target", ["/admin/", "/admin;x=1", "/;/admin"])
def test_what_servers_take_for_a_denied_path_is_denied_by_us_alone(
    proxies: Pair, target: str
) -> None:
    """*Ours*: servlet containers drop `;…`, many frameworks a slash at the end."""
    envoy, ours = proxies.both("GET", target, f"Authorization: {token(sub='audit')}")
    allowed = 200 if not target.startswith("/admin/") else 403
    assert (envoy.status, ours.status) == (allowed, 403)


def test_a_bare_token_is_taken_by_us_alone(proxies: Pair) -> None:
    """SEMANTICS, JWT and roles: as the seed's caller sends it."""
    bare = token(roles=["SOLDIER"]).removeprefix("Bearer ")
    envoy, ours = proxies.both("GET", "/claims", f"Authorization: {bare}")
    assert (envoy.status, ours.status) == (403, 200)
