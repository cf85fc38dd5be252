"""What users write about health: checks, outlier detection, adaptive concurrency."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.schema_base import (
    AlsoAccepts,
    FieldName,
    Method,
    Model,
    PositiveDuration,
    fault,
    shown,
)
from hms_addons.config.snapshot_health import AdaptiveConcurrency

_ADAPTIVE = AdaptiveConcurrency()
_STATUSES = re.compile(r"([1-5][0-9]{2})(?:\s*-\s*([1-5][0-9]{2}))?")
_TARGET = re.compile(r"/[!-\"$-~]*")
_FIELD_VALUE = re.compile(r"[!-~]([\t -~]*[!-~])?|")
_OWN_FIELDS = frozenset({"host", "connection", "content-length", "transfer-encoding", "upgrade"})
_HTTP_ONLY = ("method", "host", "statuses", "headers")


def _target(value: str) -> str:
    if not _TARGET.fullmatch(value):
        raise fault(
            f"expected a path such as /health or /health?deep=1 in visible ASCII, not {shown(value)}",
            suggestion=None if value.startswith("/") else f"/{value}",
        )
    return value


def _statuses(value: object) -> object:
    """Each item as a pair of numbers; one item stands for a list."""
    items = value if isinstance(value, list) else [value]
    return [_status_range(item) for item in items]


def _status_range(item: object) -> tuple[int, int]:
    text = str(item) if isinstance(item, int) and not isinstance(item, bool) else item
    found = _STATUSES.fullmatch(text.strip()) if isinstance(text, str) else None
    if found is None:
        raise fault(f"expected a status or a range, as 204 or 200-299, not {shown(item)}")
    first, last = int(found[1]), int(found[2] or found[1])
    if last < first:
        raise fault(f"the range {first}-{last} is empty", suggestion=f"{last}-{first}")
    return first, last


def _field_value(value: str) -> str:
    if not _FIELD_VALUE.fullmatch(value):
        raise fault(f"{shown(value)} cannot be the value of a header field")
    return value


_STATUSES_SCHEMA = (
    {"type": "integer", "minimum": 100, "maximum": 599},
    {"type": "string", "pattern": "^[1-5][0-9]{2}( *- *[1-5][0-9]{2})?$"},
)


class HealthCheckModel(Model):
    """Asks every endpoint at intervals whether it is well: an HTTP request, or a mere connection.

    Checks take no part in the thresholds, go over the cluster's own mutual TLS, and each makes a
    connection of its own, as a request that finds no idle one does. The first check of an endpoint is made
    at once and decides alone; until then the endpoint is used only if no other is known to be healthy.
    """

    path: Annotated[str, AfterValidator(_target)] | None = None
    """The path (and query) to ask for, as /health."""
    tcp: bool | None = None
    """true: that a connection can be made (TLS included) is enough; instead of `path`."""
    interval: PositiveDuration | None = None
    """From one check to the next; default 5s."""
    jitter: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent by which an interval may be longer, drawn anew each time; default 10."""
    timeout: PositiveDuration | None = None
    """For a whole check, connecting included; default 1s."""
    unhealthy: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Failed checks in a row, of whatever kind, that take an endpoint out; default 3."""
    healthy: Annotated[int, Field(ge=1, le=1000)] | None = None
    """Passed checks in a row that take it back; default 2."""
    method: Method | None = None
    """Default GET."""
    host: Annotated[str, Field(min_length=1), AfterValidator(_field_value)] | None = None
    """The Host that is asked for; default the cluster's service."""
    statuses: (
        Annotated[
            list[tuple[int, int]],
            BeforeValidator(_statuses),
            Field(
                min_length=1,
                json_schema_extra={
                    "anyOf": [
                        *_STATUSES_SCHEMA,
                        {"type": "array", "items": {"anyOf": list(_STATUSES_SCHEMA)}},
                    ],
                    "examples": ["200-299", [200, 204]],
                },
            ),
        ]
        | None
    ) = None
    """Answers of a healthy endpoint, as 200-299 (the default) or [200, 204, 300-399]."""
    headers: dict[FieldName, Annotated[str, AfterValidator(_field_value)]] | None = None
    """Header fields to send with each check."""

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if self.tcp:
            for key in ("path", *_HTTP_ONLY):
                if getattr(self, key) is not None:
                    message = f"{key} belongs to an HTTP check; leave it out, or tcp: true"
                    raise fault(message, at=(key,), about=(("tcp",),))
        elif self.path is None:
            message = "needs `path`, as /health, or tcp: true"
            raise fault(message, about=(("tcp",), ("path",)), lacks=("path",))
        if self.method == "CONNECT":
            message = "CONNECT cannot be a check; use tcp: true to see whether one can connect"
            raise fault(message, at=("method",))
        for name in self.headers or ():
            if name.lower() in _OWN_FIELDS:
                remedy = "use `host`" if name.lower() == "host" else "leave it out"
                raise fault(f"{name} is set by the check itself; {remedy}", at=("headers", name))
        return self


