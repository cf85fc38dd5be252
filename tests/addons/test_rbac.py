from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import jwt
import pytest

from hms_addons.addons.rbac import Rbac
from hms_addons.config.policy_condition import Condition
from hms_addons.config.snapshot import (
    Direction,
    HeaderNames,
    JwtProvider,
    Policy,
    PolicyAction,
    Snapshot,
)
from hms_addons.config.snapshot import Rbac as RbacSpec
from hms_addons.errors import ConfigError, Flag
from hms_addons.exchange import ANONYMOUS, Principal
from hms_addons.identity.caller_headers import MAX_SUBJECT_HEADER
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_listener, make_route, make_snapshot, sent
from tests.fakes.mesh import FakeMesh

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.exchange import Exchange

SECRET = "a-secret-of-more-than-thirty-two-bytes"
ENVIRON = {"HMS_JWT_SECRET": SECRET, "OTHER": SECRET[::-1]}
NOW = 1_800_000_000
PROVIDER = JwtProvider(
    name="hms",
    issuer="https://id.mpsa.mil",
    algorithms=("HS256",),
    hs256_secret_env="HMS_JWT_SECRET",
)
CLAIMS = {"iss": "https://id.mpsa.mil", "sub": "sgt-doe", "roles": ["PROGRAM_MANAGER"]}
FORGED = [("X-Caller-Role", "ADMIN"), ("X-Caller-Subject", "root")]


def token(secret: str = SECRET, **claims: Any) -> str:
    return jwt.encode({"exp": NOW + 3600} | CLAIMS | claims, secret, algorithm="HS256")


def config(*policies: Policy, **changes: Any) -> Snapshot:
    names = {"headers", "service", "trust_domain"} & changes.keys()
    outer = {name: changes.pop(name) for name in names}
    return make_snapshot(
        rbac=RbacSpec(**{"providers": (PROVIDER,), "policies": policies} | changes), **outer
    )


def plugin_for(snapshot: Snapshot, clock: FakeClock | None = None) -> Rbac:
    plugin = Rbac(clock=clock or FakeClock(), environ=ENVIRON)
    plugin.hms_configure(snapshot)
    return plugin


def ask(
    plugin: Rbac,
    authorization: str | None = None,
    *,
    headers: list[tuple[str, str]] | None = None,
    **request: Any,
) -> Exchange:
    """Run a request through the plugin's phases, in order, as far as it gets."""
    given_headers = list(headers or [])
    if authorization is not None:
        given_headers.append(("Authorization", authorization))
    exchange = make_exchange(headers=given_headers, **request)
    for hook in (plugin.hms_identify, plugin.hms_authorize, plugin.hms_prepare):
        hook(exchange)
        if exchange.failure is not None:
            break
    return exchange


def refusal(exchange: Exchange) -> tuple[int, Flag, str]:
    assert exchange.failure is not None, exchange
    return exchange.failure.status, exchange.failure.flag, exchange.failure.detail


def challenge(exchange: Exchange) -> str:
    assert exchange.failure is not None, exchange
    (field,) = exchange.failure.headers
    assert field[0] == b"WWW-Authenticate"
    return field[1].decode("ascii")


# -- tokens -------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["{}", "Bearer {}", "bearer   {}", "BEARER {} "])
def test_a_genuine_token_makes_the_principal_and_its_headers(form: str) -> None:
    exchange = ask(plugin_for(config()), form.format(token()), headers=FORGED)
    assert exchange.failure is None
    assert exchange.principal.subject == "sgt-doe"
    assert exchange.principal.roles == ("PROGRAM_MANAGER",)
    assert exchange.principal.issuer == "https://id.mpsa.mil"
    assert exchange.principal.claims["exp"] == NOW + 3600
    assert sent(exchange, "X-Caller-Role") == ["PROGRAM_MANAGER"]
    assert sent(exchange, "X-Caller-Subject") == ["sgt-doe"]


def test_the_token_itself_goes_on_to_the_next_hop() -> None:
    exchange = ask(plugin_for(config()), f"Bearer {token()}")
    assert sent(exchange, "Authorization") == [f"Bearer {token()}"]


@pytest.mark.parametrize("authorization", [None, "", "Basic c2d0OmRvZQ=="])
def test_without_a_token_the_caller_is_anonymous(authorization: str | None) -> None:
    exchange = ask(plugin_for(config()), authorization, headers=FORGED)
    assert exchange.failure is None
    assert exchange.principal is ANONYMOUS
    assert sent(exchange, "X-Caller-Role") == []
    assert sent(exchange, "X-Caller-Subject") == []


