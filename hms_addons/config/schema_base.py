"""The words and numbers of a configuration: durations, sizes, names, addresses, patterns.

Each type here checks one kind of value and says what it expected. Where two spellings are allowed
(`retries: 2` or `retries: {attempts: 2}`) one is rewritten into the other before the model sees it,
so that a message never speaks of a union's branches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, WithJsonSchema
from pydantic_core import PydanticCustomError

from hms_addons.config.request_target import TargetError, normalise_path
from hms_addons.config.safe_regex import UnsafeRegexError, compile_regex
from hms_addons.identity.spiffe_id import SpiffeId, SpiffeIdError, validate_trust_domain

if TYPE_CHECKING:
    from pydantic import GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema

_DURATION = re.compile(r"(?:([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|s|m|h|d))")
_DURATIONS = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,9})?(?:ms|s|m|h|d))+")
_SECONDS: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"([0-9]{1,15})\s?(B|kB|KB|MB|GB|KiB|MiB|GiB)")
_BYTES: Final = {
    "B": 1, "kB": 10**3, "KB": 10**3, "MB": 10**6, "GB": 10**9,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30,
}  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,252}[A-Za-z0-9])?\.?")
_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")
MAX_PORT: Final = 65535


class Model(BaseModel):
    """Base of all sections: nothing unknown, nothing converted, nothing changed afterwards.

    A validator is built when it is first needed, for all models below at once (`validate` sees to it).
    Fields' docstrings are read when a JSON Schema is made. Both take a while, and every process imports
    these models.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)

    def given(self) -> dict[str, Any]:
        """The values that were written, by field; what was left out has the snapshot's default."""
        return {
            name: value
            for name in type(self).model_fields
            if name in self.model_fields_set and (value := getattr(self, name)) is not None
        }

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        from hms_addons.config.field_docs import docs_of  # noqa: PLC0415 - seldom needed

        schema = handler(core_schema)
        properties = handler.resolve_ref_schema(schema).get("properties", {})
        for name, about in docs_of(cls).items():
            properties[name].setdefault("description", about)
        return schema


def fault(
    message: str,
    *,
    at: tuple[str | int, ...] = (),
    suggestion: str | None = None,
    about: tuple[tuple[str | int, ...], ...] = (),
    lacks: tuple[str | int, ...] = (),
) -> PydanticCustomError:
    """What a validator raises.

    Args:
        message: what is wrong and what is expected.
        at: keys below the value that is being validated, if the fault is there.
        suggestion: what was probably meant.
        about: keys below the value that this follows from: nothing is said while one of them is
            wrong itself.
        lacks: the key below the value that is not there.
    """
    context = {
        "message": message,
        "at": at,
        "suggestion": suggestion,
        "about": about,
        "lacks": lacks,
    }
    return PydanticCustomError("hms", "{message}", context)


class AlsoAccepts:
    """Marks a field that takes a short form too, for the JSON Schema."""

    def __init__(self, *short_forms: dict[str, Any]) -> None:
        self._short_forms = short_forms

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        return {"anyOf": [*self._short_forms, handler(core_schema)]}


class OrOneItem:
    """Marks a list that may be left away around a single item, for the JSON Schema."""

    def __get_pydantic_json_schema__(
        self, core_schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        schema = handler(core_schema)
        return {"anyOf": [schema["items"], schema]}


def parse_duration(value: object) -> float:
    """Seconds of a duration such as `250ms`, `1s`, `0.25s`, `1m30s`, `24h`, or the number 0."""
    if isinstance(value, str) and _DURATIONS.fullmatch(value):
        return sum(float(n) * _SECONDS[unit] for n, unit in _DURATION.findall(value))
    if isinstance(value, int | float) and not isinstance(value, bool):
        if value == 0:
            return 0.0
        raise fault(f"a duration needs a unit, as {value}s or {value}ms", suggestion=f"{value}s")
    raise fault(f"expected a duration such as 250ms, 1s, 5m or 24h, not {shown(value)}")


def parse_size(value: object) -> int:
    """Bytes of a size such as `1MiB`, `64KiB`, `10MB`, or a number of bytes."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and (found := _SIZE.fullmatch(value)):
        return int(found[1]) * _BYTES[found[2]]
    raise fault(f"expected a size such as 64KiB, 1MiB or a number of bytes, not {shown(value)}")


def shown(value: object) -> str:
    """A value as a message quotes it."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"  # noqa: PLR2004 - a line's worth


def _positive(value: float) -> float:
    if value <= 0:
        raise fault("must be more than 0")
    return value


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise fault(
            f"{shown(value)} cannot be a name: use letters, digits, '.', '_' and '-', "
            "at most 128, the first a letter or a digit"
        )
    return value


def is_token(value: str) -> bool:
    """Whether it is a token of RFC 9110 §5.6.2."""
    return _TOKEN.fullmatch(value) is not None


def _token(value: str) -> str:
    if not is_token(value):
        raise fault(f"{shown(value)} cannot be the name of a header field or a method")
    return value


def _method(value: str) -> str:
    if _token(value).upper() in _METHODS and value not in _METHODS:
        raise fault(
            f"methods are case-sensitive and {value!r} is not one that clients send",
            suggestion=value.upper(),
        )
    return value


_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "CONNECT"}
)


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise fault(f"a path begins with '/', not {shown(value)}", suggestion=f"/{value}")
    if "?" in value or "#" in value:
        raise fault("a path ends before '?'; put conditions on parameters under `query`")
    escaped = quote(value, safe="/%!\"$&'()*+,;:<=>@[\\]^`{|}~")
    try:
        normal = normalise_path(escaped)
    except TargetError as error:
        raise fault(f"{error}; no request can have this path") from None
    if normal.count("/") != value.count("/"):
        raise fault(
            "no request can have this path: requests' paths are normalised first",
            suggestion=normal,
        )
    return normal


