from __future__ import annotations

import re

from hms_addons.config.policy_condition import Condition
from hms_addons.config.snapshot import Governance, JwtProvider, Policy, PolicyAction
from tests.fakes.configs import snapshot_of


def test_policies_governance_and_headers() -> None:
    snapshot = snapshot_of(
        """\
        service: s
        governance: {url: "http://gov", ttl: 2s, on_failure: open}
        headers: {role: X-Rolle}
        rbac:
          providers:
            - {name: h, hs256_secret_env: S}
            - {name: k, public_key_file: /k, algorithms: [ES256], audiences: a, issuer: i,
               leeway: 1s, role_claim: a.b}
          policies:
            - {name: p, action: ALLOW, services: [s], methods: [GET], paths: [/a*], roles: [r],
               subjects: [u], callers: ["spiffe://d/*"]}
          role_order: [r, q]
        """
    )
    assert snapshot.governance == Governance(
        url="http://gov", ttl=2.0, max_stale=20.0, fail_open=True
    )
    assert snapshot.headers.all == (
        b"X-Policy-Version", b"X-Rolle", b"X-Caller-Subject", b"X-Caller-Service",
    )  # fmt: skip
    assert snapshot.rbac.providers == (
        JwtProvider(name="h", algorithms=("HS256",), hs256_secret_env="S"),
        JwtProvider(
            name="k", issuer="i", audiences=("a",), algorithms=("ES256",), public_key_file="/k",
            role_claim="a.b", leeway=1.0,
        ),
    )  # fmt: skip
    assert snapshot.rbac.policies == (
        Policy(
            name="p", action=PolicyAction.ALLOW, services=("s",), methods=("GET",), paths=("/a*",),
            roles=("r",), subjects=("u",), callers=("spiffe://d/*",),
        ),
    )  # fmt: skip
    assert snapshot.rbac.role_order == ("r", "q")


def test_conditions_and_modes() -> None:
    snapshot = snapshot_of(
        """\
        service: s
        rbac:
          mode: audit
          providers: [{name: h, hs256_secret_env: S}]
          policies:
            - {name: a, action: DENY, when: [{claim: org.unit, values: x, not_values: [y, z]}]}
            - {name: b, action: DENY, mode: enforce, when: [{header: X-Env, regex: b+}]}
        """
    )
    assert snapshot.rbac.policies == (
        Policy(
            name="a", action=PolicyAction.DENY, audit=True,
            when=(Condition(claim="org.unit", values=("x",), not_values=("y", "z")),),
        ),
        Policy(
            name="b", action=PolicyAction.DENY,
            when=(Condition(header="x-env", regex=re.compile("b+")),),
        ),
    )  # fmt: skip


def test_headers_of_governance_are_the_meshs_own() -> None:
    snapshot = snapshot_of(
        """\
        service: s
        headers: {policy_version: X-Version}
        governance: {url: "http://gov", headers: [X-Zone, x-version]}
        """
    )
    assert snapshot.headers.governance == (b"X-Zone",)
    assert b"X-Zone" in snapshot.headers.all
    assert snapshot.governance == Governance(url="http://gov", ttl=60.0, max_stale=600.0)
