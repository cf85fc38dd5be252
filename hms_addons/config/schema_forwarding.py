"""What users write about forwarding beyond one cluster: fallbacks, mirrors, hedged requests."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from hms_addons.config.schema_base import (
    FieldName,
    Model,
    Name,
    PositiveDuration,
    fault,
    parse_duration,
    shown,
)

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

type FallbackCondition = Literal[
    "no-healthy-upstream",
    "connect-failure",
    "overflow",
    "reset",
    "timeout",
    "gateway-error",
    "5xx",
]

MAX_BODY: Final = 64 * 1024
"""Bytes of a fixed answer."""
_KINDS: Final = ("cluster", "response", "stale", "plugin")
_BODYLESS: Final = frozenset({204, 205, 304})
_QUANTILE = re.compile(r"p([0-9]{2}(?:\.[0-9]{1,2})?)")
_OURS: Final = frozenset(
    {"content-length", "transfer-encoding", "connection", "upgrade", "x-hms-fallback", "x-hms-flag"}
)


class _OrOne:
    """Marks a list that may be left away around a single item, for the JSON Schema."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        return {"anyOf": [schema["items"], schema]}


def _listed(value: object) -> object:
    return [value] if isinstance(value, dict) else value


def _field_name(name: str) -> str:
    if name.lower() in _OURS:
        raise fault(f"{name} is written by the mesh itself")
    return name


def _field_value(value: str) -> str:
    if any(ord(char) < 32 and char != "\t" for char in value) or not value.isascii():  # noqa: PLR2004 - control characters
        raise fault("a header field's value is printable ASCII, without line breaks")
    return value


class FallbackResponseModel(Model):
    """A fixed answer."""

    status: Annotated[int, Field(ge=200, le=599)] | None = None
    """Default 200."""
    body: str | None = None
    """Sent as UTF-8; at most 64 KiB."""
    headers: (
        dict[
            Annotated[FieldName, AfterValidator(_field_name)],
            Annotated[str, AfterValidator(_field_value)],
        ]
        | None
    ) = None
    """Further fields. Content-Type is text/plain where a body comes without one."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        size = len((self.body or "").encode("utf-8", "surrogatepass"))
        if size and self.status in _BODYLESS:
            raise fault(f"an answer with {self.status} has no body", at=("body",))
        if size > MAX_BODY:
            raise fault(f"the body has {size} bytes, more than {MAX_BODY}", at=("body",))
        return self


class FallbackModel(Model):
    """An answer in place of a failure: exactly one of cluster, response, stale and plugin.

    It carries `X-HMS-Fallback` and the flag FB. A request that was refused (policy, token, rate limit)
    gets none.
    """

    cluster: str | None = None
    """Another cluster of the same service answers; tried once. A request that may have been executed
    is sent there only if it may be repeated, as with retries."""
    timeout: PositiveDuration | None = None
    """For that cluster; default what is left of the route's."""
    response: FallbackResponseModel | None = None
    """A fixed answer."""
    stale: PositiveDuration | None = None
    """The last good (2xx) answer to the same GET (without a body) of the same caller, if it is not older
    than this, and no other answer (404, 403) has come since.

    Kept in memory, of bodies up to 1 MiB, or 64 KiB where they come without a length; never what the service forbids to store (no-store, private,
    no-cache, must-revalidate, Vary: *, Set-Cookie)."""
    plugin: Name | None = None
    """The `hms_fallback` of this plugin."""
    on: Annotated[list[FallbackCondition], Field(min_length=1)] | None = None
    """When; default all of these but `5xx`. gateway-error and 5xx are answers of the service, after
    all retries; the others are failures to get one."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        kinds = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if len(kinds) != 1:
            about = tuple((kind,) for kind in _KINDS)
            message = "give exactly one of cluster, response, stale and plugin"
            hint = "; for several in order write a list" if kinds else ""
            raise fault(f"{message}{hint}", about=about)
        if self.timeout is not None and self.cluster is None:
            message = "timeout counts only with cluster"
            raise fault(message, at=("timeout",), about=(("cluster",),))
        return self


class MirrorModel(Model):
    """A copy of requests goes to another cluster, whose answers are dropped.

    It carries what the request does, the caller's token and cookies included, so that cluster must be as
    trustworthy as the service itself (`forward: false` of a token's provider keeps that one back).
    The copy has `X-HMS-Mirror: 1`, and `-shadow` after its Host's name. It never slows the original: if
    the cluster's breaker has no room it is left out, and so is a request with a streaming body.
    """

    cluster: str
    """A cluster of the same service that is not the route's own."""
    percent: Annotated[float, Field(gt=0, le=100)] | None = None
    """Of the requests; default 100."""
    timeout: PositiveDuration | None = None
    """For the copy; default the route's."""


def _after(value: object) -> object:
    if isinstance(value, str) and value.startswith("p"):
        if _QUANTILE.fullmatch(value) is None:
            raise fault(f"expected a quantile such as p95 or p99.9, not {shown(value)}")
        return value
    seconds = parse_duration(value)
    if seconds <= 0:
        raise fault("must be more than 0")
    return seconds


def quantile(after: str) -> float:
    """0.95 of `p95`."""
    return float(after.removeprefix("p")) / 100


class HedgeModel(Model):
    """A second try at another endpoint when the first is slow; the first good answer counts.

    For GET, HEAD and OPTIONS without a body, within the retry budget.
    """

    after: (
        Annotated[
            float | str,
            BeforeValidator(_after),
            WithJsonSchema({"type": "string", "examples": ["p95", "50ms"]}),
        ]
        | None
    ) = None
    """A duration, or a quantile of how long this route's answers take (known after 100 of them);
    default p95."""
    max: Annotated[int, Field(ge=1, le=3)] | None = None
    """Further tries at once; default 1."""


class ForwardedModel(Model):
    """The part of an action that says what to do besides forwarding once."""

    fallback: (
        Annotated[list[FallbackModel], Field(min_length=1), BeforeValidator(_listed), _OrOne()]
        | None
    ) = None
    """An answer in place of a failure; several are tried in order."""
    mirror: (
        Annotated[list[MirrorModel], Field(min_length=1), BeforeValidator(_listed), _OrOne()] | None
    ) = None
    """Copies of requests, for another cluster."""
    hedge: HedgeModel | None = None
    """A second try beside a slow first one."""

    @property
    def forwards_specially(self) -> bool:
        """Any of them is written."""
        return not (self.fallback is None and self.mirror is None and self.hedge is None)


def cluster_references(action: dict[str, Any]) -> list[tuple[tuple[str | int, ...], str]]:
    """The clusters that an action's fallbacks and mirrors name, as written, and where."""
    found: list[tuple[tuple[str | int, ...], str]] = []
    for key in ("fallback", "mirror"):
        written = action.get(key)
        items = written if isinstance(written, list) else [written]
        for index, item in enumerate(items):
            if isinstance(item, dict) and isinstance(name := item.get("cluster"), str):
                place = (key, index) if isinstance(written, list) else (key,)
                found.append(((*place, "cluster"), name))
    return found
