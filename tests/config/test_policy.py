from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.policy import (
    PolicyIndex,
    PolicyRequest,
    caller_of,
    decide,
    own_caller,
)
from hms_addons.config.policy_condition import Condition
from hms_addons.config.snapshot import Direction, Policy, PolicyAction
from tests.fakes.exchange import make_listener, make_snapshot

CLAIMS = "spiffe://mpsa.mil/svc/claims-svc"
REQUEST = PolicyRequest("auth-svc", "GET", "/verify-id", ("CLERK",), "doe", CLAIMS)


def allow(name: str = "allow", **conditions: Any) -> Policy:
    return Policy(name=name, action=PolicyAction.ALLOW, **conditions)


def deny(name: str = "deny", **conditions: Any) -> Policy:
    return Policy(name=name, action=PolicyAction.DENY, **conditions)


# -- one condition ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"services": ("other", "auth-svc")},
        {"methods": ("POST", "GET")},
        {"methods": ("get",)},
        {"paths": ("/verify-id",)},
        {"paths": ("/verify-*",)},
        {"paths": ("/other", "/*")},
        {"paths": ("*",)},
        {"roles": ("MANAGER", "CLERK")},
        {"subjects": ("doe",)},
        {"callers": (CLAIMS,)},
        {"callers": ("spiffe://mpsa.mil/svc/*",)},
        {"callers": ("*",)},
        {"methods": ("GET",), "roles": ("CLERK",), "paths": ("/v*",), "subjects": ("doe",)},
    ],
)
def test_conditions_that_hold(conditions: dict[str, Any]) -> None:
    assert decide([allow(**conditions)], REQUEST).allowed
    assert not decide([deny(**conditions)], REQUEST).allowed
    assert PolicyIndex([allow(**conditions)]).trace(REQUEST)[0].unmet == ()


@pytest.mark.parametrize(
    ("conditions", "reason"),
    [
        ({"methods": ("POST",)}, "requires the method POST; this is GET"),
        ({"methods": ("POST", "PUT")}, "requires one of the methods POST, PUT; this is GET"),
        ({"paths": ("/verify",)}, "requires the path /verify"),
        ({"paths": ("/verify-id/*",)}, "requires the path /verify-id/*"),
        ({"roles": ("clerk",)}, "requires the role clerk; the caller has CLERK"),
        ({"subjects": ("smith",)}, "requires another subject; the caller is doe"),
        (
            {"callers": ("spiffe://mpsa.mil/svc/claims",)},
            f"requires the caller spiffe://mpsa.mil/svc/claims; the caller is {CLAIMS}",
        ),
        ({"callers": ("spiffe://other.mil/*",)}, "requires the caller spiffe://other.mil/*"),
        (
            {"roles": ("CLERK",), "methods": ("PUT",), "paths": ("/x",)},
            "requires the method PUT; this is GET, and it requires the path /x",
        ),
    ],
)
def test_conditions_that_do_not_hold(conditions: dict[str, Any], reason: str) -> None:
    decision = decide([allow("the-name", **conditions)], REQUEST)
    assert not decision.allowed
    assert decision.policy is None
    assert "GET /verify-id of service 'auth-svc': policy 'the-name'" in decision.reason
    assert reason in decision.reason
    assert decide([deny(**conditions)], REQUEST).allowed


def test_who_is_not_known_matches_no_condition_on_who() -> None:
    nobody = PolicyRequest("auth-svc", "GET", "/verify-id")
    asked: list[dict[str, Any]] = [
        {"roles": ("CLERK",)},
        {"subjects": ("doe",)},
        {"callers": ("*",)},
    ]
    for conditions in asked:
        assert not decide([allow(**conditions)], nobody).allowed
    reason = decide([allow(roles=("CLERK", "MANAGER"))], nobody).reason
    assert "requires one of the roles CLERK, MANAGER; the caller has none" in reason
    assert "not known over mutual TLS" in decide([allow(callers=("*",))], nobody).reason
    assert "the caller is no subject" in decide([allow(subjects=("doe",))], nobody).reason


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/admin", "/admin/"),
        ("/admin", "/admin;jsessionid=1"),
        ("/admin/*", "/admin;x/users"),
        ("/admin", "/admin;x/"),
        ("/admin", "/;/admin"),
        ("/admin", "/;x/admin"),
        ("/x/secret", "/x/;a/secret"),
        ("/ro*", "/;a/role"),
        ("/admin/*", "/;a/;b/admin/x"),
        ("/admin/", "/admin;x/"),
        ("/", "/"),
    ],
)
def test_a_deny_also_covers_spellings_that_servers_take_for_the_same(
    pattern: str, path: str
) -> None:
    request = REQUEST._replace(path=path)
    assert not decide([deny(paths=(pattern,))], request).allowed


