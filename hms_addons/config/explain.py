"""What would happen to a request, and why: the answer of `hms explain` and of `/explain`.

Asks the same tables and policies that decide about real requests, so it cannot tell another story.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from hms_addons.config.explain_forwarding import explain_forwarding, failover_of
from hms_addons.config.explain_health import health_of, thresholds_of
from hms_addons.config.explain_interception import (
    endpoints_of,
    meant_for_another,
    of_any_host,
    refused,
)
from hms_addons.config.explain_request import (
    check_well_formed,
    index_headers,
    pairs_of,
    split_request_line,
)
from hms_addons.config.explain_shaping import explain_shaping, sent_path
from hms_addons.config.explain_token import explain_token
from hms_addons.config.installed import BALANCERS, HASHING
from hms_addons.config.policy import PolicyIndex, PolicyRequest, caller_of
from hms_addons.config.problems import closest
from hms_addons.config.request_target import TargetError, named_service, parse_target
from hms_addons.config.snapshot import Direction, PolicyAction
from hms_addons.errors import ConfigError, Fault
from hms_addons.http_message import spellings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.config.explain_request import Headers
    from hms_addons.config.hash_on import HashOn
    from hms_addons.config.request_target import Target
    from hms_addons.config.route_table import RouteTable
    from hms_addons.config.snapshot import (
        Cluster,
        Listener,
        Policy,
        RetryPolicy,
        Route,
        Snapshot,
    )
    from hms_addons.http_message import Fields


def explain(
    snapshot: Snapshot,
    request_line: str,
    headers: Headers = (),
) -> dict[str, Any]:
    """Say what would happen to a request, as JSON-ready types.

    Args:
        snapshot: the configuration.
        request_line: as `GET http://auth-svc.svc/verify-id`; GET when there is no method. The port
            of an address such as `localhost:15001` chooses the listener, as it would on the wire;
            otherwise it is the first outbound one, or the first.
        headers: the request's fields; as pairs, if a name is there more than once.

    Returns:
        `request`, `listener`, `failure` (None, or status, flag, title and detail), `route`,
        `clusters`, `policies`, `headers` and `passed_over`; the last five None or empty where the
        request does not get that far.

    Raises:
        ConfigError: the snapshot has no listener.
    """
    method, target = split_request_line(request_line)
    fields = pairs_of(headers)
    head = index_headers(fields)
    found: dict[str, Any] = {
        "request": {"method": method, "target": target, "service": None},
        "listener": None,
        "failure": None,
        "route": None,
        "clusters": [],
        "policies": None,
        "headers": None,
        "passed_over": [],
    }
    try:
        check_well_formed(method, fields)
        parsed = parse_target(target.encode("utf-8", "surrogateescape"), method)
    except TargetError as error:
        found["listener"] = _listener(_choose(snapshot, None, head))
        found["failure"] = _failure(Fault.BAD_REQUEST, str(error))
        return found
    listener = _choose(snapshot, parsed.authority, head)
    for name in spellings(snapshot.headers.all):
        head.pop(name, None)  # as on the wire: what a caller says there decides nothing
    if parsed.authority is not None:
        head[b"host"] = parsed.authority.encode()
    found["listener"] = _listener(listener)
    _follow(found, snapshot, listener, parsed, head, _not_owned(snapshot, tuple(fields)))
    return found


def _choose(snapshot: Snapshot, authority: str | None, head: Mapping[bytes, bytes]) -> Listener:
    if not snapshot.listeners:
        raise ConfigError("the configuration has no listeners, so no request can be explained")
    host = authority if authority is not None else head.get(b"host", b"").decode("latin-1")
    port = host.rpartition(":")[2]
    for listener in snapshot.listeners:
        if port == str(listener.port):
            return listener
    outbound = [item for item in snapshot.listeners if item.direction is Direction.OUTBOUND]
    return (outbound or snapshot.listeners)[0]


def _follow(
    found: dict[str, Any],
    snapshot: Snapshot,
    listener: Listener,
    target: Target,
    head: Mapping[bytes, bytes],
    fields: Fields,
) -> None:
    """Follow the request as far as it gets."""
    method = found["request"]["method"]
    service, query = None, target.query
    table: RouteTable | None = listener.routes
    caught = meant_for_another(listener, head)
    intercept = listener.intercept if caught else None
    if caught:
        found["listener"]["intercepted"] = True
    if listener.direction is Direction.OUTBOUND:
        try:
            service, query = named_service("" if caught else query, head.get(b"host"))
        except TargetError as error:
            found["failure"] = _failure(Fault.BAD_REQUEST, str(error))
            return
        query = target.query if caught else query
        if service is not None:
            table = listener.services.get(service)
        elif intercept is not None:
            table = intercept.routes
    found["request"] |= {
        "path": target.path,
        "query": query,
        "host": head.get(b"host", b"").decode("latin-1"),
        "service": service,
    }
    if table is None:
        guess = closest(service, listener.services)
        hint = f" (did you mean {guess}.svc?)" if guess else ""
        detail = f"the listener {listener.name} knows no service {service!r}{hint}"
        found["failure"] = _failure(Fault.UNKNOWN_SERVICE, detail)
        return
    for route, reason in table.explain(target.path, query, method, head):
        if reason is not None:
            found["passed_over"].append({"route": route.name, "reason": reason})
    if service is not None:
        found["passed_over"].extend(_elsewhere(listener, table, service))
    route_taken = table.match(target.path, query, method, head)
    if route_taken is None and intercept is not None:
        found["passed_over"].extend(of_any_host(listener, table))
        route_taken = intercept.passthrough
    if route_taken is None:
        found["failure"] = _no_route(listener, table, found["request"]["host"] if caught else None)
        return
    found["route"] = _route(route_taken)
    found["route"]["shaping"] = explain_shaping(route_taken.shaping, target.path)
    found["clusters"] = _clusters(route_taken, snapshot)
    request = PolicyRequest(
        route_taken.service,
        method,
        sent_path(route_taken.shaping, target.path),
        caller=caller_of(snapshot, listener, None),
        fields=fields,
    )
    found["policies"] = _policies(snapshot, request, head.get(b"authorization"))
    found["headers"] = _headers(snapshot)


def _no_route(listener: Listener, table: RouteTable, meant_for: str | None) -> dict[str, Any]:
    if meant_for is not None:
        return _failure(Fault.NOT_OF_THE_MESH, refused(listener, meant_for))
    count = len(table)
    detail = (
        f"no route of the listener {listener.name} matches "
        f"({count} {'route' if count == 1 else 'routes'})"
    )
    return _failure(Fault.NO_ROUTE, detail)


def _not_owned(snapshot: Snapshot, fields: Fields) -> Fields:
    """The fields as policies see them: without the mesh's own, which no caller can supply."""
    own = spellings(snapshot.headers.all)
    return tuple(field for field in fields if field[0] not in own)


