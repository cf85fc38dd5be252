"""Policies that contradict each other, or were hardly meant.

What can never do what it says is an error; what works, but surprises, is a warning.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Final

from hms_addons.config.part import ANY
from hms_addons.config.problems import closest
from hms_addons.config.snapshot import PolicyAction
from hms_addons.http_message import spellings

if TYPE_CHECKING:
    from hms_addons.config.policy_condition import Condition
    from hms_addons.config.problems import Path as KeyPath
    from hms_addons.config.problems import Report
    from hms_addons.config.schema import Config
    from hms_addons.config.snapshot import Policy, Snapshot

_LISTS: Final = ("services", "methods", "paths", "roles", "subjects", "callers", "when")
_PAIRS: Final = 1_000_000
"""Comparisons of a DENY with an ALLOW that are made at most: more take seconds."""


def lint_policies(config: Config, snapshot: Snapshot, report: Report) -> None:
    """Add to `report` what is wrong or odd about `rbac.policies`."""
    policies = config.rbac.policies
    _conditions(snapshot, report)
    _governed(config, snapshot, report)
    if not report.whole:
        return
    if config.rbac.providers and not any(_needs_token(policy) for policy in snapshot.rbac.policies):
        message = "no policy asks for a role or a subject: tokens are verified and passed on as headers only"
        if policies and report.known("rbac", "policies"):
            report.warning(("rbac", "providers"), message)
    _services(config, snapshot, report)
    for index, policy in enumerate(snapshot.rbac.policies):
        path: KeyPath = ("rbac", "policies", index)
        providers = config.rbac.providers or not report.known("rbac", "providers")
        if _needs_token(policy) and not providers:
            message = "needs a token, but there are no providers to verify one"
            report.warning((*path, "name"), message)
        if policy.audit:
            message = f"mode: audit: '{policy.name}' refuses nothing, and tells only what it would"
            report.warning((*path, "name"), message)
        _callers(policy, path, snapshot, report)
    _shadowed(snapshot, report)


def _governed(config: Config, snapshot: Snapshot, report: Report) -> None:
    """A header that HMS-GOV sets must not be another of the mesh's own."""
    names = snapshot.headers
    taken = {name.lower() for name in (names.role, names.subject, names.service)}
    given = (config.governance.headers if config.governance is not None else None) or ()
    for number, name in enumerate(given):
        if name.lower().encode() in taken:
            message = f"{name} tells of the caller, and is not governance's to set"
            report.error(("governance", "headers", number), message)


def _needs_token(policy: Policy) -> bool:
    asks = any(
        condition.claim is not None and (condition.values or condition.regex or condition.present)
        for condition in policy.when
    )
    return bool(policy.roles or policy.subjects or asks)


def _conditions(snapshot: Snapshot, report: Report) -> None:
    owned = spellings(snapshot.headers.all)
    for index, policy in enumerate(snapshot.rbac.policies):
        path: KeyPath = ("rbac", "policies", index, "when")
        for number, condition in enumerate(policy.when):
            name = condition.header
            if name is not None and name.encode("latin-1") in owned:
                message = (
                    f"{name} is the mesh's own header, which is removed from whatever comes in: "
                    "ask for roles, subjects or callers"
                )
                report.error((*path, number, "header"), message)
        for (_, one), (number, other) in combinations(enumerate(policy.when), 2):
            if _exclude(one, other) or _exclude(other, one):
                message = (
                    f"this and an earlier condition on {other.claim or other.header} can never both "
                    f"hold, so '{policy.name}' matches nothing"
                )
                report.error((*path, number), message)


def _exclude(one: Condition, other: Condition) -> bool:
    if (one.claim, one.header) != (other.claim, other.header):
        return False
    asked = bool(other.values or other.regex or other.present)
    return (one.present is False and asked) or bool(
        one.values and set(one.values) <= set(other.not_values)
    )


def _services(config: Config, snapshot: Snapshot, report: Report) -> None:
    keys = ("name", "service")
    if not all(report.known("clusters", ANY, key) for key in keys) or not report.known("service"):
        return
    known = {cluster.service for cluster in snapshot.clusters.values()}
    if snapshot.service is not None:
        known.add(snapshot.service)
    # Where others are told of, too: the sidecars of these have the listener, and judge what comes in there.
    known.update(name for listener in config.listeners for name in listener.services or ())
    for index, policy in enumerate(config.rbac.policies):
        for number, service in enumerate(policy.services or ()):
            if service not in known:
                path: KeyPath = ("rbac", "policies", index, "services", number)
                message = f"no route here leads to the service {service}, so this never applies"
                report.warning(path, message, closest(service, known))


def _callers(policy: Policy, path: KeyPath, snapshot: Snapshot, report: Report) -> None:
    domain = snapshot.trust_domain
    for number, caller in enumerate(policy.callers):
        named, slash, _ = caller.removeprefix("spiffe://").partition("/")
        if domain is not None and caller != "*" and slash and named != domain:
            message = f"no caller can have this: the trust domain here is {domain}"
            report.warning((*path, "callers", number), message)


def _shadowed(snapshot: Snapshot, report: Report) -> None:
    """ALLOW policies that a DENY leaves nothing of."""
    numbered = list(enumerate(snapshot.rbac.policies))
    enforced = [(index, policy) for index, policy in numbered if not policy.audit]
    deny = [policy for _, policy in enforced if policy.action is PolicyAction.DENY]
    allow = [(index, p) for index, p in enforced if p.action is PolicyAction.ALLOW]
    if len(deny) * len(allow) > _PAIRS:
        return
    for index, policy in allow:
        path: KeyPath = ("rbac", "policies", index)
        if not report.known(*path):
            continue
        for other in deny:
            if not _covers(other, policy):
                continue
            if _covers(policy, other):
                message = (
                    f"'{policy.name}' allows exactly what the DENY '{other.name}' refuses, so it "
                    "never allows anything; take one of them away"
                )
                report.error((*path, "name"), message)
            else:
                message = f"never allows anything: the DENY '{other.name}' refuses all of it"
                report.warning((*path, "name"), message)
            break


def _covers(one: Policy, other: Policy) -> bool:
    """Whether `one` matches all that `other` does."""
    for key in _LISTS:
        wanted, given = getattr(one, key), getattr(other, key)
        if key == "when":
            if not set(wanted) <= set(given):
                return False
        elif wanted and not (given and all(_in(item, wanted, key) for item in given)):
            return False
    return True


def _in(item: str, patterns: tuple[str, ...], key: str) -> bool:
    if item in patterns:
        return True
    return key in {"paths", "callers"} and any(
        pattern.endswith("*") and item.startswith(pattern[:-1]) for pattern in patterns
    )
