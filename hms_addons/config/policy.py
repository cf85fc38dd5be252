"""Authorisation policies, decided: may this request go where it leads?

The order is Istio's (AuthorizationPolicy): any matching DENY refuses; a service to which no ALLOW
policy applies is open; otherwise some ALLOW must match. Everything here is a pure function of the
policies and the request, so `hms explain` says what the sidecar does.

Policies of `mode: audit` decide nothing: what the others allow passes. It is asked once more, then, what
all together would say, and the decision tells of it if that is a refusal.

Policies are filed by service once per snapshot, and what they ask is turned into sets; a decision
looks at the policies of one service only and makes nothing but the decision.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - a NamedTuple's annotations are looked at where it is compiled
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.policy_condition import Check
from hms_addons.config.snapshot import Direction, Policy, PolicyAction
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hms_addons.config.snapshot import Listener, Snapshot
    from hms_addons.http_message import Fields

_SHOWN: Final = 5
"""Entries of a list that a reason names."""
_SHOWN_CHARS: Final = 200
"""Characters of a path or a role that a reason quotes."""


class PolicyRequest(NamedTuple):
    """What policies ask about a request."""

    service: str
    """Where it leads: `Route.service`."""
    method: str
    path: str
    """Normalised, without query."""
    roles: tuple[str, ...] = ()
    subject: str | None = None
    caller: str | None = None
    """The caller's SPIFFE ID, see `caller_of`."""
    claims: Mapping[str, Any] = {}
    """Of the verified token."""
    fields: tuple[tuple[bytes, bytes], ...] = ()
    """The request's header fields; empty will do where `PolicyIndex.asks_fields` is False."""


class Decision(NamedTuple):
    """What the policies say to one request."""

    allowed: bool
    policy: str | None
    """The policy that decided; None if it was the absence of one."""
    reason: str
    """For people: the caller, the log, `hms explain`."""
    would_deny: str | None = None
    """Why it would not be allowed if policies of `mode: audit` counted; None if it would be."""
    audit_policy: str | None = None
    """The policy that would have refused it; None if it was the absence of one."""


class PolicyTrace(NamedTuple):
    """How one policy looks at one request."""

    policy: Policy
    unmet: tuple[str, ...]
    """Every condition that does not hold, in words; empty if the policy matches."""