def _elsewhere(listener: Listener, table: RouteTable, service: str) -> list[dict[str, str]]:
    """The listener's routes that naming `service` has ruled out."""
    narrowed = {route.name for route in table}
    return [
        {
            "route": route.name,
            "reason": f"the request names {service}, and this leads to {route.service}",
        }
        for route in listener.routes
        if route.name not in narrowed
    ]


def _failure(fault: Fault, detail: str) -> dict[str, Any]:
    status, flag, title = fault.value
    return {"status": status, "flag": str(flag), "title": title, "detail": detail}


def _listener(listener: Listener) -> dict[str, Any]:
    return {
        "name": listener.name,
        "direction": str(listener.direction),
        "address": f"{listener.host}:{listener.port}",
        "tls": str(listener.tls),
    }


def _route(route: Route) -> dict[str, Any]:
    return {
        "name": route.name,
        "service": route.service,
        "default": route.default,
        "timeout_s": route.timeout,
        "retries": _retries(route.retry),
        "hash_on": None if route.hash_on is None else str(route.hash_on),
        "thresholds": thresholds_of(route.thresholds),
        **explain_forwarding(route),
    }


def _retries(retry: RetryPolicy) -> dict[str, Any]:
    return {
        "attempts": retry.attempts,
        "per_try_timeout_s": retry.per_try_timeout,
        "on": sorted(retry.on) if retry.attempts else [],
        "status_codes": sorted(retry.status_codes),
        "backoff_s": [retry.backoff_base, retry.backoff_max],
        "retry_non_idempotent": retry.retry_non_idempotent,
    }


