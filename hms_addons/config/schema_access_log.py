"""What users write under `access_log`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from hms_addons.config.schema_base import FieldName, Model, fault, shown

type AccessLogField = Literal[
    "time", "direction", "listener", "client", "caller", "subject", "role", "method",
    "path", "query", "status", "flag", "service", "route", "cluster", "endpoint",
    "attempts", "tries", "detail", "request_id", "trace_id", "duration_ms", "upstream_ms", "bytes_in",
    "bytes_out",
]  # fmt: skip


def _log_path(value: str) -> str:
    if not value or "\0" in value or value.endswith("/"):
        raise fault("expected the path of a file, or stdout")
    return value


type LogPath = Annotated[str, AfterValidator(_log_path)]


class AccessLogModel(Model):
    """A line for each request that has ended; without this there is none.

    It holds no token, no cookie and no body, and no query unless that is asked for.
    """

    format: Literal["json", "text"] | None = None
    """json (the default) is an object a line, text is key=value pairs."""
    path: LogPath | None = None
    """A file, relative to this one, or stdout (the default). It is opened anew when it was renamed."""
    sample: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the requests that are written, as 0.1; statuses of 400 and above always are. Default 1."""
    fields: Annotated[list[AccessLogField], Field(min_length=1)] | None = None
    """What is written, in this order; default all but `query` and `subject`."""
    headers: list[FieldName] | None = None
    """Request headers to write besides; what may hold a secret is written as [redacted]."""


def access_log_or_not(value: object) -> object:
    """`true` is the default log, `false` none, as where the key is missing."""
    if value is False or isinstance(value, dict):
        return None if value is False else value
    if value is True:
        return {}
    raise fault(f"expected a mapping, or true for the default log, not {shown(value)}")
