"""What users write about routes: `match` and `action`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from hms_addons.config.schema_balancing import HashOnSetting
from hms_addons.config.schema_base import (
    AlsoAccepts,
    Duration,
    FieldName,
    HostPattern,
    Method,
    Model,
    Name,
    PositiveDuration,
    Regex,
    UrlPath,
    fault,
    shown,
)
from hms_addons.config.schema_forwarding import ForwardedModel
from hms_addons.config.schema_health import AdaptiveModel, switch
from hms_addons.config.schema_shaping import HeaderRulesModel, ShapedModel
from hms_addons.config.schema_values import ValueCondition

type RetryCondition = Literal[
    "connect-failure",
    "refused-stream",
    "reset",
    "reset-before-request",
    "gateway-error",
    "5xx",
    "retriable-4xx",
    "retriable-status-codes",
]


class ThresholdsModel(Model):
    """Circuit breaker thresholds: at most so many at once; past one the answer is 503 `UO`."""

    max_connections: Annotated[int, Field(ge=1)] | None = None
    """Connections to all endpoints together; default 1024."""
    max_pending_requests: Annotated[int, Field(ge=0)] | None = None
    """Requests that wait for a connection; default 1024."""
    max_requests: Annotated[int, Field(ge=1)] | None = None
    """Requests in flight; default 1024."""
    max_retries: Annotated[int, Field(ge=0)] | None = None
    """Retries in flight; default 3."""
    adaptive: Annotated[
        AdaptiveModel | None, BeforeValidator(switch), AlsoAccepts({"type": "boolean"})
    ] = None
    """A limit of requests in flight that follows the latency, below max_requests; off by default."""

    @model_validator(mode="after")
    def _room(self) -> Self:
        least = self.adaptive.least if self.adaptive is not None else 0
        if self.max_requests is not None and least > self.max_requests:
            message = f"max_requests {self.max_requests} is less than adaptive's min_limit {least}"
            raise fault(message, at=("max_requests",), about=(("adaptive", "min_limit"),))
        return self


class MatchModel(Model):
    """Conditions, all of which must hold; none at all matches every request."""

    prefix: UrlPath | None = None
    """The path and all below it, by whole segments: /verify-id, not /verify-identity."""
    path: UrlPath | None = None
    """Exactly this path."""
    regex: Regex | None = None
    """A regular expression for the whole path."""
    host: HostPattern | None = None
    """The request's host, without port; *.example.org for all below it."""
    hosts: Annotated[list[HostPattern], Field(min_length=1)] | None = None
    """Several hosts, any of them."""
    methods: Annotated[list[Method], Field(min_length=1)] | None = None
    """Request methods, any of them."""
    headers: dict[FieldName, ValueCondition] | None = None
    """Header fields by name, in any spelling."""
    query: dict[str, ValueCondition] | None = None
    """Query parameters by name."""

    @model_validator(mode="after")
    def _one_path(self) -> Self:
        written = [name for name in ("prefix", "path", "regex") if getattr(self, name) is not None]
        if len(written) > 1:
            raise fault(f"give one of {' and '.join(written)}, not both", at=(written[1],))
        if self.host is not None and self.hosts is not None:
            raise fault("give host or hosts, not both", at=("hosts",))
        return self

    @property
    def all_hosts(self) -> tuple[str, ...]:
        """The hosts, however they were written."""
        return tuple(self.hosts or ()) + ((self.host,) if self.host is not None else ())


class BackoffModel(Model):
    """How long to wait before retry N: uniform in [0, (2^N - 1) * base), at most max."""

    base: PositiveDuration | None = None
    """Default 25ms."""
    max: PositiveDuration | None = None
    """Default 250ms."""


