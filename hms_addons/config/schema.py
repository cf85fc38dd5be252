"""What users write: the sections of a configuration, as pydantic models.

The JSON Schema in `configs/` is made from these, and their docstrings are its descriptions. A value
that is left out is None here; its default is the snapshot's, so each is written down once.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.schema_access_log import AccessLogModel, access_log_or_not
from hms_addons.config.schema_balancing import HashOnSetting
from hms_addons.config.schema_base import (
    MAX_PORT,
    AlsoAccepts,
    Duration,
    Model,
    Name,
    PositiveDuration,
    Size,
    SpiffeIdText,
    TrustDomain,
    fault,
    parse_address,
    shown,
)
from hms_addons.config.schema_health import HealthCheckModel, OutlierDetectionModel, switch
from hms_addons.config.schema_interception import DnsModel, Kind, UnmatchedWord, check_kind
from hms_addons.config.schema_policies import GovernanceModel, HeadersModel, RbacModel
from hms_addons.config.schema_routes import RouteModel, ThresholdsModel
from hms_addons.config.schema_shaping import HeaderRulesModel, RateLimits
from hms_addons.config.schema_tracing import TracingModel

_TRAFFIC_POLICY = re.compile(r"weight\s*=\s*([0-9]{1,9})\s*%?")


def _app(value: str) -> str:
    address = value.removeprefix("http://").removesuffix("/")
    if "://" in address or "/" in address:
        message = f"expected the app's address, as http://127.0.0.1:8080, not {shown(value)}"
        raise fault(f"{message} (plain HTTP, without a path)")
    parse_address(address)
    return address


class LimitsModel(Model):
    """Bounds on one connection from a caller."""

    header_bytes: Size | None = None
    """Request line and header block; default 64KiB, past it 431."""
    header_count: Annotated[int, Field(ge=1)] | None = None
    """Header fields; default 100, past it 431."""
    target_bytes: Size | None = None
    """Request target; default 8KiB, past it 414."""
    max_body: Size | None = None
    """Request body; default no bound, past it 413."""
    buffer_limit: Size | None = None
    """Bodies up to this are held, so that they can be changed and replayed; default 1MiB."""
    head_timeout: PositiveDuration | None = None
    """For a request head to arrive; default 10s, past it 408."""
    body_timeout: PositiveDuration | None = None
    """For a body to make progress; default 60s, past it 408."""
    idle_timeout: PositiveDuration | None = None
    """For a connection between requests; default 1h."""


class ListenerModel(Model):
    """A port that takes requests."""

    name: Name
    """For logs and metrics; also what several files merge by."""
    kind: Kind | None = None
    """http, the default: for calls that are sent here. transparent: outbound; also takes calls that the machine leads
    here wherever they were meant to go (`hms iptables`). dns: answers DNS queries by UDP and TCP: the mesh's
    names with the sidecar's address."""
    host: Annotated[str, Field(min_length=1)] | None = None
    """Address to bind; default 127.0.0.1 for outbound, 0.0.0.0 for inbound."""
    port: Annotated[int, Field(ge=0, le=MAX_PORT)]
    """Port to bind; 0 picks a free one."""
    services: Annotated[list[Name], Field(min_length=1)] | None = None
    """Whose sidecars have this listener, in a configuration for several; default all."""
    direction: Literal["outbound", "inbound"] = "outbound"
    """outbound takes the local app's calls, inbound takes other services' calls to it."""
    tls: Literal["none", "permissive", "strict"] | None = None
    """Inbound: whether callers need a certificate of the mesh; default none (plain text)."""
    secret: str | None = None
    """Inbound with TLS: the certificate shown to callers; may be left out if there is only one."""
    app: Annotated[str, AfterValidator(_app)] | None = None
    """Inbound: the local app, which gets what no route takes."""
    routes: list[RouteModel] = []
    """In order; the first that matches is taken."""
    limits: LimitsModel | None = None
    """Bounds on connections and requests."""
    propagate_identity: bool | None = None
    """Outbound: a call of the app's without `Authorization` carries on the token of the inbound request that is
    in flight with the same `X-Request-ID`, or trace ID (`traceparent`), and is judged by it. None is attached
    where requests of different callers have the same one. Default false."""
    rate_limit: RateLimits | None = None
    """Bounds on how many requests are let through, besides those of the route taken."""
    request_headers: HeaderRulesModel | None = None
    """Edits of all that is sent on, after the route's."""
    response_headers: HeaderRulesModel | None = None
    """Edits of all answers, after the route's."""
    unmatched: UnmatchedWord | None = None
    """What becomes of what is not the mesh's. transparent: refuse (the default) answers 502, original sends it on
    to where it was meant to go, without the mesh's headers. dns: original (the default) asks the system's
    resolvers, refuse answers REFUSED. A NAME.svc that is not known is never passed on."""
    dns: DnsModel | None = None
    """Of a listener of kind: dns."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not check_kind(self):
            return self
        if self.direction == "outbound":
            for key in ("app", "secret"):
                if getattr(self, key) is not None:
                    message = f"{key} belongs to an inbound listener; add direction: inbound"
                    raise fault(message, at=(key,), about=(("direction",),))
            if self.tls not in {None, "none"}:
                message = "an outbound listener is plain: only the local app calls it"
                about: tuple[tuple[str | int, ...], ...] = (("direction",),)
                raise fault(message, at=("tls",), suggestion="direction: inbound", about=about)
        elif self.propagate_identity:
            message = "it is about the app's own calls, which outbound listeners take"
            raise fault(message, at=("propagate_identity",), about=(("direction",),))
        elif self.app is None and not self.routes:
            message = "an inbound listener needs `app`, the local app's address, or routes"
            raise fault(message, about=(("direction",), ("app",), ("routes",)), lacks=("app",))
        elif self.secret is not None and self.tls in {None, "none"}:
            message = "a secret is used only with tls: strict or permissive"
            raise fault(message, at=("secret",), about=(("tls",), ("direction",)))
        if self.app is None:
            for index, route in enumerate(self.routes):
                action = route.action
                if action.cluster is None and action.clusters is None and not action.answers:
                    message = "needs `cluster` or `clusters`: where do these requests go?"
                    at = ("routes", index, "action")
                    leading = ("cluster", "clusters", "redirect", "direct_response")
                    about = (("app",), *((*at, key) for key in leading))
                    raise fault(message, at=at, about=about, lacks=(*at, "cluster"))
        return self


class EndpointModel(Model):
    """One address of a cluster."""

    address: str
    """host:port, IPv6 in brackets."""
    weight: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Its share, relative to the others'; default 1."""
    zone: Annotated[str, Field(max_length=128)] | None = None
    """Where it is; those of a sidecar's own zone come first, within a priority."""
    priority: Annotated[int, Field(ge=0, le=100)] | None = None
    """0 (the default) is used first; 1 takes over when less than 72% of those can be used, in
    proportion, and so on."""

    @model_validator(mode="after")
    def _address(self) -> Self:
        parse_address(self.address)
        return self


