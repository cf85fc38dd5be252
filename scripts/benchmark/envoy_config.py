"""Envoy's bootstrap for each job (JSON, which Envoy reads as it reads YAML).

Written in Envoy's favour where there is a choice: no access log, no admin port, no statistics
sinks, HTTP/1 by name and not by detection, a token cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scripts.benchmark import credentials as creds
from scripts.benchmark.job import PATH, POLICY_VERSION, Job, Task

if TYPE_CHECKING:
    from scripts.benchmark.credentials import Credentials, KeyPair

Message = dict[str, Any]

_TYPES = "type.googleapis.com/envoy.extensions"
_HTTP = f"{_TYPES}.filters.http"
_NETWORK = f"{_TYPES}.filters.network"
_TLS = f"{_TYPES}.transport_sockets.tls.v3"
_TIMEOUT = "60s"
_JWT_FILTER = "envoy.filters.http.jwt_authn"
_PAYLOAD = "payload"


def hop(port: int, job: Job, credentials: Credentials) -> Message:
    """One Envoy on `port` that carries a plain or a policy job to the upstream."""
    policy = job.task is Task.POLICY
    routes = [_route(prefix, policy=policy) for prefix in job.prefixes]
    filters = _policy_filters(credentials) if policy else []
    virtual_host = _policy_headers() if policy else {}
    manager = _connection_manager(routes, filters, virtual_host, _path_rules() if policy else {})
    return _bootstrap(
        _listener(port, manager), _cluster(job.upstream_port, _breakers() if policy else {})
    )


def pair(ports: tuple[int, int], job: Job, credentials: Credentials) -> tuple[Message, Message]:
    """Two Envoys, outbound on `ports[0]`, inbound on `ports[1]`, with mutual TLS between them."""
    outbound, inbound = ports
    plain = _connection_manager([_route("/", policy=False)], [], {}, {})
    to_peer = _cluster(inbound, {"transport_socket": _upstream_tls(credentials)})
    # The caller's identity goes to the app, from the certificate alone, as our inbound side does it.
    named = {
        "request_headers_to_add": [_set_header("x-caller-service", "%DOWNSTREAM_PEER_URI_SAN%")]
    }
    sanitize = {
        "forward_client_cert_details": "SANITIZE_SET",
        "set_current_client_cert_details": {"uri": True},
    }
    peer_facing = _connection_manager([_route("/", policy=False)], [], named, sanitize)
    return (
        _bootstrap(_listener(outbound, plain), to_peer),
        _bootstrap(
            _listener(inbound, peer_facing, _downstream_tls(credentials)),
            _cluster(job.upstream_port, {}),
        ),
    )


def _bootstrap(listener: Message, cluster: Message) -> Message:
    """A whole configuration file."""
    return {"static_resources": {"listeners": [listener], "clusters": [cluster]}}


def _typed(name: str, message_type: str, **fields: Any) -> Message:
    """An extension: its name, and its configuration with the type it needs."""
    return {"name": name, "typed_config": {"@type": message_type, **fields}}


def _address(port: int) -> Message:
    """127.0.0.1 and a port."""
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def _listener(port: int, manager: Message, tls: Message | None = None) -> Message:
    """A listener with one filter chain."""
    chain: Message = {"filters": [manager]}
    if tls is not None:
        chain["transport_socket"] = tls
    return {"name": "bench", "address": _address(port), "filter_chains": [chain]}


def _connection_manager(
    routes: list[Message], filters: list[Message], virtual_host: Message, options: Message
) -> Message:
    """The HTTP connection manager; `virtual_host` and `options` are further fields of theirs."""
    router = _typed("envoy.filters.http.router", f"{_HTTP}.router.v3.Router")
    return _typed(
        "envoy.filters.network.http_connection_manager",
        f"{_NETWORK}.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="bench",
        codec_type="HTTP1",
        route_config={
            "name": "bench",
            "virtual_hosts": [
                {"name": "bench", "domains": ["*"], "routes": routes, **virtual_host}
            ],
        },
        http_filters=[*filters, router],
        **options,
    )


def _route(prefix: str, *, policy: bool) -> Message:
    """A prefix route to the only cluster, with retries where the policy chain is on."""
    action: Message = {"cluster": "upstream", "timeout": _TIMEOUT}
    if policy:
        action["retry_policy"] = {
            "retry_on": "connect-failure,reset-before-request,reset,gateway-error",
            "num_retries": 2,
        }
    # `path_separated_prefix` would be closer to our segment prefix, but it refuses "/".
    return {"match": {"prefix": prefix}, "route": action}


def _cluster(port: int, extra: Message) -> Message:
    """The only cluster, with one endpoint on `port`."""
    endpoint = {"endpoint": {"address": _address(port)}}
    return {
        "name": "upstream",
        "type": "STATIC",
        "lb_policy": "ROUND_ROBIN",
        "connect_timeout": "5s",
        "load_assignment": {
            "cluster_name": "upstream",
            "endpoints": [{"lb_endpoints": [endpoint]}],
        },
        **extra,
    }


def _breakers() -> Message:
    """Thresholds and outlier detection: the numbers of SEMANTICS, "Breakers"."""
    return {
        "circuit_breakers": {
            "thresholds": [
                {
                    "max_connections": 1024,
                    "max_pending_requests": 1024,
                    "max_requests": 1024,
                    "max_retries": 3,
                }
            ]
        },
        "outlier_detection": {
            "consecutive_5xx": 5,
            "consecutive_gateway_failure": 5,
            "interval": "10s",
            "base_ejection_time": "30s",
            "max_ejection_percent": 100,
        },
    }


def _path_rules() -> Message:
    """What we do to every path, which Envoy does when it is to authorise what it forwards."""
    return {
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
    }


def _set_header(name: str, value: str) -> Message:
    """Set a request header, whatever it was before."""
    return {
        "header": {"key": name, "value": value},
        "append_action": "OVERWRITE_IF_EXISTS_OR_ADD",
    }


def _policy_headers() -> Message:
    """The policy version is set, and what only the mesh may say is removed."""
    return {
        "request_headers_to_add": [_set_header("x-policy-version", POLICY_VERSION)],
        "request_headers_to_remove": ["x-caller-service", "x-forwarded-client-cert"],
    }


def _policy_filters(credentials: Credentials) -> list[Message]:
    """The token becomes headers and metadata, and the metadata a decision."""
    provider = {
        "issuer": creds.ISSUER,
        "audiences": [creds.AUDIENCE],
        "local_jwks": {"inline_string": credentials.jwks},
        "forward": True,
        "payload_in_metadata": _PAYLOAD,
        # A header that a caller sent under these names is removed first.
        "claim_to_headers": [
            {"header_name": "x-caller-role", "claim_name": "role"},
            {"header_name": "x-caller-subject", "claim_name": "sub"},
        ],
        "jwt_cache_config": {"jwt_cache_size": 10_000},
    }
    authenticate = _typed(
        _JWT_FILTER,
        f"{_HTTP}.jwt_authn.v3.JwtAuthentication",
        providers={"idp": provider},
        rules=[{"match": {"prefix": "/"}, "requires": {"provider_name": "idp"}}],
    )
    permission = {
        "and_rules": {
            "rules": [
                {"header": {"name": ":method", "string_match": {"exact": "GET"}}},
                {"url_path": {"path": {"prefix": PATH}}},
            ]
        }
    }
    principal = {
        "sourced_metadata": {
            "metadata_matcher": {
                "filter": _JWT_FILTER,
                "path": [{"key": _PAYLOAD}, {"key": "role"}],
                "value": {"string_match": {"exact": creds.ROLE}},
            }
        }
    }
    authorize = _typed(
        "envoy.filters.http.rbac",
        f"{_HTTP}.rbac.v3.RBAC",
        rules={
            "action": "ALLOW",
            "policies": {"managers": {"permissions": [permission], "principals": [principal]}},
        },
    )
    return [authenticate, authorize]


def _tls_context(credentials: Credentials, own: KeyPair, peer: str) -> Message:
    """TLS 1.3 with our SVID; the peer must have the SPIFFE ID `peer`."""
    return {
        "tls_params": {
            "tls_minimum_protocol_version": "TLSv1_3",
            "tls_maximum_protocol_version": "TLSv1_3",
        },
        "tls_certificates": [
            {
                "certificate_chain": {"filename": str(own.certificate)},
                "private_key": {"filename": str(own.key)},
            }
        ],
        "validation_context": {
            "trusted_ca": {"filename": str(credentials.bundle)},
            "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"exact": peer}}],
        },
    }


def _upstream_tls(credentials: Credentials) -> Message:
    """The outbound side of the mutual TLS."""
    return _typed(
        "envoy.transport_sockets.tls",
        f"{_TLS}.UpstreamTlsContext",
        common_tls_context=_tls_context(credentials, credentials.caller, creds.CALLEE),
    )


def _downstream_tls(credentials: Credentials) -> Message:
    """The inbound side of the mutual TLS."""
    return _typed(
        "envoy.transport_sockets.tls",
        f"{_TLS}.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=_tls_context(credentials, credentials.callee, creds.CALLER),
    )
