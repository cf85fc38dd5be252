"""Tokens, policies, governance and header names: from what users write to what the hot path reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.snapshot import (
    Governance,
    HeaderNames,
    JwtProvider,
    Policy,
    PolicyAction,
    Rbac,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.config.problems import Path
    from hms_addons.config.schema_policies import GovernanceModel, HeadersModel, RbacModel

_DEFAULT_TTL = 60.0
_STALE_TTLS = 10
"""`max_stale` in TTLs, where it is not written (SEMANTICS, Governance)."""


def compile_rbac(model: RbacModel, file: Callable[[Path, str], str]) -> Rbac:
    """Providers and policies; `file` makes the path of what is written at a place absolute."""
    providers = []
    for index, provider in enumerate(model.providers):
        values = provider.given()
        for key in ("public_key_file", "jwks_file"):
            if key in values:
                values[key] = file(("rbac", "providers", index, key), values[key])
        default = ("HS256",) if provider.hs256_secret_env is not None else ("RS256",)
        values["algorithms"] = tuple(values.get("algorithms", default))
        values["audiences"] = tuple(values.get("audiences", ()))
        providers.append(JwtProvider(**values))
    policies = [
        Policy(
            name=policy.name,
            action=PolicyAction(policy.action),
            **{
                key: tuple(value)
                for key, value in policy.given().items()
                if key not in {"name", "action"}
            },
        )
        for policy in model.policies
    ]
    return Rbac(
        providers=tuple(providers),
        policies=tuple(policies),
        role_order=tuple(model.role_order or ()),
    )


def compile_governance(model: GovernanceModel | None) -> Governance | None:
    """Where the policy version comes from; None: from nowhere."""
    if model is None:
        return None
    values = model.given()
    values["fail_open"] = values.pop("on_failure", "closed") == "open"
    ttl = values.get("ttl", _DEFAULT_TTL)
    values.setdefault("max_stale", _STALE_TTLS * ttl)
    return Governance(**values)


def compile_headers(model: HeadersModel | None) -> HeaderNames:
    """The names of the mesh's own headers."""
    if model is None:
        return HeaderNames()
    return HeaderNames(**{key: value.encode() for key, value in model.given().items()})
