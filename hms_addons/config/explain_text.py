"""What `explain` found, in words for a person: one line a fact, labels in a column."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.config.explain_forwarding import failover_line, forwarding_lines
from hms_addons.config.explain_health import health_lines
from hms_addons.config.explain_shaping import shaping_lines
from hms_addons.config.explain_token import token_lines

if TYPE_CHECKING:
    from collections.abc import Mapping


def to_text(found: Mapping[str, Any]) -> str:
    """What `explain` found, for a person."""
    request, listener = found["request"], found["listener"]
    tls = "" if listener["tls"] == "none" else f", TLS {listener['tls']}"
    lines = [
        f"request   {request['method']} {request.get('path', request['target'])}",
        f"listener  {listener['name']} ({listener['direction']}, {listener['address']}{tls})",
    ]
    if request["service"] is not None:
        lines.append(f"service   {request['service']} (named by the request)")
    if found["failure"] is not None:
        failure = found["failure"]
        lines.append(f"answer    {failure['status']} {failure['flag']} {failure['title']}")
        lines.append(f"          {failure['detail']}")
    if found["route"] is not None:
        lines.extend(_route_lines(found["route"]))
        for cluster in found["clusters"]:
            lines.extend(_cluster_lines(cluster))
        lines.extend(_policy_lines(found["policies"]))
        lines.append(f"headers   removed: {', '.join(found['headers']['removed'])}")
        lines.extend(f"          set: {line}" for line in found["headers"]["set"])
    if found["passed_over"]:
        lines.append("passed over:")
        lines.extend(f"  {item['route']}: {item['reason']}" for item in found["passed_over"])
    return "\n".join(lines)


def _route_lines(route: Mapping[str, Any]) -> list[str]:
    timeout = "none" if route["timeout_s"] is None else f"{route['timeout_s']:g}s"
    retries = route["retries"]
    line = f"          timeout {timeout}, retries {retries['attempts']}"
    if retries["attempts"]:
        line += f" (on {', '.join(retries['on'])})"
    if route["thresholds"] is not None:
        line += f", at most {route['thresholds']['max_connections']} connections"
    kind = " (default: no written route leads there)" if route["default"] else ""
    shaping = route["shaping"]
    lines = [f"route     {route['name']}, to the service {route['service']}{kind}", line]
    if shaping is not None and shaping["answer"] is not None:
        lines = [f"route     {route['name']}"]
    return lines + [
        f"          {line}" for line in (*shaping_lines(shaping), *forwarding_lines(route))
    ]


def _cluster_lines(cluster: Mapping[str, Any]) -> list[str]:
    tls = "plain text"
    if cluster["tls"] is not None:
        lack = "" if cluster["tls"]["provided"] else ", which nothing here provides"
        tls = f"mutual TLS with the secret {cluster['tls']['secret']}{lack}"
    by = "" if cluster["hash_on"] is None else f" by {cluster['hash_on']}"
    where = ", ".join(cluster["endpoints"] + cluster["dns"]) or "no endpoints"
    return [
        f"cluster   {cluster['name']}, {_share(cluster['share'])}: {where}",
        f"          {cluster['load_balancer']}{by}, {tls}",
        *health_lines(cluster),
        *([f"          {failover_line(cluster['failover'])}"] if cluster["failover"] else []),
    ]


def _policy_lines(policies: Mapping[str, Any]) -> list[str]:
    answer = policies["without_token"]
    verdict = "allowed" if answer["allowed"] else "refused with 403"
    lines = [f"policies  without a token: {verdict}: {answer['reason']}"]
    if answer["would_deny"]:
        lines.append(f"          would deny (audit): {answer['would_deny']}")
    if policies["token"] is not None:
        lines += [f"          {line}" for line in token_lines(policies["token"])]
    lines += [f"          {p['action']} {p['name']}: {p['effect']}" for p in policies["applying"]]
    lines += [
        f"          {p['action']} {p['name']} does not apply: it {p['reason']}"
        for p in policies["not_applying"]
    ]
    return lines


def _share(share: float) -> str:
    return "all requests" if share == 1 else f"{share * 100:.4g}% of the requests"