def test_without_providers_tokens_are_the_apps_own_business() -> None:
    exchange = ask(plugin_for(config(providers=())), "Bearer not-even-a-jwt", headers=FORGED)
    assert exchange.failure is None
    assert exchange.principal is ANONYMOUS
    assert sent(exchange, "Authorization") == ["Bearer not-even-a-jwt"]
    assert sent(exchange, "X-Caller-Role") == []


def test_an_expired_token_is_refused_with_the_time() -> None:
    old = token(exp=NOW - 3600)
    exchange = ask(plugin_for(config()), f"Bearer {old}")
    status, flag, detail = refusal(exchange)
    assert (status, flag) == (401, Flag.JWT)
    assert "expired at 2027-01-15T07:00:00" in detail
    assert old not in detail
    assert challenge(exchange).startswith('Bearer error="invalid_token", error_description="the ')
    assert "2027-01-15T07:00:00" in challenge(exchange)


@pytest.mark.parametrize(
    "bad",
    [
        "nonsense",
        "Bearer",
        "Bearer a.b.c",
        f"Bearer {token('another secret of more than 32 bytes')}",
        f"Bearer {token(iss='https://elsewhere.example')}",
        f"Bearer {token(nbf=NOW + 3600)}",
        f"Bearer {jwt.encode(CLAIMS, '', algorithm='none')}",
        f"Bearer {token()}, Bearer {token()}",
    ],
)
def test_a_bad_token_is_refused(bad: str) -> None:
    exchange = ask(plugin_for(config()), bad)
    status, flag, detail = refusal(exchange)
    assert (status, flag) == (401, Flag.JWT)
    assert detail
    assert 'error="invalid_token"' in challenge(exchange)
    assert exchange.principal is ANONYMOUS


def test_a_token_for_another_audience_is_refused_with_403() -> None:
    provider = JwtProvider(
        name="hms",
        audiences=("claims",),
        algorithms=("HS256",),
        hs256_secret_env="HMS_JWT_SECRET",
    )
    plugin = plugin_for(config(providers=(provider,)))
    exchange = ask(plugin, token(aud="payments"))
    status, flag, detail = refusal(exchange)
    assert (status, flag) == (403, Flag.JWT)
    assert "claims" in detail
    assert 'error="insufficient_scope"' in challenge(exchange)
    assert ask(plugin, token(aud=["claims", "payments"])).failure is None


def test_a_challenge_stays_one_quoted_string_whatever_the_token_says() -> None:
    issuer = 'x"\\, error="none"\r\nX-Caller-Role: ADMIN \u2603'
    exchange = ask(plugin_for(config()), token(iss=issuer))
    text = challenge(exchange)
    assert text.count('"') == 4
    assert "\r" not in text
    assert "\n" not in text
    assert "\\" not in text


def test_a_missing_key_refuses_tokens_not_the_configuration(
    caplog: pytest.LogCaptureFixture,
) -> None:
    plugin = Rbac(clock=FakeClock(), environ={})
    with caplog.at_level(logging.WARNING):
        plugin.hms_configure(config())
    assert "HMS_JWT_SECRET is not set" in caplog.text
    assert refusal(ask(plugin, token()))[:2] == (401, Flag.JWT)
    assert ask(plugin).failure is None


# -- headers made of claims ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "claims",
    [
        {"roles": ["USER\r\nX-Caller-Role: ADMIN"]},
        {"roles": ["USER\x00"]},
        {"roles": ["USER,ADMIN"]},
        {"roles": "USER,ADMIN"},
        {"roles": [" ADMIN"]},
        {"roles": ["ADMIN "]},
        {"roles": [""]},
        {"roles": ["АDMIN"]},  # noqa: RUF001 - a Cyrillic A
        {"roles": [7]},
        {"roles": [f"ROLE_{n}" for n in range(1000)]},
        {"sub": "a\nb"},
        {"sub": "a\x7fb"},
        {"sub": "ﾃｽﾄ"},
        {"sub": " doe"},
        {"sub": ""},
        {"sub": "x" * (MAX_SUBJECT_HEADER + 1)},
    ],
)
def test_a_claim_that_no_header_can_carry_makes_the_token_invalid(claims: dict[str, Any]) -> None:
    exchange = ask(plugin_for(config()), token(**claims))
    status, flag, _ = refusal(exchange)
    assert (status, flag) == (401, Flag.JWT)
    assert sent(exchange, "X-Caller-Role") == []


