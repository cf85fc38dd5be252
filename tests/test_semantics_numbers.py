"""The numbers of SEMANTICS as they are written there, not as the code has them.

Other tests take a constant from the code, so they would follow it anywhere. These would not.
"""

from __future__ import annotations

import pytest

from hms_addons.config.snapshot import (
    DEFAULT_TIMEOUT,
    Cluster,
    Governance,
    HeaderNames,
    JwtProvider,
    Limits,
    OutlierDetection,
    RetryPolicy,
    Thresholds,
)
from hms_addons.control import tokens
from hms_addons.control.ca import template
from hms_addons.errors import Fault, Flag
from hms_addons.identity import jwks_uri, jwt_verifier, rotator, spiffe_id, svid
from hms_addons.sidecar import DRAIN_GRACE
from hms_addons.token_bucket import MAX_KEYS
from hms_addons.upstream import circuit_breaker, dns, priority_loads
from hms_addons.upstream.balancers import maglev_table, peak_ewma

KIB = 1024
MIB = 1024 * KIB

LIMITS, THRESHOLDS, OUTLIERS = Limits(), Thresholds(), OutlierDetection()
CLUSTER = Cluster(name="a", service="a")
PROVIDER = JwtProvider(name="p")

NUMBERS: dict[str, tuple[object, object]] = {
    "timeout": (DEFAULT_TIMEOUT, 15),
    "connect_timeout": (CLUSTER.connect_timeout, 5),
    "idle upstream connection": (CLUSTER.idle_timeout, 60),
    "idle downstream": (LIMITS.idle_timeout, 3600),
    "request head": (LIMITS.head_timeout, 10),
    "body without progress": (LIMITS.body_timeout, 60),
    "retries": (RetryPolicy().attempts, 0),
    "backoff": ((RetryPolicy().backoff_base, RetryPolicy().backoff_max), (0.025, 0.25)),
    "retry budget": (circuit_breaker.RETRY_BUDGET, 0.2),
    "buffer_limit": (LIMITS.buffer_limit, MIB),
    "max_connections": (THRESHOLDS.max_connections, 1024),
    "max_pending_requests": (THRESHOLDS.max_pending_requests, 1024),
    "max_requests": (THRESHOLDS.max_requests, 1024),
    "max_retries": (THRESHOLDS.max_retries, 3),
    "consecutive_5xx": (OUTLIERS.consecutive_5xx, 5),
    "consecutive_gateway_failure": (OUTLIERS.consecutive_gateway_failure, 5),
    "base_ejection_time": (OUTLIERS.base_ejection_time, 30),
    "its cap": (OUTLIERS.max_ejection_time, 300),
    "interval": (OUTLIERS.interval, 10),
    "max_ejection_percent": (OUTLIERS.max_ejection_percent, 100),
    "success-rate ejection": (OUTLIERS.success_rate, None),
    "panic_threshold": (CLUSTER.panic_threshold, 0),
    "load_balancer": (CLUSTER.load_balancer, "round_robin"),
    "maglev's table": (maglev_table.SIZE, 65537),
    "ewma's decay": (peak_ewma.DECAY, 10),
    "ewma's first guess": (peak_ewma.FIRST_GUESS, 0.03),
    "overprovisioning": (priority_loads.OVERPROVISIONING, 140),
    "dns floor": (dns.INTERVAL, 5),
    "header block": (LIMITS.header_bytes, 64 * KIB),
    "header fields": (LIMITS.header_count, 100),
    "request target": (LIMITS.target_bytes, 8 * KIB),
    "max_body": (LIMITS.max_body, None),
    "leeway": (PROVIDER.leeway, 60),
    "JWKS cached": (jwks_uri.LIFETIME, 600),
    "tokens cached": (jwt_verifier.CACHE_ENTRIES, 10_000),
    "for": (jwt_verifier.CACHE_SECONDS, 300),
    "max_stale": (Governance(url="http://g").max_stale / Governance(url="http://g").ttl, 10),
    "on_failure": (Governance(url="http://g").fail_open, False),
    "SVID lifetime": (template.DEFAULT_SVID_LIFETIME, 24 * 3600),
    "backdated": (svid.BACKDATE, 60),
    "refresh": (rotator.REFRESH_INTERVAL, 3600),
    "its jitter": (rotator.JITTER, 0.01),
    "its backoff": (rotator.MAX_BACKOFF, 150),
    "SPIFFE ID": (spiffe_id.MAX_SPIFFE_ID_BYTES, 2048),
    "join token": (tokens.DEFAULT_TTL, 600),
    "drain": (DRAIN_GRACE, 30),
    "rate-limit keys": (MAX_KEYS, 10_000),
}


@pytest.mark.parametrize("what", NUMBERS)
def test_it_is_as_promised(what: str) -> None:
    actual, promised = NUMBERS[what]
    assert actual == promised


def test_retries_are_made_by_default_on() -> None:
    assert RetryPolicy().on == {
        "connect-failure",
        "reset-before-request",
        "reset",
        "gateway-error",
    }


def test_the_meshs_headers_are_as_promised() -> None:
    assert HeaderNames().all == (
        b"X-Policy-Version",
        b"X-Caller-Role",
        b"X-Caller-Subject",
        b"X-Caller-Service",
    )


FLAGS = {
    Fault.NO_HEALTHY_UPSTREAM: (503, "UH"),
    Fault.CONNECT_FAILURE: (503, "UF"),
    Fault.OVERFLOW: (503, "UO"),
    Fault.UPSTREAM_RESET: (503, "UC"),
    Fault.TIMEOUT: (504, "UT"),
    Fault.NO_ROUTE: (404, "NR"),
    Fault.UNKNOWN_SERVICE: (404, "NR"),
    Fault.RATE_LIMITED: (429, "RL"),
    Fault.CLIENT_GONE: (499, "DC"),
    Fault.BAD_REQUEST: (400, "DPE"),
    Fault.METHOD_NOT_ALLOWED: (405, "DPE"),
    Fault.BODY_TOO_LARGE: (413, "DPE"),
    Fault.TARGET_TOO_LONG: (414, "DPE"),
    Fault.HEADERS_TOO_LARGE: (431, "DPE"),
    Fault.HEAD_TIMEOUT: (408, "DT"),
    Fault.BODY_TIMEOUT: (408, "SI"),
    Fault.POLICY_DENIED: (403, "RBAC"),
    Fault.TOKEN_INVALID: (401, "JWT"),
    Fault.TOKEN_AUDIENCE: (403, "JWT"),
    Fault.NO_POLICY_VERSION: (503, "GOV"),
    Fault.PLUGIN_ERROR: (500, "PE"),
    Fault.DRAINING: (503, "DRAIN"),
}


@pytest.mark.parametrize("fault", FLAGS)
def test_flags_are_as_promised(fault: Fault) -> None:
    assert fault.value[:2] == FLAGS[fault]
    assert Flag.URX.value == "URX"
