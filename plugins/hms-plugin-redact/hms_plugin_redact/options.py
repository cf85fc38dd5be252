"""What stands under `plugins.redact`."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.safe_regex import UnsafeRegexError, compile_search
from hms_addons.config.schema_base import Model, Name, Size, fault, one_or_many
from hms_plugin_redact.json_path import JsonPathError, parse_path

LONGEST = 256
"""Characters that a regex may match: the time of a search is the text's length times this."""
TYPES = (
    "application/json",
    "*+json",
    "text/*",
    "application/xml",
    "*+xml",
    "application/x-www-form-urlencoded",
)


def _regex(value: str) -> str:
    try:
        compile_search(value, LONGEST)
    except UnsafeRegexError as error:
        raise fault(str(error)) from None
    return value


def _path(value: str) -> str:
    try:
        parse_path(value)
    except JsonPathError as error:
        raise fault(str(error)) from None
    return value


def _type(value: str) -> str:
    kind, slash, subtype = value.lower().partition("/")
    if value.startswith("*+") and not slash:
        return value.lower()
    if not slash or not kind or not subtype or ";" in value or ("*" in kind + subtype[:-1]):
        raise fault("expected a content type such as application/json, text/* or *+json")
    return value.lower()


class RuleOptions(Model):
    """One kind of data: what it looks like, or where it stands in JSON documents."""

    name: Name
    """For the metrics; unique."""
    regex: Annotated[str, AfterValidator(_regex)] | None = None
    """What to replace in texts, and in the keys, texts and numbers of JSON documents."""
    json_paths: Annotated[
        list[Annotated[str, AfterValidator(_path)]], BeforeValidator(one_or_many)
    ] = Field(default_factory=list)
    """What to replace in JSON documents, whatever it is."""
    replace: str = "[redacted]"
    """What stands there instead."""
    keep_last: Annotated[int, Field(ge=0, le=8)] = 0
    """With `regex`: so many characters of the match stay, at its end."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if (self.regex is None) == (not self.json_paths):
            raise fault("give either regex or json_paths")
        if self.keep_last and self.regex is None:
            raise fault("goes with regex only", at=("keep_last",))
        return self


class Options(Model):
    """Which bodies are looked at, for what, and what becomes of those that cannot be."""

    rules: Annotated[list[RuleOptions], Field(min_length=1)]
    """In order."""
    responses: bool = True
    """Answers are looked at."""
    requests: bool = False
    """Requests are, before they are sent on."""
    services: list[str] = Field(default_factory=list)
    """The services whose messages are; none: all of them."""
    direction: Literal["inbound", "outbound", "both"] = "both"
    """The listeners whose messages are."""
    content_types: Annotated[list[Annotated[str, AfterValidator(_type)]], Field(min_length=1)] = (
        Field(default_factory=lambda: list(TYPES))
    )
    """Bodies of other types pass untouched; those that name none are looked at."""
    streaming: Literal["hold", "refuse", "pass"] = "hold"
    """Bodies that come piece by piece: held up to `max_size` (only an answer's: a request's are
    refused), refused, or passed unseen."""
    encoded: Literal["decode", "refuse"] = "decode"
    """Bodies with `Content-Encoding: gzip`; other codings are refused."""
    max_size: Annotated[Size, Field(ge=1, le=16 * 1024 * 1024)] = 1024 * 1024
    """The longest body, unpacked, that is looked at; longer ones are refused."""

    @model_validator(mode="after")
    def _sane(self) -> Self:
        names = [rule.name for rule in self.rules]
        for index, name in enumerate(names):
            if name in names[:index]:
                raise fault(f"another rule is called {name!r}", at=("rules", index, "name"))
        if not self.responses and not self.requests:
            raise fault("nothing is looked at: set responses, requests or both to true")
        return self
