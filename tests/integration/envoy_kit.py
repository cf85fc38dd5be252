"""Our configuration in Envoy's words, and both proxies side by side.

Cases are written once, as users of HMS-SVC write them; `envoy_document` translates. What Envoy says of
an answer besides its status, its response flags, it is asked to put into `x-envoy-flags`; ours are
read off the exchanges.
"""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hms_addons.hookspecs import hookimpl
from tests.integration.basics import PATIENCE, free_port, until
from tests.integration.clients import Connection
from tests.integration.in_process import InProcess
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from hms_addons.exchange import Exchange
    from tests.integration.clients import Response
    from tests.integration.servers import Received, Upstream

TYPES = "type.googleapis.com/envoy.extensions"
ENVOYS_OWN = "x-envoy-expected-rq-timeout-ms"
"""A request header that only Envoy adds."""
FLAGS = "x-envoy-flags"
Config = dict[str, Any]


# -- routes ----------------------------------------------------------------------------------------


def envoy_match(match: Mapping[str, Any]) -> Config:
    """Conditions."""
    found: Config = {}
    if "path" in match:
        found["path"] = match["path"]
    elif "regex" in match:
        found["safe_regex"] = {"regex": match["regex"]}
    elif match.get("prefix", "/") == "/":
        found["prefix"] = "/"
    else:
        found["path_separated_prefix"] = match["prefix"]
    headers = [header_condition(name, value) for name, value in match.get("headers", {}).items()]
    if "methods" in match:
        safe = {"safe_regex": {"regex": "|".join(match["methods"])}}
        headers.append({"name": ":method", "string_match": safe})
    query = [
        {"name": name, "present_match": True}
        if value == {"present": True}
        else {"name": name, "string_match": string_match(value)}
        for name, value in match.get("query", {}).items()
    ]
    return (
        found
        | ({"headers": headers} if headers else {})
        | ({"query_parameters": query} if query else {})
    )


def header_condition(name: str, value: Any) -> Config:
    """A condition on a header field."""
    if isinstance(value, dict) and "present" in value:
        return {"name": name, "present_match": True, "invert_match": not value["present"]}
    return {"name": name, "string_match": string_match(value)}


def string_match(value: Any) -> Config:
    """`exact` or `regex`."""
    if isinstance(value, str):
        return {"exact": value}
    return {"safe_regex": {"regex": value["regex"]}} if "regex" in value else dict(value)


def envoy_route(route: Mapping[str, Any]) -> Config:
    """A route: conditions, and what is done with what meets them."""
    action = route["action"]
    found: Config = {"match": envoy_match(route["match"])}
    if "redirect" in action:
        found["redirect"] = envoy_redirect(action["redirect"])
    elif "direct_response" in action:
        given = action["direct_response"]
        found["direct_response"] = {
            "status": given["status"],
            "body": {"inline_string": given.get("body", "")},
        }
    else:
        found["route"] = envoy_action(action, route["match"])
    for ours, theirs in (("request_headers", "request"), ("response_headers", "response")):
        found |= envoy_edits(theirs, action.get(ours, {}))
    found["typed_per_filter_config"] = per_filter(action)
    return found


def envoy_action(action: Mapping[str, Any], match: Mapping[str, Any]) -> Config:
    """Where to, and how."""
    found: Config = {"timeout": action.get("timeout", "15s")}
    if "clusters" in action:
        found["weighted_clusters"] = {
            "clusters": [{"name": c["name"], "weight": c["weight"]} for c in action["clusters"]]
        }
    else:
        found["cluster"] = action["cluster"]
    retries = action.get("retries")
    if retries:
        found["retry_policy"] = envoy_retries(retries)
    rewrite = action.get("rewrite", {})
    if "prefix" in rewrite:
        found["prefix_rewrite"] = rewrite["prefix"]
    if "path" in rewrite:
        anything = {"regex": "^.*$"}
        found["regex_rewrite"] = {"pattern": anything, "substitution": rewrite["path"]}
    if "host" in rewrite:
        found["host_rewrite_literal"] = rewrite["host"]
    if "mirror" in action:
        percent = {"numerator": action["mirror"].get("percent", 100), "denominator": "HUNDRED"}
        found["request_mirror_policies"] = [
            {
                "cluster": action["mirror"]["cluster"],
                "runtime_fraction": {"default_value": percent},
            }
        ]
    return found


def envoy_retries(retries: Mapping[str, Any]) -> Config:
    """Envoy has our names for the conditions, but for ours on what could not be sent."""
    found: Config = {
        "retry_on": ",".join(retries["on"]),
        "num_retries": retries["attempts"],
        "retry_back_off": {"base_interval": "0.001s", "max_interval": "0.005s"},
    }
    if "status_codes" in retries:
        found["retriable_status_codes"] = retries["status_codes"]
    if "per_try_timeout" in retries:
        found["per_try_timeout"] = retries["per_try_timeout"]
    return found