def _endpoint(value: object) -> object:
    if isinstance(value, str):
        return {"address": value}
    if isinstance(value, dict):
        return value
    message = f"expected host:port or a mapping with address, not {shown(value)}"
    raise fault(message)


def _some(value: object) -> object:
    return [value] if isinstance(value, str | dict) else value


type Endpoint = Annotated[
    EndpointModel, BeforeValidator(_endpoint), AlsoAccepts({"type": "string"})
]


class TlsContextModel(Model):
    """Mutual TLS to a cluster's endpoints."""

    sds: Annotated[str, Field(min_length=1)]
    """The secret whose certificate is shown and whose bundle endpoints are checked against."""
    peer: SpiffeIdText | None = None
    """The SPIFFE ID that endpoints must have; default the service's in this trust domain."""
    peers: Annotated[list[SpiffeIdText], Field(min_length=1)] | None = None
    """Several, any of them."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.peer is not None and self.peers is not None:
            raise fault("give peer or peers, not both", at=("peers",))
        return self


class TrafficPolicyModel(Model):
    """A canary's share."""

    weight: Annotated[int, Field(ge=0, le=100)]
    """Percent of what routes to the base."""


def _traffic_policy(value: object) -> object:
    if isinstance(value, str) and (found := _TRAFFIC_POLICY.fullmatch(value.strip())):
        return {"weight": int(found[1])}
    if isinstance(value, dict):
        return value
    raise fault(f"expected weight=10 or a mapping with weight, not {shown(value)}")