def test_an_allow_covers_no_other_spelling() -> None:
    for path in ("/admin/", "/admin;x"):
        assert not decide([allow(paths=("/admin",))], REQUEST._replace(path=path)).allowed


def test_methods_are_denied_in_any_case() -> None:
    """Werkzeug and others take `delete` for `DELETE`."""
    assert not decide([deny(methods=("DELETE",))], REQUEST._replace(method="delete")).allowed


# -- when -----------------------------------------------------------------------------------------


def test_when_every_condition_must_hold() -> None:
    unit = Condition(claim="org.unit", values=("fraud", "claims-*"))
    env = Condition(header="x-env", values=("prod",))
    request = REQUEST._replace(
        claims={"org": {"unit": "claims-east"}}, fields=((b"X-Env", b"prod"),)
    )
    assert decide([allow(when=(unit, env))], request).allowed
    assert not decide([deny(when=(unit, env))], request).allowed
    decision = decide([allow(when=(unit, env))], request._replace(fields=((b"X-Env", b"beta"),)))
    assert not decision.allowed
    assert "requires the header x-env to be prod" in decision.reason
    assert "beta" not in decision.reason, "what was sent is not told"


def test_when_without_a_token_no_value_is_met() -> None:
    unit = Condition(claim="org.unit", values=("*",))
    assert not decide([allow(when=(unit,))], REQUEST).allowed
    assert decide([deny(when=(unit,))], REQUEST).allowed
    strong = Condition(claim="mfa", not_values=("true",))
    assert not decide([deny(when=(strong,))], REQUEST).allowed, "a DENY of all but some"


def test_fields_are_asked_for_only_where_a_policy_looks_at_them() -> None:
    claim, field = Condition(claim="a", present=True), Condition(header="x-a", present=True)
    assert not PolicyIndex([allow(), deny(when=(claim,))]).asks_fields
    assert PolicyIndex([allow(), deny(when=(field,))]).asks_fields


# -- audit ----------------------------------------------------------------------------------------


def test_an_audited_deny_lets_pass_and_tells() -> None:
    decision = decide([deny("trial", methods=("GET",), audit=True)], REQUEST)
    assert decision.allowed
    assert decision.would_deny == "policy 'trial' denies GET /verify-id of service 'auth-svc'"
    assert decision.audit_policy == "trial"


def test_an_audited_allow_tells_whom_it_would_shut_out() -> None:
    policies = [allow("trial", roles=("MANAGER",), audit=True)]
    decision = decide(policies, REQUEST)
    assert decision.allowed
    assert decision.audit_policy is None
    assert "policy 'trial' requires the role MANAGER" in (decision.would_deny or "")
    assert decide(policies, REQUEST._replace(roles=("MANAGER",))).would_deny is None


def test_an_audited_allow_opens_nothing_that_is_closed() -> None:
    policies = [allow("real", roles=("MANAGER",)), allow("trial", audit=True)]
    decision = decide(policies, REQUEST)
    assert not decision.allowed
    assert decision.would_deny is None


# -- the order ----------------------------------------------------------------------------------


def test_no_policies_allow() -> None:
    decision = decide([], REQUEST)
    assert decision.allowed
    assert decision.policy is None


def test_a_deny_wins_wherever_it_stands() -> None:
    for policies in ([allow(), deny("no")], [deny("no"), allow()]):
        decision = decide(policies, REQUEST)
        assert not decision.allowed
        assert decision.policy == "no"
        assert decision.reason == "policy 'no' denies GET /verify-id of service 'auth-svc'"


def test_deny_policies_alone_leave_the_rest_open() -> None:
    assert decide([deny(methods=("DELETE",))], REQUEST).allowed