def envoy_redirect(redirect: Mapping[str, Any]) -> Config:
    """A redirect."""
    names = {"scheme": "scheme_redirect", "host": "host_redirect", "port": "port_redirect"}
    names |= {"path": "path_redirect", "prefix": "prefix_rewrite"}
    codes = {
        301: "MOVED_PERMANENTLY",
        302: "FOUND",
        303: "SEE_OTHER",
        307: "TEMPORARY_REDIRECT",
        308: "PERMANENT_REDIRECT",
    }
    found = {names[key]: value for key, value in redirect.items() if key in names}
    return found | {"response_code": codes[redirect.get("status", 302)]}


def envoy_edits(which: str, edits: Mapping[str, Any]) -> Config:
    """Header rules; `which` is `request` or `response`."""
    actions = {"set": "OVERWRITE_IF_EXISTS_OR_ADD", "add": "APPEND_IF_EXISTS_OR_ADD"}
    added = [
        {"header": {"key": name, "value": value}, "append_action": action}
        for kind, action in actions.items()
        for name, value in edits.get(kind, {}).items()
    ]
    removed = edits.get("remove", [])
    return ({f"{which}_headers_to_add": added} if added else {}) | (
        {f"{which}_headers_to_remove": removed} if removed else {}
    )


def per_filter(action: Mapping[str, Any]) -> Config:
    """What Envoy has filters for."""
    found: Config = {}
    if "rate_limit" in action:
        limit = action["rate_limit"]
        bucket = {
            "max_tokens": limit.get("burst", limit["requests"]),
            "tokens_per_fill": limit["requests"],
            "fill_interval": limit["per"],
        }
        on = {"default_value": {"numerator": 100, "denominator": "HUNDRED"}}
        found["envoy.filters.http.local_ratelimit"] = {
            "@type": f"{TYPES}.filters.http.local_ratelimit.v3.LocalRateLimit",
            "stat_prefix": "limit",
            "token_bucket": bucket,
            "filter_enabled": on,
            "filter_enforced": on,
        }
    if "fault" in action:
        fault = action["fault"]
        percent = {"numerator": fault.get("percent", 100), "denominator": "HUNDRED"}
        given: Config = {"@type": f"{TYPES}.filters.http.fault.v3.HTTPFault"}
        if "delay" in fault:
            given["delay"] = {"fixed_delay": fault["delay"], "percentage": percent}
        if "abort" in fault:
            given["abort"] = {"http_status": fault["abort"], "percentage": percent}
        if "when" in fault:
            named = fault["when"]["header"].items()
            given["headers"] = [header_condition(name, value) for name, value in named]
        found["envoy.filters.http.fault"] = given
    return found


# -- clusters --------------------------------------------------------------------------------------


def envoy_cluster(cluster: Mapping[str, Any]) -> Config:
    """A cluster. Panic is off, as with us."""
    endpoints: list[Config] = [
        {"address": e} if isinstance(e, str) else e for e in cluster["endpoints"]
    ]
    found: Config = {
        "name": cluster["name"],
        "type": "STATIC",
        "connect_timeout": cluster.get("connect_timeout", "2s"),
        "common_lb_config": {"healthy_panic_threshold": {"value": 0}},
        "load_assignment": {
            "cluster_name": cluster["name"],
            "endpoints": [
                {
                    "lb_endpoints": [
                        {
                            "endpoint": {"address": address(e["address"])},
                            "load_balancing_weight": e.get("weight", 1),
                        }
                        for e in endpoints
                    ]
                }
            ],
        },
    }
    if "circuit_breakers" in cluster:
        found["circuit_breakers"] = {"thresholds": [cluster["circuit_breakers"]]}
    if cluster.get("outlier_detection"):
        ours = cluster["outlier_detection"]
        found["outlier_detection"] = ours | {
            "enforcing_consecutive_gateway_failure": 100,
            "enforcing_success_rate": 0,
            "max_ejection_percent": 100,
        }
    return found


def address(text: str | int) -> Config:
    """`127.0.0.1:port`, or the port alone."""
    port = text if isinstance(text, int) else int(text.rpartition(":")[2])
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


# -- policies --------------------------------------------------------------------------------------