class SuccessRateModel(Model):
    """Ejects endpoints that succeed far less often than the others; off unless it is here.

    At each `interval` the shares of successes (anything but 5xx, lost connections and timeouts) of the
    endpoints with enough requests are compared. The last healthy endpoint is never ejected by it.
    """

    minimum_hosts: Annotated[int, Field(ge=2)] | None = None
    """Endpoints with enough requests that there must be; default 5."""
    request_volume: Annotated[int, Field(ge=1)] | None = None
    """Requests to an endpoint in an interval that are enough; default 100."""
    stdev_factor: Annotated[float, Field(gt=0, le=100, strict=False)] | None = None
    """Standard deviations below the mean that are too many; default 1.9."""


def switch(value: object) -> object:
    """`true` stands for a mapping with all defaults, `false` for none."""
    if value is True:
        return {}
    if value is False or isinstance(value, dict):
        return None if value is False else value
    raise fault(f"expected a mapping, or false to switch it off, not {shown(value)}")


class OutlierDetectionModel(Model):
    """When an endpoint is taken out, and for how long."""

    consecutive_5xx: Annotated[int, Field(ge=1)] | None = None
    """Answers of 500 and above in a row; default 5."""
    consecutive_gateway_failure: Annotated[int, Field(ge=1)] | None = None
    """502, 503, 504, failed connections and timeouts in a row; default 5."""
    base_ejection_time: PositiveDuration | None = None
    """Times the number of ejections in a row; default 30s."""
    max_ejection_time: PositiveDuration | None = None
    """Default 300s."""
    interval: PositiveDuration | None = None
    """Healthy for so long takes one step back; success rates are compared as often. Default 10s."""
    max_ejection_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Share of endpoints that may be out at once; default 100."""
    success_rate: Annotated[
        SuccessRateModel | None, BeforeValidator(switch), AlsoAccepts({"type": "boolean"})
    ] = None
    """Compares the endpoints with each other; off by default, true switches it on."""
    successful_active_health_check_uneject_host: bool | None = None
    """Whether a passed `health_check` ends an ejection early: the next request may try; default true."""


class MinRttModel(Model):
    """How the ideal latency is measured: with few requests in flight."""

    interval: PositiveDuration | None = None
    """Between measurements; default 60s."""
    requests: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests that a measurement takes; default 50."""
    jitter: Annotated[int, Field(ge=0, le=100)] | None = None
    """Percent by which the interval may be longer; default 15."""
    buffer: Annotated[int, Field(ge=0, le=1000)] | None = None
    """Percent by which latency may be above the ideal before it counts; default 25."""


class AdaptiveModel(Model):
    """A limit of requests in flight that follows the latency (Envoy's gradient controller).

    While latency stays near the ideal the limit grows, and when it rises the limit shrinks. The ideal is
    measured now and then, with no more than `min_limit` in flight; meanwhile what is more is refused.
    """

    percentile: Annotated[int, Field(ge=1, le=99)] | None = None
    """Of the latencies of a window, the one that is compared; default 90."""
    update_interval: PositiveDuration | None = None
    """Length of a window; default 100ms."""
    min_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The limit never is below; default 3."""
    max_limit: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """The limit never is above; default 1000."""
    min_rtt: MinRttModel | None = None
    """How the ideal latency is measured."""

    @model_validator(mode="after")
    def _range(self) -> Self:
        least, most = self.least, self.max_limit or _ADAPTIVE.max_limit
        if least > most:
            at = "min_limit" if self.min_limit is not None else "max_limit"
            message = f"min_limit {least} is more than max_limit {most}"
            raise fault(message, at=(at,), about=(("min_limit",), ("max_limit",)))
        return self

    @property
    def least(self) -> int:
        """`min_limit`, or its default."""
        return self.min_limit or _ADAPTIVE.min_limit
