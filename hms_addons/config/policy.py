"""Authorisation policies, decided: may this request go where it leads?

The order is Istio's (AuthorizationPolicy): any matching DENY refuses; a service to which no ALLOW
policy applies is open; otherwise some ALLOW must match. Everything here is a pure function of the
policies and the request, so `hms explain` says what the sidecar does.

Policies are filed by service once per snapshot, and what they ask is turned into sets; a decision
looks at the policies of one service only and makes nothing but the decision.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.config.snapshot import Direction, Policy, PolicyAction
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from hms_addons.config.snapshot import Listener, Snapshot

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


class Decision(NamedTuple):
    """What the policies say to one request."""

    allowed: bool
    policy: str | None
    """The policy that decided; None if it was the absence of one."""
    reason: str
    """For people: the caller, the log, `hms explain`."""


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
        self.allowed = Decision(
            allowed=True, policy=policy.name, reason=f"policy '{policy.name}' allows it"
        )

    def __repr__(self) -> str:
        return f"<_Rule {self.policy.action} {self.policy.name}>"

    def matches(self, request: PolicyRequest) -> bool:
        """Whether every condition holds; the service has been looked at already."""
        _, method, path, roles, subject, caller = request
        return (
            (not self._methods or self._method_matches(method))
            and (self._any_path or self._path_matches(path))
            and (not self._roles or not self._roles.isdisjoint(roles))
            and (not self._subjects or subject in self._subjects)
            and (not self.policy.callers or self._caller_matches(caller))
        )

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
        return tuple(unmet)


class _Rules(NamedTuple):
    """The policies that apply to one service, in configured order."""

    deny: tuple[_Rule, ...]
    allow: tuple[_Rule, ...]


class PolicyIndex:
    """All policies of a snapshot, filed by service. Immutable.

    Args:
        policies: in configured order; the order decides only which one a reason names.
    """

    __slots__ = ("_by_service", "_others", "_rules")

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._rules = tuple(map(_Rule, policies))
        named = {service for rule in self._rules for service in rule.policy.services}
        self._by_service = {service: self._applying(service) for service in named}
        self._others = self._applying(None)

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
        return _Rules(
            tuple(rule for rule in rules if rule.deny),
            tuple(rule for rule in rules if not rule.deny),
        )

    def decide(self, request: PolicyRequest) -> Decision:
        """Whether `request` may go on, and why (not)."""
        deny, allow = self._by_service.get(request.service, self._others)
        for rule in deny:
            if rule.matches(request):
                return _denied_by(rule, request)
        if not allow:
            return _OPEN
        for rule in allow:
            if rule.matches(request):
                return rule.allowed
        return _not_allowed(allow, request)

    def trace(self, request: PolicyRequest) -> tuple[PolicyTrace, ...]:
        """How every policy, also those of other services, looks at `request`."""
        return tuple(PolicyTrace(rule.policy, rule.unmet(request)) for rule in self._rules)


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