class RetriesModel(Model):
    """How often, when and how fast an attempt is repeated."""

    attempts: Annotated[int, Field(ge=0, le=100)]
    """Further attempts after the first."""
    per_try_timeout: PositiveDuration | None = None
    """Bounds one attempt up to its response head."""
    on: Annotated[list[RetryCondition], Field(min_length=1)] | None = None
    """When; default connect-failure, reset-before-request, reset, gateway-error."""
    status_codes: list[Annotated[int, Field(ge=400, le=599)]] | None = None
    """For the condition retriable-status-codes."""
    backoff: BackoffModel | None = None
    """How fast."""
    retry_non_idempotent: bool | None = None
    """Repeat POST and the like even if the first attempt may have been carried out."""

    @model_validator(mode="after")
    def _codes(self) -> Self:
        wanted = self.on is not None and "retriable-status-codes" in self.on
        if wanted and not self.status_codes:
            message = "retriable-status-codes needs the list status_codes"
            raise fault(message, at=("on",), about=(("status_codes",),))
        if self.status_codes and self.on is not None and not wanted:
            message = "status_codes counts only with retriable-status-codes in `on`"
            raise fault(message, at=("status_codes",), about=(("on",),))
        return self


def _retries(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"attempts": value}
    if isinstance(value, dict):
        return value
    message = f"expected a number of retries, or a mapping with attempts, not {shown(value)}"
    raise fault(message)


class WeightedClusterModel(Model):
    """One of several destinations."""

    name: str
    """The cluster."""
    weight: Annotated[int, Field(ge=0, le=1_000_000)] = 1
    """Its share, relative to the others'; 0: none."""
    request_headers: HeaderRulesModel | None = None
    """Edits of what is sent to it, before the route's."""
    response_headers: HeaderRulesModel | None = None
    """Edits of its answers, before the route's."""


class ActionModel(ShapedModel, ForwardedModel):
    """Where a matched request goes, and how."""

    cluster: str | None = None
    """The cluster. An inbound listener with `app` may leave it out: the app is meant."""
    clusters: Annotated[list[WeightedClusterModel], Field(min_length=1)] | None = None
    """Several clusters by weight."""
    timeout: Duration | None = None
    """From the end of the request to the end of the response, all retries included; 0: none.

    Default 15s; on an inbound listener none: the caller's sidecar has one."""
    retries: (
        Annotated[
            RetriesModel,
            BeforeValidator(_retries),
            AlsoAccepts({"type": "integer", "minimum": 0, "maximum": 100}),
        ]
        | None
    ) = None
    """How often to try again: a number, or a mapping."""
    circuit_breakers: ThresholdsModel | None = None
    """This route's own thresholds, on top of its cluster's."""
    hash_on: HashOnSetting | None = None
    """Over the cluster's own; with several clusters, requests also keep to one of them."""

    @model_validator(mode="after")
    def _destinations(self) -> Self:
        if self.clusters is None:
            return self
        if self.cluster is not None:
            raise fault("give cluster or clusters, not both", at=("clusters",))
        names = [item.name for item in self.clusters]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise fault(f"the cluster {name} is here twice", at=("clusters", index, "name"))
        if not any(item.weight for item in self.clusters):
            raise fault("all weights are 0: nothing could be sent anywhere", at=("clusters",))
        return self


def _match(value: Any) -> Any:
    return {} if value is None else value


class RouteModel(Model):
    """One route: the first in order whose every condition holds is taken."""

    name: Name | None = None
    """For logs and metrics; otherwise made from the match."""
    match: Annotated[MatchModel, BeforeValidator(_match)] = MatchModel.model_construct()
    """Which requests; all, if it is left out."""
    action: ActionModel
    """What to do with them."""

    @model_validator(mode="after")
    def _prefix(self) -> Self:
        """A prefix is replaced where one is matched."""
        match = self.match
        other = "path" if match.path is not None else "regex" if match.regex is not None else None
        if other is None:
            return self
        for key in ("rewrite", "redirect"):
            model = getattr(self.action, key)
            if model is not None and model.prefix is not None:
                message = (
                    f"replaces the prefix that `match.prefix` names, and here `match.{other}` stands "
                    "instead; give `path`, or match a prefix"
                )
                about = (("match", other), ("match", "prefix"))
                raise fault(message, at=("action", key, "prefix"), about=about)
        return self