class ClusterModel(Model):
    """A group of endpoints that serve the same, and the rules for calling them."""

    name: Name
    """What routes call it; also what several files merge by."""
    service: Name | None = None
    """The service it belongs to; default its name without -vN."""
    endpoints: list[Endpoint] = []
    """Addresses."""
    dns: (
        Annotated[list[Endpoint], BeforeValidator(_some), AlsoAccepts({"type": "string"})] | None
    ) = None
    """host:port, looked up again and again; every address found is an endpoint."""
    load_balancer: Name | None = None
    """round_robin (the default), least_request, random, ewma, ring_hash, maglev, or a plugin's.

    With `hash_on` the default is ring_hash."""
    hash_on: HashOnSetting | None = None
    """What ring_hash and maglev choose by; a route's own goes over it."""
    slow_start: Duration | None = None
    """The weight of a new or returning endpoint grows from 10% to all of it for so long; default 0."""
    panic_threshold: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent: with fewer endpoints usable all are used, ejected ones too; default 0, never."""
    connect_timeout: PositiveDuration | None = None
    """TLS included; default 5s."""
    idle_timeout: Duration | None = None
    """For a pooled connection; keep it below the server's own; default 60s."""
    tls_context: TlsContextModel | None = None
    """Mutual TLS; without it the connection is plain text."""
    circuit_breakers: ThresholdsModel | None = None
    """Thresholds; past one the answer is 503."""
    outlier_detection: Annotated[
        OutlierDetectionModel | None,
        BeforeValidator(switch),
        AlsoAccepts({"type": "boolean"}),
    ] = None
    """When an endpoint is taken out; false switches it off."""
    health_check: HealthCheckModel | None = None
    """Asks endpoints whether they are well, off the request path."""
    failover: str | None = None
    """The cluster that takes its requests while it has no usable endpoint, if that has one; else that
    cluster's own failover, and so on. It must belong to the same service."""
    trafficPolicy: (  # noqa: N815 - the seed's spelling
        Annotated[
            TrafficPolicyModel,
            BeforeValidator(_traffic_policy),
            AlsoAccepts({"type": "string", "pattern": r"^weight=[0-9]+%?$"}),
        ]
        | None
    ) = None
    """Makes it a canary: weight=10 is 10% of what routes to its service."""


class SecretModel(Model):
    """Files that hold an SVID, its key and the trust bundle, in PEM, relative to this file."""

    certificate: Annotated[str, Field(min_length=1)]
    """The SVID, then any intermediates."""
    key: Annotated[str, Field(min_length=1)]
    """Its private key."""
    bundle: Annotated[str, Field(min_length=1)]
    """The roots that peers must chain to."""


class Config(Model):
    """A sidecar's configuration."""

    trust_domain: TrustDomain | None = None
    """The mesh's SPIFFE trust domain; default that of the sidecar's own certificate."""
    service: Name | None = None
    """The service that this sidecar stands beside."""
    zone: Annotated[str, Field(max_length=128)] | None = None
    """Where this sidecar is: endpoints of the same zone come first; --zone and HMS_ZONE go over it."""
    listeners: list[ListenerModel] = []
    """Ports that take requests."""
    clusters: list[ClusterModel] = []
    """Where requests can go."""
    secrets: dict[Name, SecretModel] = {}
    """Certificates by name; the control plane provides those that are not here."""
    governance: GovernanceModel | None = None
    """The policy version header."""
    rbac: RbacModel = RbacModel.model_construct()
    """Tokens, roles and policies."""
    headers: HeadersModel | None = None
    """Names of the headers that the mesh owns."""
    access_log: Annotated[
        AccessLogModel | None,
        BeforeValidator(access_log_or_not),
        AlsoAccepts({"type": "boolean"}),
    ] = None
    """A line for each request; true for the default one."""
    tracing: TracingModel | None = None
    """Spans, sent to an OpenTelemetry collector."""
    plugins: dict[str, dict[str, Any]] = {}
    """Options of third-party plugins, by plugin name."""