def envoy_policies(rbac: Mapping[str, Any]) -> list[Config]:
    """Tokens by the JWT filter, then DENY, then ALLOW, as Istio puts them."""
    jwt = "envoy.filters.http.jwt_authn"
    providers = {
        provider["name"]: {
            "issuer": provider["issuer"],
            "audiences": provider.get("audiences", []),
            "local_jwks": {"filename": provider["jwks_file"]},
            "forward": True,
            "payload_in_metadata": "payload",
            "clock_skew_seconds": 60,
        }
        for provider in rbac.get("providers", ())
    }
    filters: list[Config] = []
    if providers:
        names = [{"provider_name": name} for name in providers]
        requirement = {"requires_any": {"requirements": [*names, {"allow_missing": {}}]}}
        filters.append(
            {
                "name": jwt,
                "typed_config": {
                    "@type": f"{TYPES}.filters.http.jwt_authn.v3.JwtAuthentication",
                    "providers": providers,
                    "rules": [{"match": {"prefix": "/"}, "requires": requirement}],
                },
            }
        )
    for action in ("DENY", "ALLOW"):
        policies = {
            policy["name"]: envoy_policy(policy, jwt)
            for policy in rbac.get("policies", ())
            if policy["action"] == action
        }
        if policies:
            filters.append(
                {
                    "name": f"rbac-{action}",
                    "typed_config": {
                        "@type": f"{TYPES}.filters.http.rbac.v3.RBAC",
                        "rules": {"action": action, "policies": policies},
                    },
                }
            )
    return filters


def envoy_policy(policy: Mapping[str, Any], jwt: str) -> Config:
    """Permissions are about the request, principals about who sent it."""
    permissions: list[Config] = []
    if "methods" in policy:
        permissions.append(
            any_of([{"header": header_condition(":method", m)} for m in policy["methods"]])
        )
    if "paths" in policy:
        permissions.append(any_of([{"url_path": {"path": wild(p)}} for p in policy["paths"]]))
    principals: list[Config] = []
    claims: list[tuple[tuple[str, ...], list[str] | None, bool]] = [
        (("payload", "roles"), policy.get("roles"), True),
        (("payload", "sub"), policy.get("subjects"), False),
    ]
    for condition in policy.get("when", ()):
        if "header" in condition:
            name, wanted = condition["header"], condition["values"]
            permissions.append(any_of([{"header": header_condition(name, v)} for v in wanted]))
        else:
            path = ("payload", *condition["claim"].split("."))
            claims.append((path, condition["values"], condition.get("list", False)))
    for path, values, listed in claims:
        if values is None:
            continue
        ids = [claim(jwt, path, value, listed=listed) for value in values]
        principals.append(any_of(ids, "ids"))
    return {"permissions": [all_of(permissions)], "principals": [all_of(principals, "ids")]}


def claim(jwt: str, path: Sequence[str], value: str, *, listed: bool) -> Config:
    """A claim has a value, or its list holds it."""
    match: Config = {"string_match": wild(value)}
    if listed:
        match = {"list_match": {"one_of": match}}
    keys = [{"key": key} for key in path]
    return {"metadata": {"filter": jwt, "path": keys, "value": match}}


def any_of(rules: list[Config], kind: str = "rules") -> Config:
    """At least one; permissions are `rules`, principals `ids`."""
    return rules[0] if len(rules) == 1 else {f"or_{kind}": {kind: rules}}


def all_of(rules: list[Config], kind: str = "rules") -> Config:
    """All of them; without any, whatever comes."""
    if not rules:
        return {"any": True}
    return rules[0] if len(rules) == 1 else {f"and_{kind}": {kind: rules}}


def wild(pattern: str) -> Config:
    """A trailing `*` matches any suffix."""
    return {"prefix": pattern[:-1]} if pattern.endswith("*") else {"exact": pattern}


# -- the whole -------------------------------------------------------------------------------------


def envoy_document(config: Mapping[str, Any], port: int, admin: int) -> Config:
    """All of it, with one listener on `port`, and Envoy's admin port."""
    (listener,) = config["listeners"]
    on = {"filter": {"status_code_filter": {"comparison": {"op": "GE", "value": AT_LEAST}}}}
    flags = {
        "header": {"key": FLAGS, "value": "%RESPONSE_FLAGS%"},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "codec_type": "HTTP1",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "local_reply_config": {"mappers": [{**on, "headers_to_add": [flags]}]},
        "route_config": {
            "response_headers_to_add": [flags],
            "virtual_hosts": [
                {
                    "name": "v",
                    "domains": ["*"],
                    "routes": [envoy_route(route) for route in listener["routes"]],
                }
            ],
        },
        "http_filters": [
            *envoy_policies(config.get("rbac", {})),
            http_filter("local_ratelimit", "LocalRateLimit", stat_prefix="limit"),
            http_filter("fault", "HTTPFault"),
            http_filter("router", "Router"),
        ],
    }
    return {
        "admin": {"address": address(admin)},
        "static_resources": {
            "listeners": [
                {
                    "name": "l",
                    "address": address(port),
                    "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
                }
            ],
            "clusters": [envoy_cluster(cluster) for cluster in config["clusters"]],
        },
    }