def test_an_allow_for_another_service_does_not_close_this_one() -> None:
    policies = [allow(services=("payments-svc",), roles=("MANAGER",))]
    assert decide(policies, REQUEST).allowed
    assert not decide(policies, REQUEST._replace(service="payments-svc")).allowed


def test_an_allow_for_every_service_closes_them_all() -> None:
    policies = [allow(roles=("MANAGER",)), allow(services=("auth-svc",), roles=("CLERK",))]
    assert decide(policies, REQUEST).allowed
    assert not decide(policies, REQUEST._replace(service="payments-svc")).allowed


def test_the_policy_that_allowed_is_named() -> None:
    decision = decide([allow("first", roles=("X",)), allow("second")], REQUEST)
    assert (decision.policy, decision.reason) == ("second", "policy 'second' allows it")


def test_the_reason_names_the_nearest_of_several() -> None:
    policies = [
        allow("far", roles=("X",), methods=("PUT",)),
        allow("near", roles=("MANAGER",)),
    ]
    reason = decide(policies, REQUEST).reason
    assert "policy 'near' requires the role MANAGER; the caller has CLERK" in reason
    assert "the nearest of 2 policies" in reason


def test_a_reason_stays_short_whatever_the_token_and_the_path_hold() -> None:
    request = REQUEST._replace(roles=tuple("R" * 999 for _ in range(99)), path="/" + "p" * 8000)
    reason = decide([allow(roles=tuple(f"ROLE_{n}" for n in range(50)))], request).reason
    assert "and 45 more" in reason
    assert len(reason) < 2000


def test_trace_shows_policies_of_other_services_too() -> None:
    policies = [deny("a", services=("x",)), allow("b", services=("y", "z")), allow("c")]
    traces = PolicyIndex(policies).trace(REQUEST)
    assert [(trace.policy.name, trace.unmet) for trace in traces] == [
        ("a", ("is for the service x",)),
        ("b", ("is for one of the services y, z",)),
        ("c", ()),
    ]


# -- properties ---------------------------------------------------------------------------------

SERVICES = ("auth-svc", "payments-svc")
METHODS = ("GET", "POST")
PATHS = ("/a", "/a/b", "/c")
ROLES = ("R1", "R2")
CALLERS = ("spiffe://t/svc/x", "spiffe://t/svc/y", "spiffe://u/svc/x")


def some(*items: str) -> st.SearchStrategy[tuple[str, ...]]:
    return st.lists(st.sampled_from(items), max_size=2, unique=True).map(tuple)


policies_ = st.builds(
    Policy,
    name=st.just("p"),
    action=st.sampled_from(PolicyAction),
    services=some(*SERVICES),
    methods=some(*METHODS),
    paths=some(*PATHS, "/a*", "/*"),
    roles=some(*ROLES),
    subjects=some("s1", "s2"),
    callers=some(*CALLERS, "spiffe://t/*"),
    when=st.lists(
        st.sampled_from(
            [
                Condition(claim="c", values=("x", "y*")),
                Condition(claim="c", not_values=("x",)),
                Condition(header="x-h", values=("1",)),
            ]
        ),
        max_size=2,
    ).map(tuple),
    audit=st.booleans(),
)
requests_ = st.builds(
    PolicyRequest,
    service=st.sampled_from(SERVICES),
    method=st.sampled_from(METHODS),
    path=st.sampled_from(PATHS),
    roles=some(*ROLES),
    subject=st.sampled_from([None, "s1", "s2"]),
    caller=st.sampled_from([None, *CALLERS]),
    claims=st.sampled_from([{}, {"c": "x"}, {"c": "yes"}, {"c": ["z", "x"]}]),
    fields=st.sampled_from([(), ((b"X-H", b"1"),), ((b"X-H", b"2"),)]),
)


def holds(patterns: tuple[str, ...], value: str | None) -> bool:
    return not patterns or (
        value is not None
        and any(value.startswith(p[:-1]) if p.endswith("*") else p == value for p in patterns)
    )


def matches(policy: Policy, request: PolicyRequest) -> bool:
    """SEMANTICS' words, plainly."""
    return (
        holds(policy.services, request.service)
        and holds(policy.methods, request.method)
        and holds(policy.paths, request.path)
        and (not policy.roles or bool(set(policy.roles) & set(request.roles)))
        and holds(policy.subjects, request.subject)
        and holds(policy.callers, request.caller)
        and all(met(condition, request) for condition in policy.when)
    )


