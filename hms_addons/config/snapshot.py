"""The snapshot: what the hot path reads of the configuration.

Frozen, checked for consistency when it is compiled, and swapped by one assignment: a request keeps
the snapshot it began with. Everything that can be decided once per snapshot is decided in
`config/compile` and found here ready to use. Durations are seconds; names are unique per kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.config.hash_on import HashOn
    from hms_addons.config.policy_condition import Condition
    from hms_addons.config.problems import Place
    from hms_addons.config.route_table import RouteTable
    from hms_addons.config.shaping import Shaping
    from hms_addons.config.snapshot_access_log import AccessLog
    from hms_addons.config.snapshot_forwarding import FallbackStep, Hedge, Mirror
    from hms_addons.config.snapshot_health import AdaptiveConcurrency, HealthCheck, SuccessRate
    from hms_addons.config.snapshot_interception import DnsListener, Intercept
    from hms_addons.config.snapshot_tracing import Tracing


DEFAULT_TIMEOUT: Final = 15.0
"""Seconds that an outbound request may take, all retries included, where no route says otherwise."""


class Direction(StrEnum):
    """Whose traffic a listener takes."""

    OUTBOUND = "outbound"
    """App-facing: the local app's calls to other services."""
    INBOUND = "inbound"
    """Peer-facing: other services' calls to the local app."""


