"""Tokens, policies, governance and header names: from what users write to what the hot path reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.policy_condition import Condition
from hms_addons.config.safe_regex import compile_regex
from hms_addons.config.snapshot import (
    AuditLog,
    Governance,
    HeaderNames,
    JwtProvider,
    Policy,
    PolicyAction,
    Rbac,
)
from hms_addons.line_log import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.config.problems import Path
    from hms_addons.config.schema_audit import AuditLogModel
    from hms_addons.config.schema_policies import (
        GovernanceModel,
        HeadersModel,
        PolicyModel,
        RbacModel,
    )
    from hms_addons.config.schema_when import ConditionModel

_DEFAULT_TTL = 60.0
_STALE_TTLS = 10
"""`max_stale` in TTLs, where it is not written (SEMANTICS, Governance)."""


def compile_rbac(model: RbacModel, file: Callable[[Path, str], str]) -> Rbac:
    """Providers and policies; `file` makes the path of what is written at a place absolute."""
    providers = []
    for index, provider in enumerate(model.providers):
        values = provider.given()
        for key in ("public_key_file", "jwks_file", "jwks_ca_file"):
            if key in values:
                values[key] = file(("rbac", "providers", index, key), values[key])
        default = ("HS256",) if provider.hs256_secret_env is not None else ("RS256",)
        values["algorithms"] = tuple(values.get("algorithms", default))
        values["audiences"] = tuple(values.get("audiences", ()))
        providers.append(JwtProvider(**values))
    policies = [compile_policy(policy, model.mode) for policy in model.policies]
    return Rbac(
        providers=tuple(providers),
        policies=tuple(policies),
        role_order=tuple(model.role_order or ()),
        audit_log=_audit_log(model.audit_log, file),
    )


def _audit_log(model: AuditLogModel | None, file: Callable[[Path, str], str]) -> AuditLog | None:
    if model is None:
        return None
    path = model.path
    if path != STDOUT:
        path = file(("rbac", "audit_log", "path"), path)
    return AuditLog(path=path, denied_only=model.decisions == "denied")


def compile_policy(model: PolicyModel, mode: str | None) -> Policy:
    """One policy; `mode` is what `rbac.mode` says, for those that say nothing themselves."""
    lists = {
        key: tuple(value)
        for key, value in model.given().items()
        if key not in {"name", "action", "when", "mode"}
    }
    return Policy(
        name=model.name,
        action=PolicyAction(model.action),
        when=tuple(_condition(condition) for condition in model.when or ()),
        audit=(model.mode or mode) == "audit",
        **lists,
    )


def _condition(model: ConditionModel) -> Condition:
    values = model.given()
    for key in ("values", "not_values"):
        values[key] = tuple(values.get(key, ()))
    if model.header is not None:
        values["header"] = model.header.lower()
    if model.regex is not None:
        values["regex"] = compile_regex(model.regex)
    return Condition(**values)


def compile_governance(model: GovernanceModel | None) -> Governance | None:
    """Where the policy version comes from; None: from nowhere."""
    if model is None:
        return None
    values = model.given()
    values.pop("headers", None)  # among the names that the mesh owns
    values["fail_open"] = values.pop("on_failure", "closed") == "open"
    ttl = values.get("ttl", _DEFAULT_TTL)
    values.setdefault("max_stale", _STALE_TTLS * ttl)
    return Governance(**values)


def compile_headers(model: HeadersModel | None, governance: GovernanceModel | None) -> HeaderNames:
    """The names of the mesh's own headers."""
    values: dict[str, Any] = {}
    if model is not None:
        values = {key: value.encode() for key, value in model.given().items()}
    if governance is not None and governance.headers:
        own = values.get("policy_version", HeaderNames().policy_version).lower()
        names = (name.encode() for name in governance.headers)
        values["governance"] = tuple(name for name in names if name.lower() != own)
    return HeaderNames(**values)