def met(condition: Condition, request: PolicyRequest) -> bool:
    if condition.header is not None:
        return request.fields == ((b"X-H", b"1"),)
    said = request.claims.get("c", [])
    said = said if isinstance(said, list) else [said]
    if condition.not_values:
        return "x" not in said
    return any(value == "x" or value.startswith("y") for value in said)


def allowed(policies: list[Policy], request: PolicyRequest) -> bool:
    """CUSTOM is the plugins' own; then DENY, then whether any ALLOW applies, then ALLOW."""
    denying = [p for p in policies if p.action is PolicyAction.DENY]
    applying = [
        p for p in policies if p.action is PolicyAction.ALLOW and holds(p.services, request.service)
    ]
    return not any(matches(p, request) for p in denying) and (
        not applying or any(matches(p, request) for p in applying)
    )


@given(st.lists(policies_, max_size=6), requests_)
def test_decides_as_the_plain_words_say(policies: list[Policy], request: PolicyRequest) -> None:
    decision = decide(policies, request)
    assert decision.allowed is allowed([p for p in policies if not p.audit], request)
    would = decision.allowed and not allowed(policies, request)
    assert (decision.would_deny is not None) is would


@given(st.lists(policies_, max_size=6), requests_)
def test_trace_agrees_with_the_decision(policies: list[Policy], request: PolicyRequest) -> None:
    for policy, unmet in PolicyIndex(policies).trace(request):
        assert (not unmet) is matches(policy, request)


@given(st.lists(policies_, max_size=5), policies_, requests_)
def test_another_deny_never_opens(
    policies: list[Policy], extra: Policy, request: PolicyRequest
) -> None:
    before = decide(policies, request).allowed
    extra = deny(services=extra.services, methods=extra.methods, roles=extra.roles)
    assert before or not decide([*policies, extra], request).allowed


@given(st.lists(policies_, max_size=5), policies_, requests_)
def test_another_allow_never_closes_what_an_allow_has_opened(
    policies: list[Policy], extra: Policy, request: PolicyRequest
) -> None:
    before = decide(policies, request)
    extra = allow(services=extra.services, methods=extra.methods, roles=extra.roles)
    if before.allowed and before.policy is not None:
        assert decide([*policies, extra], request).allowed


@given(st.lists(policies_, max_size=5), requests_, st.sampled_from(ROLES))
def test_more_roles_close_only_by_a_deny(
    policies: list[Policy], request: PolicyRequest, role: str
) -> None:
    before = decide(policies, request)
    after = decide(policies, request._replace(roles=(*request.roles, role)))
    if before.allowed and not after.allowed:
        assert after.policy is not None
    if not before.allowed and before.policy is not None:
        assert not after.allowed


@given(st.lists(policies_, max_size=5), requests_, st.randoms())
def test_the_order_of_policies_decides_nothing(
    policies: list[Policy], request: PolicyRequest, random: Any
) -> None:
    shuffled = list(policies)
    random.shuffle(shuffled)
    assert decide(policies, request).allowed is decide(shuffled, request).allowed


# -- who calls ----------------------------------------------------------------------------------


def test_the_caller_is_the_peer_inbound_and_this_service_outbound() -> None:
    snapshot = make_snapshot(service="claims-svc", trust_domain="mpsa.mil")
    outbound = make_listener(direction=Direction.OUTBOUND)
    assert caller_of(snapshot, make_listener(), "spiffe://mpsa.mil/svc/x") == (
        "spiffe://mpsa.mil/svc/x"
    )
    assert caller_of(snapshot, make_listener(), None) is None
    assert caller_of(snapshot, outbound, None) == CLAIMS


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"service": "claims-svc"},
        {"trust_domain": "mpsa.mil"},
        {"service": "a/b", "trust_domain": "mpsa.mil"},
    ],
)
def test_a_service_that_is_not_known_is_no_caller(settings: dict[str, str]) -> None:
    assert own_caller(make_snapshot(**settings)) is None


def test_repr_and_len() -> None:
    index = PolicyIndex([allow(services=("a", "b")), deny()])
    assert repr(index) == "<PolicyIndex 2 policies, 2 named services>"
    assert len(index) == 2
    assert repr(index._rules[1]) == "<_Rule DENY deny>"