class TlsMode(StrEnum):
    """What an inbound listener asks of its peers."""

    NONE = "none"
    PERMISSIVE = "permissive"
    """A certificate is optional; without one the request has no peer."""
    STRICT = "strict"
    """A certificate of the mesh is required."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on one downstream connection. Sizes are bytes, times seconds; None means no bound."""

    header_bytes: int = 64 * 1024
    header_count: int = 100
    target_bytes: int = 8 * 1024
    max_body: int | None = None
    buffer_limit: int = 1024 * 1024
    head_timeout: float = 10.0
    body_timeout: float = 60.0
    idle_timeout: float = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Circuit breaker thresholds (Envoy's, with its defaults); at most so many at once."""

    max_connections: int = 1024
    max_pending_requests: int = 1024
    max_requests: int = 1024
    max_retries: int = 3
    adaptive: AdaptiveConcurrency | None = None
    """A limit that follows the latency, below `max_requests`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutlierDetection:
    """When an endpoint is ejected, and for how long (Envoy's names)."""

    consecutive_5xx: int = 5
    consecutive_gateway_failure: int = 5
    base_ejection_time: float = 30.0
    max_ejection_time: float = 300.0
    interval: float = 10.0
    max_ejection_percent: int = 100
    success_rate: SuccessRate | None = None
    """None does not compare endpoints with each other."""
    health_check_unejects: bool = True
    """A passed health check ends an ejection: the next request may try."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often, when and how fast an attempt is repeated (SEMANTICS, Retries)."""

    attempts: int = 0
    """Further attempts after the first."""
    per_try_timeout: float | None = None
    on: frozenset[str] = frozenset(
        {"connect-failure", "reset-before-request", "reset", "gateway-error"}
    )
    status_codes: frozenset[int] = frozenset()
    """For the condition `retriable-status-codes`."""
    backoff_base: float = 0.025
    backoff_max: float = 0.25
    retry_non_idempotent: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedCluster:
    """One destination of a route and its relative weight (0: never)."""

    cluster: str
    weight: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a matched request goes, and how.

    The conditions under which it matches are in the listener's `RouteTable`.
    """

    name: str
    """As written, else derived from place and match; unique within the listener."""
    listener: str
    clusters: tuple[WeightedCluster, ...]
    """In order; their weights sum to more than 0. `trafficPolicy` is already worked in.

    Empty where the route answers by itself (`shaping.answer`)."""
    service: str
    """The service this route leads to: what policies' `services` are matched against.

    Empty for an outbound route that answers by itself: it leads to none."""
    timeout: float | None = DEFAULT_TIMEOUT
    retry: RetryPolicy = RetryPolicy()
    thresholds: Thresholds | None = None
    """The route's own limits, on top of its cluster's."""
    default: bool = False
    """Made for a named service that no written route leads to."""
    hash_on: HashOn | None = None
    """What chooses the cluster, where there are several, and the endpoint; over the clusters' own."""
    fallback: tuple[FallbackStep, ...] = ()
    """Ways to an answer in place of a failure, in order."""
    mirrors: tuple[Mirror, ...] = ()
    hedge: Hedge | None = None
    follows_failover: bool = True
    """False: only the cluster itself may have the request."""
    shaping: Shaping | None = None
    """What it does besides: limits, faults, header rules, rewrites, an answer of its own."""

    @property
    def answers(self) -> bool:
        """It answers by itself, so nothing is forwarded."""
        return self.shaping is not None and self.shaping.answer is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSpec:
    """One address of a cluster."""

    host: str
    port: int
    weight: int = 1
    zone: str = ""
    priority: int = 0

    @property
    def address(self) -> str:
        """`host:port`, IPv6 in brackets; the endpoint's name in logs and metrics."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamTls:
    """How a cluster's connections are secured."""

    secret: str
    """The secret whose SVID is shown to the peer and whose bundle its certificate must chain to."""
    peers: frozenset[str]
    """SPIFFE IDs, one of which the peer must have; as strings, `spiffe://domain/svc/name`.

    An entry may be a bare `svc/name` path when the trust domain is the secret's own.
    """


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A group of endpoints that serve the same, and the rules for calling them."""

    name: str
    service: str
    """The service it belongs to: `auth-svc` for `auth-svc-v2`, else its own name."""
    endpoints: tuple[EndpointSpec, ...] = ()
    dns: tuple[EndpointSpec, ...] = ()
    """Host names to be resolved again and again; each address found is an endpoint."""
    load_balancer: str = "round_robin"
    hash_on: HashOn | None = None
    """What a hashing balancer chooses by."""
    slow_start: float = 0.0
    """Seconds in which the weight of a new or returning endpoint grows; 0: it has all of it at once."""
    panic_threshold: int = 0
    """Percent of a level's endpoints; with fewer usable all are used. 0: never."""
    connect_timeout: float = 5.0
    idle_timeout: float = 60.0
    tls: UpstreamTls | None = None
    thresholds: Thresholds = Thresholds()
    outlier_detection: OutlierDetection | None = OutlierDetection()
    """None switches it off."""
    health_check: HealthCheck | None = None
    failover: tuple[str, ...] = ()
    """Clusters that take its requests while it has no usable endpoint, in order: the whole chain."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listener:
    """A port that takes requests."""

    name: str
    host: str
    port: int
    direction: Direction
    tls: TlsMode = TlsMode.NONE
    secret: str | None = None
    """The secret it shows to peers; set unless `tls` is `none`."""
    routes: RouteTable
    """For requests that name no service; first match in order."""
    services: Mapping[str, RouteTable] = field(default_factory=dict)
    """For requests that name a service: the routes that lead to it, then its default route.

    By service, and by cluster where a cluster is not called as its service; names in lower case.
    Empty for an inbound listener. A service that is not here is unknown.
    """
    limits: Limits = Limits()
    propagate_identity: bool = False
    """Outbound: the app's own calls carry on the token of the request that they are made for."""
    intercept: Intercept | None = None
    """Outbound: it also takes calls that were meant for somebody else; None: it does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """Files that hold an SVID, its key, and the trust bundle (PEM; absolute paths)."""

    name: str
    certificate: str
    key: str
    bundle: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Governance:
    """Where the policy version comes from."""

    url: str
    ttl: float = 60.0
    max_stale: float = 600.0
    fail_open: bool = False
    timeout: float = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class JwtProvider:
    """One issuer of tokens, and how its tokens are verified. Exactly one key source is set."""

    name: str
    issuer: str | None = None
    audiences: tuple[str, ...] = ()
    algorithms: tuple[str, ...] = ("RS256",)
    hs256_secret_env: str | None = None
    public_key_file: str | None = None
    jwks_file: str | None = None
    jwks_uri: str | None = None
    jwks_ca_file: str | None = None
    """For an https `jwks_uri`; None: the system's authorities."""
    forward: bool = True
    """Whether its tokens are sent on."""
    role_claim: str = "roles"
    leeway: float = 60.0


class PolicyAction(StrEnum):
    """What a matching policy does."""

    ALLOW = "ALLOW"
    DENY = "DENY"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """An authorisation policy; an empty condition matches anything, several must all match."""

    name: str
    action: PolicyAction
    services: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    """Exact, or a prefix when it ends in `*`."""
    roles: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()
    callers: tuple[str, ...] = ()
    """SPIFFE IDs; a trailing `*` matches any suffix."""
    when: tuple[Condition, ...] = ()
    """Conditions on claims and headers."""
    audit: bool = False
    """It refuses nothing, and tells only what it would have refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditLog:
    """Where authorisation decisions are written."""

    path: str
    """Absolute, or `stdout`."""
    denied_only: bool = False
    """Only what was denied, or would be by a policy of `mode: audit`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rbac:
    """Who issues tokens, and what callers may do."""

    providers: tuple[JwtProvider, ...] = ()
    policies: tuple[Policy, ...] = ()
    role_order: tuple[str, ...] = ()
    """Most senior first; roles not named here come last, in token order."""
    audit_log: AuditLog | None = None
    """None: there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderNames:
    """The headers the mesh owns: removed from whatever comes in, set anew or left unset."""

    policy_version: bytes = b"X-Policy-Version"
    role: bytes = b"X-Caller-Role"
    subject: bytes = b"X-Caller-Subject"
    service: bytes = b"X-Caller-Service"
    governance: tuple[bytes, ...] = ()
    """Further ones that HMS-GOV sets: `governance.headers`."""

    @property
    def all(self) -> tuple[bytes, ...]:
        """All of them, in the spelling that is sent."""
        return (self.policy_version, self.role, self.subject, self.service, *self.governance)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One consistent configuration of a sidecar."""

    version: str
    """Grows with the control plane's revisions; for files, a digest of their content."""
    source: str
    """Where it came from, for people: file names, or the control plane's address."""
    service: str | None = None
    """The service this sidecar stands beside, where configured."""
    trust_domain: str | None = None
    """None: that of the sidecar's own SVID."""
    zone: str = ""
    """Where the sidecar is, as far as the configuration says."""
    listeners: tuple[Listener, ...] = ()
    """Those that take HTTP."""
    dns: tuple[DnsListener, ...] = ()
    clusters: Mapping[str, Cluster] = field(default_factory=dict)
    secrets: Mapping[str, Secret] = field(default_factory=dict)
    governance: Governance | None = None
    rbac: Rbac = Rbac()
    headers: HeaderNames = HeaderNames()
    access_log: AccessLog | None = None
    """None: none is written."""
    tracing: Tracing | None = None
    """None: no spans are recorded."""
    plugins: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """The config's `plugins:` section: options of third-party plugins, by plugin name."""
    places: Mapping[str, Place] = field(default_factory=dict, compare=False, repr=False)
    """Where things were written that can be refused later: see `config.places`."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """The merged configuration as written, for `/config`; it holds no secret values."""

    @property
    def asked_secrets(self) -> set[str]:
        """The secrets that listeners and clusters name, whoever provides them."""
        listeners = {listener.secret for listener in self.listeners if listener.secret}
        return listeners | {c.tls.secret for c in self.clusters.values() if c.tls is not None}