class _Rule:
    """One policy, ready to be asked."""

    __slots__ = (
        "_any_path",
        "_caller_prefixes",
        "_callers",
        "_checks",
        "_methods",
        "_path_prefixes",
        "_paths",
        "_roles",
        "_subjects",
        "allowed",
        "deny",
        "policy",
    )

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.deny = policy.action is PolicyAction.DENY
        self._methods = frozenset(method.upper() for method in policy.methods)
        self._paths, self._path_prefixes = _split(policy.paths)
        self._any_path = not policy.paths
        self._roles = frozenset(policy.roles)
        self._subjects = frozenset(policy.subjects)
        self._callers, self._caller_prefixes = _split(policy.callers)
        self._checks = tuple(Check(condition, deny=self.deny) for condition in policy.when)
        self.allowed = Decision(
            allowed=True, policy=policy.name, reason=f"policy '{policy.name}' allows it"
        )

    def __repr__(self) -> str:
        mode = " audit" if self.policy.audit else ""
        return f"<_Rule {self.policy.action} {self.policy.name}{mode}>"

    def matches(self, request: PolicyRequest) -> bool:
        """Whether every condition holds; the service has been looked at already."""
        _, method, path, roles, subject, caller, claims, fields = request
        return (
            (not self._methods or self._method_matches(method))
            and (self._any_path or self._path_matches(path))
            and (not self._roles or not self._roles.isdisjoint(roles))
            and (not self._subjects or subject in self._subjects)
            and (not self.policy.callers or self._caller_matches(caller))
            and (not self._checks or self._checks_hold(claims, fields))
        )

    def _checks_hold(self, claims: Mapping[str, Any], fields: Fields) -> bool:
        for check in self._checks:  # noqa: SIM110 - compiled, a generator costs twice as much
            if not check.holds(claims, fields):
                return False
        return True

    def _method_matches(self, method: str) -> bool:
        # Methods are case-sensitive, yet many servers take `delete` for `DELETE`.
        return method in self._methods or method.upper() in self._methods

    def _path_matches(self, path: str) -> bool:
        if path in self._paths or path.startswith(self._path_prefixes):
            return True
        if self.deny and (";" in path or path.endswith("/")):
            # Servlet containers drop `;parameters` before they look a path up, and many frameworks
            # a slash at the end: neither `/admin;x` nor `/admin/` may slip by a DENY of `/admin`.
            # And of what is left they merge `//`: neither may `/;x/admin`.
            names = (segment.partition(";")[0] for segment in path.split("/"))
            bare = "/" + "/".join(name for name in names if name)
            return (
                bare in self._paths
                or bare + "/" in self._paths
                or bare.startswith(self._path_prefixes)
            )
        return False

    def _caller_matches(self, caller: str | None) -> bool:
        return caller is not None and (
            caller in self._callers or caller.startswith(self._caller_prefixes)
        )

    def unmet(self, request: PolicyRequest) -> tuple[str, ...]:
        """Every condition that does not hold, in words; the service's too."""
        policy = self.policy
        unmet = []
        if policy.services and request.service not in policy.services:
            unmet.append(f"is for {_listed('the services', policy.services)}")
        if self._methods and not self._method_matches(request.method):
            wanted = _listed("the methods", sorted(self._methods))
            unmet.append(f"requires {wanted}; this is {_short(request.method)}")
        if not self._any_path and not self._path_matches(request.path):
            unmet.append(f"requires {_listed('the paths', policy.paths)}")
        if self._roles and self._roles.isdisjoint(request.roles):
            has = _plain(request.roles) if request.roles else "none"
            unmet.append(f"requires {_listed('the roles', policy.roles)}; the caller has {has}")
        if self._subjects and request.subject not in self._subjects:
            is_ = "no subject" if request.subject is None else _short(request.subject)
            unmet.append(f"requires another subject; the caller is {is_}")
        if policy.callers and not self._caller_matches(request.caller):
            is_ = "not known over mutual TLS" if request.caller is None else request.caller
            unmet.append(f"requires {_listed('the callers', policy.callers)}; the caller is {is_}")
        unmet.extend(
            f"requires {check.condition}"
            for check in self._checks
            if not check.holds(request.claims, request.fields)
        )
        return tuple(unmet)


class _Rules(NamedTuple):
    """The policies that apply to one service, in configured order."""

    deny: tuple[_Rule, ...]
    allow: tuple[_Rule, ...]
    audit: tuple[tuple[_Rule, ...], tuple[_Rule, ...]] | None
    """The DENY and ALLOW policies as if those of `mode: audit` counted; None if there are none."""


class PolicyIndex:
    """All policies of a snapshot, filed by service. Immutable.

    Args:
        policies: in configured order; the order decides only which one a reason names.
    """

    __slots__ = ("_by_service", "_others", "_rules", "asks_fields")

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._rules = tuple(map(_Rule, policies))
        named = {service for rule in self._rules for service in rule.policy.services}
        self._by_service = {service: self._applying(service) for service in named}
        self._others = self._applying(None)
        self.asks_fields = any(
            condition.header is not None for rule in self._rules for condition in rule.policy.when
        )
        """Some policy looks at header fields."""

    def __repr__(self) -> str:
        return f"<PolicyIndex {len(self._rules)} policies, {len(self._by_service)} named services>"

    def __len__(self) -> int:
        return len(self._rules)

    def _applying(self, service: str | None) -> _Rules:
        rules = [
            rule
            for rule in self._rules
            if not rule.policy.services or service in rule.policy.services
        ]
        enforced = [rule for rule in rules if not rule.policy.audit]
        deny, allow = _by_action(enforced)
        return _Rules(deny, allow, None if len(enforced) == len(rules) else _by_action(rules))

    def decide(self, request: PolicyRequest) -> Decision:
        """Whether `request` may go on, and why (not)."""
        deny, allow, audit = self._by_service.get(request.service, self._others)
        decision = _decide(deny, allow, request)
        if audit is None or not decision.allowed:
            return decision
        would = _decide(*audit, request)
        if would.allowed:
            return decision
        return decision._replace(would_deny=would.reason, audit_policy=would.policy)

    def trace(self, request: PolicyRequest) -> tuple[PolicyTrace, ...]:
        """How every policy, also those of other services, looks at `request`."""
        return tuple(PolicyTrace(rule.policy, rule.unmet(request)) for rule in self._rules)