def _regex(value: str) -> str:
    try:
        compile_regex(value)
    except UnsafeRegexError as error:
        raise fault(str(error)) from None
    return value


def _host_pattern(value: str) -> str:
    host = value.lower()
    if host == "*":
        return host
    if not _HOST.fullmatch(host.removeprefix("*.")):
        raise fault(
            f"{shown(value)} is not a host: write a name such as api.example.org, without scheme "
            "and port, or *.example.org for all names below it"
        )
    return host.removesuffix(".")


def _trust_domain(value: str) -> str:
    try:
        return validate_trust_domain(value)
    except SpiffeIdError as error:
        raise fault(str(error)) from None


def _spiffe_id(value: str) -> str:
    try:
        return str(SpiffeId.parse(value))
    except SpiffeIdError as error:
        raise fault(str(error)) from None


def one_or_many(value: object) -> object:
    """A single text stands for a list of one."""
    return [value] if isinstance(value, str) else value


def parse_address(text: str) -> tuple[str, int]:
    """Host and port of `host:port` or `[IPv6]:port`."""
    host, colon, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    plain = bool(_IPV6.fullmatch(host[1:-1])) if bracketed else bool(_HOST.fullmatch(host))
    if not colon or not plain or not (port.isascii() and port.isdigit()):
        raise fault(f"expected host:port, as 127.0.0.1:9001 or [::1]:9001, not {shown(text)}")
    if not 1 <= int(port[:6]) <= MAX_PORT:
        raise fault(f"the port {port[:6]} is not between 1 and {MAX_PORT}")
    return host[1:-1] if bracketed else host, int(port)


_DURATION_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "string", "pattern": r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d))+$"},
            {"type": "integer", "const": 0},
        ],
        "examples": ["250ms", "1s", "24h"],
    }
)
_SIZE_SCHEMA = WithJsonSchema(
    {
        "anyOf": [
            {"type": "integer", "minimum": 0},
            {"type": "string", "pattern": "^[0-9]+ ?(B|kB|KB|MB|GB|KiB|MiB|GiB)$"},
        ],
        "examples": ["64KiB", "1MiB"],
    }
)

type Duration = Annotated[float, BeforeValidator(parse_duration), _DURATION_SCHEMA]
"""Seconds, 0 or more."""
type PositiveDuration = Annotated[
    float, BeforeValidator(parse_duration), AfterValidator(_positive), _DURATION_SCHEMA
]
"""Seconds, more than 0."""
type Size = Annotated[int, BeforeValidator(parse_size), _SIZE_SCHEMA]
"""Bytes."""
type Name = Annotated[str, AfterValidator(_name)]
"""A name that is safe in host names, metrics and file names."""
type FieldName = Annotated[str, AfterValidator(_token)]
"""The name of a header field."""
type Method = Annotated[str, AfterValidator(_method)]
"""A request method."""
type UrlPath = Annotated[str, AfterValidator(_path)]
"""A path in the one spelling that requests have (`request_target`)."""
type Regex = Annotated[str, AfterValidator(_regex)]
"""A regular expression that must match the whole value, and cannot be made slow."""
type HostPattern = Annotated[str, AfterValidator(_host_pattern)]
"""A host name, or `*.domain`."""
type TrustDomain = Annotated[str, AfterValidator(_trust_domain)]
"""A SPIFFE trust domain."""
type SpiffeIdText = Annotated[str, AfterValidator(_spiffe_id)]
"""A SPIFFE ID."""