def test_roles_are_sent_most_senior_first() -> None:
    plugin = plugin_for(config(role_order=("COLONEL", "SERGEANT", "PRIVATE")))
    exchange = ask(plugin, token(roles=["CLERK", "PRIVATE", "COOK", "COLONEL"]))
    assert sent(exchange, "X-Caller-Role") == ["COLONEL,PRIVATE,CLERK,COOK"]
    assert exchange.principal.roles == ("COLONEL", "PRIVATE", "CLERK", "COOK")


def test_a_token_without_roles_or_subject_sets_no_header_for_them() -> None:
    plugin = plugin_for(config())
    bare = jwt.encode({"iss": CLAIMS["iss"]}, SECRET, algorithm="HS256")
    exchange = ask(plugin, bare, headers=FORGED)
    assert exchange.failure is None
    assert exchange.principal is not ANONYMOUS
    assert sent(exchange, "X-Caller-Role") == sent(exchange, "X-Caller-Subject") == []
    subject_only = ask(plugin, token(roles=[]))
    assert sent(subject_only, "X-Caller-Subject") == ["sgt-doe"]
    assert sent(subject_only, "X-Caller-Role") == []


def test_the_headers_have_the_configured_names() -> None:
    names = HeaderNames(role=b"X-Role", subject=b"X-User")
    exchange = ask(plugin_for(config(headers=names)), token())
    assert sent(exchange, "X-Role") == ["PROGRAM_MANAGER"]
    assert sent(exchange, "X-User") == ["sgt-doe"]
    assert sent(exchange, "X-Caller-Role") == []


def test_the_role_claim_may_be_deeper() -> None:
    provider = JwtProvider(
        name="keycloak",
        algorithms=("HS256",),
        hs256_secret_env="HMS_JWT_SECRET",
        role_claim="realm_access.roles",
    )
    exchange = ask(
        plugin_for(config(providers=(provider,))), token(realm_access={"roles": ["AUDITOR"]})
    )
    assert exchange.principal.roles == ("AUDITOR",)


def test_a_principal_that_another_plugin_has_made_is_named_to_the_app() -> None:
    plugin = plugin_for(config())
    exchange = make_exchange()
    exchange.principal = Principal(subject="by-api-key", roles=("ROBOT", "CLERK"))
    plugin.hms_prepare(exchange)
    assert sent(exchange, "X-Caller-Role") == ["ROBOT,CLERK"]
    assert sent(exchange, "X-Caller-Subject") == ["by-api-key"]


def test_a_principal_that_cannot_be_named_is_refused() -> None:
    plugin = plugin_for(config())
    exchange = make_exchange()
    exchange.principal = Principal(roles=("A\r\nX-Caller-Subject: root",))
    plugin.hms_prepare(exchange)
    assert refusal(exchange)[:2] == (401, Flag.JWT)
    assert sent(exchange, "X-Caller-Subject") == []


# -- policies -----------------------------------------------------------------------------------

MANAGERS = Policy(
    name="managers", action=PolicyAction.ALLOW, services=("auth-svc",), roles=("PROGRAM_MANAGER",)
)
NO_DELETE = Policy(name="no-delete", action=PolicyAction.DENY, methods=("DELETE",))


def test_a_matching_role_is_allowed() -> None:
    assert ask(plugin_for(config(MANAGERS)), token()).failure is None


def test_a_wrong_role_is_told_what_is_needed() -> None:
    status, flag, detail = refusal(ask(plugin_for(config(MANAGERS)), token(roles=["SOLDIER"])))
    assert (status, flag) == (403, Flag.RBAC)
    assert "policy 'managers' requires the role PROGRAM_MANAGER" in detail
    assert "the caller has SOLDIER" in detail
    assert "token" not in detail


def test_an_anonymous_caller_is_told_that_a_token_is_missing() -> None:
    _, flag, detail = refusal(ask(plugin_for(config(MANAGERS))))
    assert flag is Flag.RBAC
    assert "the request carries no token" in detail


def test_a_deny_policy_wins_and_is_named() -> None:
    plugin = plugin_for(config(MANAGERS, NO_DELETE))
    _, flag, detail = refusal(ask(plugin, token(), method="DELETE"))
    assert flag is Flag.RBAC
    assert "policy 'no-delete' denies DELETE /verify-id" in detail