def _clusters(route: Route, snapshot: Snapshot) -> list[dict[str, Any]]:
    total = sum(item.weight for item in route.clusters)
    return [
        _cluster(snapshot.clusters[item.cluster], snapshot, route.hash_on)
        | {"weight": item.weight, "share": round(item.weight / total, 4)}
        for item in route.clusters
    ]


def _cluster(cluster: Cluster, snapshot: Snapshot, routes_own: HashOn | None) -> dict[str, Any]:
    tls = None
    if cluster.tls is not None:
        tls = {
            "secret": cluster.tls.secret,
            "provided": cluster.tls.secret in snapshot.secrets,
            "peers": sorted(cluster.tls.peers),
        }
    return {
        "name": cluster.name,
        "service": cluster.service,
        "endpoints": endpoints_of(cluster),
        "dns": [endpoint.address for endpoint in cluster.dns],
        "load_balancer": cluster.load_balancer,
        "hash_on": _hash_on(cluster, routes_own),
        "connect_timeout_s": cluster.connect_timeout,
        "tls": tls,
        "thresholds": thresholds_of(cluster.thresholds),
        **health_of(cluster),
        "failover": failover_of(cluster),
    }


def _hash_on(cluster: Cluster, routes_own: HashOn | None) -> str | None:
    """What its balancer chooses by: the route's key, else its own; None if it does not hash."""
    if cluster.load_balancer in BALANCERS - HASHING:
        return None
    found = routes_own or cluster.hash_on
    return None if found is None else str(found)


def _policies(
    snapshot: Snapshot, request: PolicyRequest, authorization: bytes | None
) -> dict[str, Any]:
    """Every policy, and whether it is about this request; who calls is known only on the wire."""
    policies = snapshot.rbac.policies
    about_request = PolicyIndex(
        replace(
            policy,
            roles=(),
            subjects=(),
            callers=(),
            when=tuple(c for c in policy.when if c.header),
        )
        for policy in policies
    ).trace(request)
    index = PolicyIndex(policies)
    decision = index.decide(request)
    return {
        "without_token": {
            "allowed": decision.allowed,
            "reason": decision.reason,
            "would_deny": decision.would_deny,
        },
        "token": explain_token(snapshot, index, request, authorization),
        "applying": [
            {
                "name": policy.name,
                "action": str(policy.action),
                "mode": _mode(policy),
                "effect": _effect(policy),
            }
            for policy, trace in zip(policies, about_request, strict=True)
            if not trace.unmet
        ],
        "not_applying": [
            {
                "name": policy.name,
                "action": str(policy.action),
                "mode": _mode(policy),
                "reason": "; it ".join(trace.unmet),
            }
            for policy, trace in zip(policies, about_request, strict=True)
            if trace.unmet
        ],
    }


def _mode(policy: Policy) -> str:
    return "audit" if policy.audit else "enforce"


def _effect(policy: Policy) -> str:
    verb = "refuses" if policy.action is PolicyAction.DENY else "allows"
    if policy.audit:
        verb = f"(mode: audit) would {verb.removesuffix('s').replace('allow', 'allow only')}"
    conditions = [
        f"{what} {' or '.join(values)}"
        for what, values in (
            ("a role of", policy.roles),
            ("the subject", policy.subjects),
            ("the calling service", policy.callers),
        )
        if values
    ]
    conditions.extend(str(condition) for condition in policy.when if condition.claim)
    return f"{verb} callers with {' and '.join(conditions)}" if conditions else f"{verb} everyone"


def _headers(snapshot: Snapshot) -> dict[str, list[str]]:
    names = snapshot.headers
    added = [f"{names.service.decode()}: the caller's SPIFFE ID, over mutual TLS"]
    if snapshot.governance is not None:
        added += [
            f"{name.decode()}: from {snapshot.governance.url}"
            for name in (names.policy_version, *names.governance)
        ]
    if snapshot.rbac.providers:
        added.append(f"{names.role.decode()}: the roles of a verified token")
        added.append(f"{names.subject.decode()}: the subject of a verified token")
    return {"removed": [name.decode() for name in names.all], "set": added}