AT_LEAST: Config = {"default_value": 200, "runtime_key": "none"}


def http_filter(name: str, kind: str, **options: Any) -> Config:
    """One of Envoy's HTTP filters."""
    typed = {"@type": f"{TYPES}.filters.http.{name}.v3.{kind}", **options}
    return {"name": f"envoy.filters.http.{name}", "typed_config": typed}


@dataclass
class Seen:
    """What became of one request at one proxy; `name` is its X-Request-ID."""

    name: str
    answer: Response
    flags: frozenset[str]
    took: list[Received] = field(default_factory=list)

    @property
    def status(self) -> int:
        return self.answer.status


class Recorder:
    """Keeps the flags of what the sidecar has answered, by request id."""

    def __init__(self) -> None:
        self._flags: dict[str, frozenset[str]] = {}
        self._ended = threading.Condition()

    def flags(self, name: str) -> frozenset[str]:
        """Of the exchange with this request id, once it has ended."""
        with self._ended:
            assert self._ended.wait_for(lambda: name in self._flags, PATIENCE), name
            return self._flags[name]

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        failure = exchange.failure
        flags = {flag for flag in (exchange.flag, failure and failure.flag) if flag}
        with self._ended:
            self._flags[exchange.request_id] = frozenset(str(flag) for flag in flags)
            self._ended.notify_all()


class Pair:
    """Envoy and our sidecar, with one configuration, before the same upstreams.

    Args:
        envoy, admin: Envoy's ports.
        upstreams: all there are, so that it can be said who has got what.
        sidecar: ours, to look inside.
        recorder: what it has loaded.
    """

    def __init__(
        self,
        envoy: int,
        admin: int,
        sidecar: InProcess,
        recorder: Recorder,
        upstreams: Sequence[Upstream],
    ) -> None:
        self.envoy = envoy
        self.ours = sidecar.port
        self.sidecar = sidecar
        self.upstreams = upstreams
        self._admin = admin
        self._recorder = recorder
        self._count = 0

    @property
    def ports(self) -> tuple[int, int]:
        return self.envoy, self.ours

    def ask(self, port: int, method: str, target: str, *fields: str, **options: Any) -> Seen:
        """One request on a connection of its own, and what the upstreams got of it."""
        self._count += 1
        name = f"case-{self._count}"
        with Connection(port) as connection:
            answer = connection.exchange(
                method, target, f"X-Request-ID: {name}", "Connection: close", *fields, **options
            )
        if port == self.ours:
            flags = self._recorder.flags(name)
        else:
            told = (answer.header(FLAGS) or "-").split(",")
            flags = frozenset(flag for flag in told if flag != "-")
        took = [request for index in range(len(self.upstreams)) for request in self.at(index, name)]
        return Seen(name, answer, flags, took)

    def at(self, index: int, name: str) -> list[Received]:
        """What one of the upstreams has got of the request `name`."""
        requests = self.upstreams[index].requests
        return [request for request in requests if request.header("x-request-id") == name]

    def waiting(self, port: int, cluster: str) -> int:
        """Requests that wait for a connection to `cluster`."""
        if port == self.ours:
            return self.sidecar.cluster(cluster).breaker.pending
        name = f"cluster.{cluster}.upstream_rq_pending_active"
        with Connection(self._admin) as connection:
            told = connection.exchange("GET", f"/stats?filter={name}$").body
        return int(told.decode().partition(": ")[2])

    def until(self, port: int, target: str, check: Callable[[Seen], bool], what: str) -> Seen:
        """Ask until it is so; fails after some seconds."""
        found: list[Seen] = []

        def ask() -> bool:
            found.append(self.ask(port, "GET", target))
            return check(found[-1])

        until(ask, what, 10.0)
        return found[-1]

    def both(self, method: str, target: str, *fields: str, **options: Any) -> tuple[Seen, Seen]:
        """The same request to each: Envoy first."""
        return (
            self.ask(self.envoy, method, target, *fields, **options),
            self.ask(self.ours, method, target, *fields, **options),
        )


def pair(folder: Path, config: Mapping[str, Any], *upstreams: Upstream) -> Iterator[Pair]:
    """Both proxies, running; a fixture's body."""
    port, admin = free_port(), free_port()
    file = folder / "envoy.json"
    file.write_text(json.dumps(envoy_document(config, port, admin)))
    recorder = Recorder()
    with ExitStack() as stack:
        options = ("--disable-hot-restart", "--concurrency", "1", "-l", "error")
        envoy = stack.enter_context(Program("envoy", "-c", file, *options))
        sidecar = stack.enter_context(InProcess(json.dumps(config), plugins={"recorder": recorder}))
        envoy.wait_listening(port)
        yield Pair(port, admin, sidecar, recorder, upstreams)