def test_a_service_without_allow_policies_is_open() -> None:
    plugin = plugin_for(config(MANAGERS))
    assert ask(plugin, route=make_route("payments-svc")).failure is None


def test_callers_are_the_peer_inbound_and_this_service_outbound() -> None:
    claims = "spiffe://mpsa.mil/svc/claims-svc"
    policy = Policy(name="claims-only", action=PolicyAction.ALLOW, callers=(claims,))
    outbound = make_listener(direction=Direction.OUTBOUND)

    def allowed(plugin: Rbac, peer: str | None, **request: Any) -> bool:
        exchange = make_exchange(**request)
        exchange.peer = peer
        plugin.hms_authorize(exchange)
        return exchange.failure is None

    of_claims = plugin_for(config(policy, service="claims-svc", trust_domain="mpsa.mil"))
    of_others = plugin_for(config(policy, service="payments-svc", trust_domain="mpsa.mil"))
    assert allowed(of_others, claims)
    assert not allowed(of_claims, "spiffe://mpsa.mil/svc/payments-svc")
    assert not allowed(of_claims, None)
    assert allowed(of_claims, None, listener=outbound)
    assert not allowed(of_others, None, listener=outbound)
    assert not allowed(plugin_for(config(policy)), None, listener=outbound)


def test_when_looks_at_the_tokens_claims_and_at_the_requests_headers() -> None:
    unit = Condition(claim="org.unit", values=("fraud",))
    plugin = plugin_for(config(Policy(name="unit", action=PolicyAction.ALLOW, when=(unit,))))
    assert ask(plugin, token(org={"unit": "fraud"})).failure is None
    _, flag, detail = refusal(ask(plugin, token(org={"unit": "claims"})))
    assert flag is Flag.RBAC
    assert "requires the claim org.unit to be fraud" in detail
    beta = Condition(header="x-env", values=("beta",))
    plugin = plugin_for(config(Policy(name="beta", action=PolicyAction.DENY, when=(beta,))))
    assert ask(plugin).failure is None
    exchange = make_exchange(headers=[("X-Env", "prod"), ("x-env", "beta")])
    plugin.hms_authorize(exchange)
    assert refusal(exchange)[1] is Flag.RBAC


def test_an_audited_policy_lets_pass_and_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    trial = Policy(name="trial", action=PolicyAction.DENY, methods=("GET",), audit=True)
    plugin = plugin_for(config(trial))
    mesh = FakeMesh()
    for _ in range(5):
        exchange = ask(plugin)
        assert exchange.failure is None
    assert exchange.decision is not None
    assert exchange.decision.audit_policy == "trial"
    lines = [line for line in caplog.messages if "would be denied (mode: audit" in line]
    assert [line.partition(" so far")[0][-1] for line in lines] == ["1", "2", "4"]
    assert "policy 'trial' denies GET /verify-id" in lines[0]
    mesh.add_status("rbac", plugin._status)
    assert mesh.shown("rbac")["would_deny"] == {"trial": 5}


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"policies": (MANAGERS,)}, None),
        ({"policies": (MANAGERS, NO_DELETE)}, None),
        ({"policies": (Policy(name="no", action=PolicyAction.DENY, methods=("GET",)),)}, Flag.RBAC),
        ({"policies": (MANAGERS,), "providers": ()}, Flag.RBAC),
        ({"policies": (), "providers": ()}, None),
        ({"policies": (), "providers": (replace(PROVIDER, issuer="https://other"),)}, Flag.JWT),
        ({"policies": (MANAGERS,), "providers": (replace(PROVIDER, issuer=None),)}, None),
    ],
)
def test_an_open_tunnel_is_judged_by_the_policies_in_force(
    changes: dict[str, Any], flag: Flag | None
) -> None:
    old = config(MANAGERS)
    plugin = plugin_for(old)
    tunnel = ask(plugin, token(), snapshot=old)
    assert tunnel.failure is None
    new = make_snapshot(rbac=RbacSpec(**{"providers": (PROVIDER,)} | changes))
    plugin.hms_configure(new)
    judged = tunnel.under(new, tunnel.listener)
    plugin.hms_recheck(judged)
    assert (judged.failure and judged.failure.flag) == flag


