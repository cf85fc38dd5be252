from __future__ import annotations

import pytest

from hms_addons.config.load import load

PROVIDER = "providers: [{name: p, hs256_secret_env: S}]"


def told(policies: str, extra: str = "", head: str = "") -> list[str]:
    text = f"{head}\nrbac: {{{extra}{PROVIDER}, policies: [{policies}]}}"
    loaded = load([("a.yaml", text.encode())])
    lines = [f"{p.severity}: {p.path}: {p.message}" for p in loaded.problems]
    return [line for line in lines if "policies" in line]


def test_an_allow_and_a_deny_of_the_same_are_refused() -> None:
    same = "services: [a], roles: [R], when: [{claim: c, values: [x]}]"
    (found,) = [
        line
        for line in told(
            f"{{name: in, action: ALLOW, {same}}}, {{name: out, action: DENY, {same}}}"
        )
        if line.startswith("error")
    ]
    assert found == (
        "error: rbac.policies[0].name: 'in' allows exactly what the DENY 'out' refuses, so it never "
        "allows anything; take one of them away"
    )


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("roles: [A], paths: [/a/b]", "paths: ['/a*']"),
        ("roles: [A]", "roles: [A, B]"),
        ("callers: ['spiffe://d/svc/a']", "callers: ['spiffe://d/svc/*']"),
        ("methods: [GET], roles: [A]", "methods: [GET]"),
        ("roles: [A], when: [{claim: c, values: [x]}]", "when: [{claim: c, values: [x]}]"),
    ],
)
def test_an_allow_that_a_deny_leaves_nothing_of_is_told(allow: str, deny: str) -> None:
    found = told(f"{{name: in, action: ALLOW, {allow}}}, {{name: out, action: DENY, {deny}}}")
    assert (
        "warning: rbac.policies[0].name: never allows anything: the DENY 'out' refuses all of it"
        in found
    )


@pytest.mark.parametrize(
    ("allow", "deny"),
    [
        ("roles: [A, C]", "roles: [A, B]"),
        ("roles: [A], paths: ['/a*']", "paths: [/a]"),
        ("roles: [A]", "roles: [A], when: [{claim: c, values: [x]}]"),
        ("roles: [A]", "roles: [A], mode: audit"),
        ("roles: [A]", "roles: [A], methods: [DELETE]"),
    ],
)
def test_an_allow_that_something_is_left_of_is_not(allow: str, deny: str) -> None:
    found = told(f"{{name: in, action: ALLOW, {allow}}}, {{name: out, action: DENY, {deny}}}")
    assert not [line for line in found if "never allows" in line]


def test_a_lock_down_is_no_error() -> None:
    found = told("{name: in, action: ALLOW, roles: [A]}, {name: stop, action: DENY}")
    assert all(line.startswith("warning") for line in found)


@pytest.mark.parametrize(
    "when",
    [
        "{claim: c, present: false}, {claim: c, values: [x]}",
        "{claim: c, regex: 'x'}, {claim: c, present: false}",
        "{header: X-A, values: [x]}, {header: x-a, not_values: [x, y]}",
    ],
)
def test_conditions_that_exclude_each_other_are_refused(when: str) -> None:
    (found,) = told(f"{{name: p, action: DENY, when: [{when}]}}")
    assert found.startswith("error: rbac.policies[0].when[1]: this and an earlier condition on")
    assert found.endswith("so 'p' matches nothing")


def test_conditions_that_can_both_hold_are_not() -> None:
    when = "{claim: c, values: [x, y]}, {claim: c, not_values: [x]}, {claim: d, present: false}"
    assert not told(f"{{name: p, action: DENY, when: [{when}]}}")


@pytest.mark.parametrize("name", ["X-Caller-Role", "x_caller_role", "X-Rolle"])
def test_a_condition_on_the_meshs_own_header_is_refused(name: str) -> None:
    head = "headers: {subject: X-Rolle}"
    (found,) = told(
        f"{{name: p, action: DENY, when: [{{header: {name}, values: [a]}}]}}", head=head
    )
    assert found.startswith("error: rbac.policies[0].when[0].header: ")
    assert "removed from whatever comes in" in found


def test_a_policy_that_is_only_audited_is_told_of() -> None:
    message = "warning: rbac.policies[0].name: mode: audit: 'p' refuses nothing"
    policy = "{name: p, action: DENY, methods: [GET], mode: audit}"
    assert told(policy)[0].startswith(message)
    inherited = told("{name: p, action: DENY, methods: [GET]}", "mode: audit, ")
    assert inherited[0].startswith(message)
    own = told("{name: p, action: DENY, methods: [GET], mode: enforce}", "mode: audit, ")
    assert not own


def test_a_caller_of_another_trust_domain_is_told_of() -> None:
    callers = "['spiffe://e/*', 'spiffe://d/svc/a', '*', 'spiffe://*']"
    found = told(f"{{name: p, action: DENY, callers: {callers}}}", head="trust_domain: d")
    (line,) = [line for line in found if "trust domain" in line]
    assert "policies[0].callers[0]: no caller can have this: the trust domain here is d" in line


def test_a_claim_needs_a_token_too() -> None:
    text = "rbac: {policies: [{name: p, action: DENY, when: [{claim: c, values: [x]}]}]}"
    assert "no providers to verify one" in str(load([("a.yaml", text.encode())]).problems)


def test_governance_cannot_set_who_calls() -> None:
    text = b"governance: {url: 'http://g', headers: [X-A, x-caller-role]}"
    found = [str(p) for p in load([("a.yaml", text)]).problems if p.severity == "error"]
    (line,) = found
    assert line == (
        "a.yaml:1:46: governance.headers[1]: x-caller-role tells of the caller, and is not "
        "governance's to set"
    )


def test_a_policy_applies_where_a_listener_is_for_its_service() -> None:
    policy = "{name: p, action: DENY, methods: [GET], services: [a]}"
    door = "listeners: [{name: d, services: [%s], port: 1, direction: inbound, app: 'h:1'}]"
    for service, known in (("a", True), ("b", False)):
        found = "\n".join(told(policy, head=door % service))
        assert ("leads to the service a" in found) is not known
