"""What users write about traffic shaping: limits, faults, header rules, rewrites, own answers."""

from __future__ import annotations

import re
from typing import Annotated, Final, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.header_edits import why_not_name, why_not_value
from hms_addons.config.schema_base import (
    MAX_PORT,
    AlsoAccepts,
    FieldName,
    HostPattern,
    Model,
    Name,
    OrOneItem,
    PositiveDuration,
    UrlPath,
    fault,
    parse_address,
    parse_duration,
    shown,
)
from hms_addons.config.schema_values import ValueCondition

MAX_DIRECT_BODY: Final = 64 * 1024
"""Bytes of a direct response's body."""
_BODYLESS: Final = frozenset({204, 205, 304})
_BY = re.compile(r"caller|role|subject|route|header:[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _editable(name: str) -> str:
    reason = why_not_name(name)
    if reason is not None:
        raise fault(reason)
    return name


def _value(value: str) -> str:
    reason = why_not_value(value)
    if reason is not None:
        raise fault(reason)
    return value


def _one_or_many(value: object) -> object:
    return [value] if isinstance(value, str) else value


type EditableName = Annotated[FieldName, AfterValidator(_editable)]
"""The name of a field that a rule may touch."""
type FieldValue = Annotated[str, AfterValidator(_value)]
"""The value of a field, as it is sent."""
type Percent = Annotated[float, Field(ge=0, le=100)]
"""A share of the requests, in percent."""


class HeaderRulesModel(Model):
    """Edits of header fields: removed first, then set, then added."""

    set: dict[EditableName, FieldValue] | None = None
    """Replaces every field of that name, or makes it."""
    add: (
        dict[
            EditableName,
            Annotated[
                list[FieldValue],
                Field(min_length=1),
                BeforeValidator(_one_or_many),
                AlsoAccepts({"type": "string"}),
            ],
        ]
        | None
    ) = None
    """Comes after the fields of that name that are there; a list adds several."""
    remove: list[EditableName] | None = None
    """Takes out every field of that name."""

    @model_validator(mode="after")
    def _once(self) -> Self:
        seen: dict[str, str] = {}
        for key, names in (("set", self.set), ("add", self.add), ("remove", self.remove)):
            for index, name in enumerate(names or ()):
                if name.lower() in seen:
                    first = seen[name.lower()]
                    also = "twice" if first == key else f"under {first}, too"
                    at = (key, name) if key != "remove" else (key, index)
                    raise fault(f"{name} is here {also}; say once what is to become of it", at=at)
                seen[name.lower()] = key
        if not seen:
            about = (("set",), ("add",), ("remove",))
            raise fault("nothing is edited; give set, add or remove", about=about)
        return self


def _authority(value: str) -> str:
    if re.fullmatch(r".*[A-Za-z0-9\]]:[0-9]+", value):
        parse_address(value)
        return value
    parse_address(f"{value}:1")
    return value


class RewriteModel(Model):
    """What a request is sent as. The query stays. Policies judge the path as it is sent."""

    prefix: UrlPath | None = None
    """Stands in place of the prefix that `match.prefix` names, by whole segments; / strips it."""
    path: UrlPath | None = None
    """Stands in place of the whole path."""
    host: Annotated[str, AfterValidator(_authority)] | None = None
    """Stands in place of Host; X-Forwarded-Host keeps what the caller sent."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.prefix is not None and self.path is not None:
            raise fault("give prefix or path, not both", at=("path",))
        if not self.given():
            about = (("prefix",), ("path",), ("host",))
            raise fault("nothing is rewritten; give prefix, path or host", about=about)
        return self


class RedirectModel(Model):
    """An answer that sends the caller elsewhere. What is left out stays as in the request.

    The port is the one given, else the named scheme's, else the one in the request's Host, else the
    listener's; it is left out of Location where it is the scheme's default. The query is kept.
    """

    scheme: Literal["http", "https"] | None = None
    """Of the new URL."""
    host: HostPattern | None = None
    """Of the new URL, without port."""
    port: Annotated[int, Field(ge=1, le=MAX_PORT)] | None = None
    """Of the new URL."""
    path: UrlPath | None = None
    """Stands in place of the whole path."""
    prefix: UrlPath | None = None
    """Stands in place of the prefix that `match.prefix` names, by whole segments."""
    status: Literal[301, 302, 303, 307, 308] | None = None
    """Default 302: a permanent one is hard to take back."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.prefix is not None and self.path is not None:
            raise fault("give prefix or path, not both", at=("prefix",))
        if self.host is not None and self.host.startswith("*"):
            raise fault("a redirect leads to one host, not to a pattern", at=("host",))
        return self


class DirectResponseModel(Model):
    """A fixed answer."""

    status: Annotated[int, Field(ge=200, le=599)]
    """Of the answer."""
    body: str | None = None
    """Sent as UTF-8; at most 64 KiB. A HEAD request gets the headers only."""
    headers: dict[EditableName, FieldValue] | None = None
    """Further fields. Content-Type is text/plain where a body comes without one."""

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        size = len((self.body or "").encode())
        if size and self.status in _BODYLESS:
            raise fault(f"an answer with {self.status} has no body", at=("body",))
        if size > MAX_DIRECT_BODY:
            raise fault(f"the body has {size} bytes, more than {MAX_DIRECT_BODY}", at=("body",))
        return self


class DelayModel(Model):
    """Some requests wait before they are forwarded."""

    duration: PositiveDuration
    """How long."""
    percent: Percent | None = None
    """Of the requests; default the fault's."""


class AbortModel(Model):
    """Some requests are answered instead of being forwarded; the route's `fallback` is not asked."""

    status: Annotated[int, Field(ge=200, le=599)]
    """Of the answer."""
    percent: Percent | None = None
    """Of the requests; default the fault's."""

    @model_validator(mode="after")
    def _with_body(self) -> Self:
        if self.status in _BODYLESS:
            message = f"an abort says in its body why, and an answer with {self.status} has none"
            raise fault(message, at=("status",))
        return self


def _delay(value: object) -> object:
    if isinstance(value, dict):
        return value
    parse_duration(value)  # here, so that a mistake is told of where it was written
    return {"duration": value}


def _abort(value: object) -> object:
    if isinstance(value, int) and not isinstance(value, bool):
        return {"status": value}
    if isinstance(value, dict):
        return value
    raise fault(f"expected a status, or a mapping with status and percent, not {shown(value)}")


class FaultConditionModel(Model):
    """Which requests a fault is for."""

    header: Annotated[dict[FieldName, ValueCondition], Field(min_length=1)]
    """Header fields by name, as in `match.headers`; all must hold."""


class FaultModel(Model):
    """Faults injected on purpose, to see how callers take them. Each is drawn for by itself.

    A delay comes first, and before the route's timeout begins to run. It ends when the caller leaves.
    """

    delay: (
        Annotated[DelayModel, BeforeValidator(_delay), AlsoAccepts({"type": "string"})] | None
    ) = None
    """A duration, or a mapping with duration and percent: flag DI."""
    abort: (
        Annotated[
            AbortModel,
            BeforeValidator(_abort),
            AlsoAccepts({"type": "integer", "minimum": 200, "maximum": 599}),
        ]
        | None
    ) = None
    """A status, or a mapping with status and percent: flag FI."""
    percent: Percent | None = None
    """Of the requests, where delay or abort does not say; default 100."""
    when: FaultConditionModel | None = None
    """Only these requests."""
    max_active: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    """Requests delayed at once; past it no fault is injected. Default 1024."""

    @model_validator(mode="after")
    def _some(self) -> Self:
        if self.delay is None and self.abort is None:
            about = (("delay",), ("abort",))
            raise fault("nothing is injected; give delay, abort, or both", about=about)
        own = [item for item in (self.delay, self.abort) if item is not None]
        if self.percent is not None and all(item.percent is not None for item in own):
            message = (
                "delay and abort each have a percent of their own; this one counts for nothing"
            )
            about = (("delay",), ("abort",))
            raise fault(message, at=("percent",), about=about)
        return self


def _by(value: str) -> str:
    if _BY.fullmatch(value) is None:
        known = "caller, role, subject, route, or header:NAME"
        raise fault(f"expected {known}, not {shown(value)}")
    return value


class RateLimitModel(Model):
    """A token bucket in each sidecar: past it the answer is 429 `RL`."""

    name: Name | None = None
    """For the answer; otherwise made from the numbers."""
    requests: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """How many in each `per`, in the long run."""
    per: PositiveDuration
    """1s for a rate, 24h for a quota."""
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = None
    """How many at once: the bucket's size, full at first; default `requests`."""
    by: Annotated[str, AfterValidator(_by)] | None = None
    """Whose requests share a bucket: caller (SPIFFE ID), role (the most senior), subject,
    header:NAME, or route (the default: all). Those without that share one, `anonymous`."""


def _limits(value: object) -> object:
    return [value] if isinstance(value, dict) else value


type RateLimits = Annotated[
    list[RateLimitModel],
    Field(min_length=1),
    BeforeValidator(_limits),
    OrOneItem(),
]
"""One limit, or several, all of which must admit."""

_WITH_OWN_ANSWER: Final = frozenset(
    {"redirect", "direct_response", "response_headers", "rate_limit", "fault"}
)
"""What of an action makes sense where nothing is forwarded."""


class ShapedModel(Model):
    """The part of an action that shapes traffic."""

    redirect: RedirectModel | None = None
    """Sends the caller elsewhere, instead of a cluster."""
    direct_response: DirectResponseModel | None = None
    """A fixed answer, instead of a cluster."""
    rewrite: RewriteModel | None = None
    """What the request is sent as."""
    request_headers: HeaderRulesModel | None = None
    """Edits of what is sent, after every plugin's; then come the listener's."""
    response_headers: HeaderRulesModel | None = None
    """Edits of the answer, the mesh's own ones included; then come the listener's."""
    rate_limit: RateLimits | None = None
    """Bounds on how many requests are let through."""
    fault: FaultModel | None = None
    """Faults injected on purpose."""

    @property
    def answers(self) -> bool:
        """It answers by itself, so it needs no cluster."""
        return self.redirect is not None or self.direct_response is not None

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if not self.answers:
            return self
        kind = "redirect" if self.redirect is not None else "direct_response"
        if self.redirect is not None and self.direct_response is not None:
            raise fault("give redirect or direct_response, not both", at=("direct_response",))
        for key in self.given():
            if key not in _WITH_OWN_ANSWER:
                message = f"a {kind} is answered here and sent nowhere, so this counts for nothing"
                raise fault(message, at=(key,), about=((kind,),))
        return self