def test_nothing_is_allowed_before_there_is_a_configuration_or_without_a_route() -> None:
    exchange = make_exchange()
    Rbac(clock=FakeClock()).hms_authorize(exchange)
    assert exchange.failure is not None
    routeless = make_exchange()
    routeless.route = None
    plugin_for(config()).hms_authorize(routeless)
    assert routeless.failure is not None


# -- configuration and life ---------------------------------------------------------------------


def test_a_refused_candidate_leaves_nothing_behind() -> None:
    """Another plugin refused it, so every plugin is called with the old one again."""
    old = config(MANAGERS)
    plugin = plugin_for(old)
    verifier = plugin._state and plugin._state.verifier
    other = JwtProvider(name="other", algorithms=("HS256",), hs256_secret_env="OTHER")
    plugin.hms_configure(config(NO_DELETE, providers=(other,)))
    assert ask(plugin, token()).failure is not None
    plugin.hms_configure(old)
    assert ask(plugin, token()).failure is None
    assert refusal(ask(plugin))[1] is Flag.RBAC
    assert plugin._state is not None
    assert plugin._state.verifier is verifier, "verified tokens were forgotten"


def test_a_candidate_decides_nothing_about_requests_that_began_before_it() -> None:
    """It may yet be refused, by another plugin or for want of a port."""
    old, candidate = config(MANAGERS), config(providers=())
    plugin = plugin_for(old)
    plugin.hms_configure(candidate)
    assert refusal(ask(plugin, snapshot=old))[1] is Flag.RBAC
    assert sent(ask(plugin, token(), snapshot=old), "X-Caller-Role") == ["PROGRAM_MANAGER"]
    assert ask(plugin, snapshot=candidate).failure is None
    plugin.hms_configure(old)
    assert refusal(ask(plugin, snapshot=old))[1] is Flag.RBAC


def test_a_new_role_order_counts_for_tokens_seen_before() -> None:
    plugin = plugin_for(config(role_order=("A", "B")))
    both = token(roles=["B", "A"])
    assert sent(ask(plugin, both), "X-Caller-Role") == ["A,B"]
    plugin.hms_configure(config(role_order=("B", "A")))
    assert sent(ask(plugin, both), "X-Caller-Role") == ["B,A"]


def test_a_provider_that_could_not_be_safe_is_refused_by_name() -> None:
    mixed = JwtProvider(
        name="mixed", algorithms=("HS256", "RS256"), hs256_secret_env="HMS_JWT_SECRET"
    )
    plugin = plugin_for(config())
    with pytest.raises(ConfigError, match=r"rbac\.providers: provider 'mixed'"):
        plugin.hms_configure(config(providers=(mixed,)))
    assert ask(plugin, token()).failure is None, "the old configuration is still in use"


def test_a_provider_without_keys_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'keyless' has no keys"):
        plugin_for(config(providers=(JwtProvider(name="keyless"),)))


async def test_keys_that_change_in_their_file_are_used_within_seconds(tmp_path: Path) -> None:
    def write(secret: str, kid: str) -> None:
        key = json.loads(jwt.algorithms.HMACAlgorithm.to_jwk(secret.encode()))
        path.write_text(json.dumps({"keys": [key | {"kid": kid, "alg": "HS256"}]}))

    path = tmp_path / "jwks.json"
    write(SECRET, "one")
    provider = JwtProvider(name="file", algorithms=("HS256",), jwks_file=str(path))
    clock = FakeClock()
    plugin = plugin_for(config(providers=(provider,)), clock)
    plugin.hms_startup(FakeMesh().mesh)
    newer = token(SECRET[::-1])
    await clock.advance(0)
    assert ask(plugin, newer).failure is not None
    write(SECRET[::-1], "two")
    await clock.advance(1.5)
    assert ask(plugin, newer).failure is None
    assert ask(plugin, token()).failure is not None, "the old key is gone, with what it verified"
    await plugin.hms_shutdown()
    assert clock.pending == 0


def test_repr() -> None:
    assert repr(Rbac(clock=FakeClock())) == "<Rbac unconfigured>"
    shown = repr(plugin_for(config(MANAGERS)))
    assert "hms" in shown
    assert "1 policies" in shown


def test_it_takes_no_part_in_what_is_not_configured() -> None:
    plugin = plugin_for(config(MANAGERS))
    assert plugin.hms_idle_hooks(config(MANAGERS)) == []
    assert plugin.hms_idle_hooks(config()) == ["hms_authorize"]
    assert plugin.hms_idle_hooks(config(MANAGERS, providers=())) == ["hms_identify"]
