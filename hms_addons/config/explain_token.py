"""What `hms explain` says of the token in a request's `Authorization` field.

It is verified as a sidecar would, if no provider needs a secret for that, or the network: whoever asks
need not have them. Otherwise it is not looked at, and the answer says what each role that a policy names could do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.jwt_providers import make_provider
from hms_addons.identity.jwt_claims import JwtError
from hms_addons.identity.jwt_verifier import (
    JwtProviderError,
    JwtVerifier,
    token_from_header,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.clock import Clock
    from hms_addons.config.policy import PolicyIndex, PolicyRequest
    from hms_addons.config.snapshot import Snapshot

_OTHER = "\0"
"""A role that no policy can name."""


def explain_token(
    snapshot: Snapshot,
    policies: PolicyIndex,
    request: PolicyRequest,
    field: bytes | None,
    clock: Clock = SYSTEM_CLOCK,
) -> dict[str, Any] | None:
    """What comes of the token that a request carries, as JSON-ready types; None if it has none.

    Args:
        snapshot: the configuration.
        policies: its policies.
        request: the request, as without a token.
        field: the value of `Authorization`.
        clock: the time that tokens are compared with.

    Returns:
        `looked_at`, and why (not) as `detail`. If it was, `allowed`, `status`, `roles`, `subject`
        and `reason`; otherwise `roles`: by each role that a policy names, and `other` for all
        others, whether it would be allowed.
    """
    token = None if field is None else token_from_header(field.decode("latin-1"))
    if token is None:
        return None
    if not snapshot.rbac.providers:
        return {
            "looked_at": False,
            "detail": "the token is not looked at: there are no rbac.providers, so it is the app's",
            "roles": {},
        }
    secret = [item.name for item in snapshot.rbac.providers if item.hs256_secret_env is not None]
    if secret:
        why = f"the token was not looked at: the provider {secret[0]} verifies with a secret"
        return _not_looked_at(snapshot, policies, request, why)
    remote = [item.name for item in snapshot.rbac.providers if item.jwks_uri is not None]
    if remote:
        why = f"the token was not looked at: the provider {remote[0]} fetches its keys (jwks_uri)"
        return _not_looked_at(snapshot, policies, request, why)
    try:
        providers = [make_provider(spec, {}) for spec in snapshot.rbac.providers]
        verifier = JwtVerifier(providers, clock, lambda verified: verified)
    except JwtProviderError as error:
        return _not_looked_at(snapshot, policies, request, f"the token was not looked at: {error}")
    if verifier.problems:
        why = f"the token was not looked at: {verifier.problems[0]}"
        return _not_looked_at(snapshot, policies, request, why)
    found: dict[str, Any] = {"looked_at": True, "roles": [], "subject": None, "status": None}
    try:
        verified = verifier.verify(token)
    except JwtError as error:
        detail = "the token is refused before any policy is asked"
        refused = {"allowed": False, "reason": error.detail, "status": error.status}
        return found | refused | {"detail": detail}
    decision = policies.decide(
        request._replace(roles=verified.roles, subject=verified.subject, claims=verified.claims)
    )
    return found | {
        "detail": "the token is genuine",
        "roles": list(verified.roles),
        "subject": verified.subject,
        "allowed": decision.allowed,
        "reason": decision.reason,
        "would_deny": decision.would_deny,
        "status": None if decision.allowed else 403,
    }


def _not_looked_at(
    snapshot: Snapshot, policies: PolicyIndex, request: PolicyRequest, why: str
) -> dict[str, Any]:
    named = dict.fromkeys(role for policy in snapshot.rbac.policies for role in policy.roles)
    roles = {
        role: policies.decide(request._replace(roles=(role,))).allowed for role in (*named, _OTHER)
    }
    return {"looked_at": False, "detail": why, "roles": {r: roles[r] for r in named}} | {
        "other": roles[_OTHER]
    }


def token_lines(found: Mapping[str, Any]) -> list[str]:
    """The same for a person."""
    if found["looked_at"]:
        verdict = "allowed" if found["allowed"] else f"refused with {found['status']}"
        who = f" (roles {', '.join(found['roles']) or 'none'}, subject {found['subject']})"
        who = "" if found["detail"] != "the token is genuine" else who
        lines = [f"with this token{who}: {verdict}: {found['reason']}"]
        if found.get("would_deny"):
            lines.append(f"would deny (audit): {found['would_deny']}")
        return lines
    lines = [found["detail"]]
    if "other" not in found:
        return lines
    for allowed, words in ((True, "allowed"), (False, "refused with 403")):
        roles = [role for role, may in found["roles"].items() if may is allowed]
        if found["other"] is allowed:
            roles.append("any other role" if found["roles"] else "any role")
        if roles:
            lines.append(f"if it is genuine, with {', '.join(roles)}: {words}")
    return lines