def _by_action(rules: Iterable[_Rule]) -> tuple[tuple[_Rule, ...], tuple[_Rule, ...]]:
    """The DENY and the ALLOW ones."""
    rules = tuple(rules)
    return (
        tuple(rule for rule in rules if rule.deny),
        tuple(rule for rule in rules if not rule.deny),
    )


def _decide(deny: tuple[_Rule, ...], allow: tuple[_Rule, ...], request: PolicyRequest) -> Decision:
    for rule in deny:
        if rule.matches(request):
            return _denied_by(rule, request)
    if not allow:
        return _OPEN
    for rule in allow:
        if rule.matches(request):
            return rule.allowed
    return _not_allowed(allow, request)


def decide(policies: Iterable[Policy], request: PolicyRequest) -> Decision:
    """What `policies` say to `request`; for one question. For many, keep a `PolicyIndex`."""
    return PolicyIndex(policies).decide(request)


def caller_of(snapshot: Snapshot, listener: Listener, peer: str | None) -> str | None:
    """Who a policy's `callers` are compared with: the peer inbound, `own_caller` outbound."""
    return peer if listener.direction is Direction.INBOUND else own_caller(snapshot)


def own_caller(snapshot: Snapshot) -> str | None:
    """The SPIFFE ID of the service that this sidecar stands beside, None if it is not configured.

    On an outbound listener the local app is who calls, and the far side will see this identity: so
    a policy that names callers says the same on both sides.
    """
    if snapshot.service is None or snapshot.trust_domain is None:
        return None
    try:
        return SpiffeId.for_service(snapshot.trust_domain, snapshot.service).uri
    except SpiffeIdError:
        return None


_OPEN = Decision(
    allowed=True, policy=None, reason="no ALLOW policy applies to the service, so it is open"
)


def _denied_by(rule: _Rule, request: PolicyRequest) -> Decision:
    name = rule.policy.name
    reason = f"policy '{name}' denies {_what(request)}"
    return Decision(allowed=False, policy=name, reason=reason)


def _not_allowed(rules: Sequence[_Rule], request: PolicyRequest) -> Decision:
    """Name the policy that came nearest: the one with the fewest conditions unmet."""
    unmet, nearest = min(
        ((rule.unmet(request), rule) for rule in rules), key=lambda pair: len(pair[0])
    )
    reason = (
        f"no ALLOW policy matches {_what(request)}: "
        f"policy '{nearest.policy.name}' {', and it '.join(unmet)}"
    )
    if len(rules) > 1:
        reason += f" (the nearest of {len(rules)} policies)"
    return Decision(allowed=False, policy=None, reason=reason)


def _what(request: PolicyRequest) -> str:
    return f"{_short(request.method)} {_short(request.path)} of service '{request.service}'"


def _split(patterns: Iterable[str]) -> tuple[frozenset[str], tuple[str, ...]]:
    """Exact values, and what stands before the `*` of the others."""
    exact = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
    return exact, tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))


def _listed(kind: str, items: Sequence[str]) -> str:
    if len(items) == 1:
        return f"{kind.removesuffix('s')} {items[0]}"
    return f"one of {kind} {_plain(items)}"


def _plain(items: Sequence[str]) -> str:
    shown = ", ".join(map(_short, items[:_SHOWN]))
    return shown if len(items) <= _SHOWN else f"{shown} and {len(items) - _SHOWN} more"


def _short(text: str) -> str:
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
