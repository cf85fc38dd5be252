"""The access log, as the hot path reads it: which requests are written, what of them, and where."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIELDS: Final = (
    "time",
    "direction",
    "listener",
    "client",
    "caller",
    "subject",
    "role",
    "method",
    "path",
    "query",
    "status",
    "flag",
    "service",
    "route",
    "cluster",
    "endpoint",
    "attempts",
    "tries",
    "detail",
    "request_id",
    "trace_id",
    "duration_ms",
    "upstream_ms",
    "bytes_in",
    "bytes_out",
)
"""All that can be written of a request, in the order in which it is."""
NOT_BY_DEFAULT: Final = frozenset({"query", "subject"})
"""A query may hold secrets, and a subject is a person."""
DEFAULT_FIELDS: Final = tuple(field for field in FIELDS if field not in NOT_BY_DEFAULT)


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessLog:
    """A line for each request that has ended."""

    path: str = "stdout"
    """Absolute, or `stdout`."""
    as_json: bool = True
    """A JSON object a line; else `key=value` pairs."""
    sample: float = 1.0
    """Share of the requests that are written; those that went wrong always are."""
    fields: tuple[str, ...] = DEFAULT_FIELDS
    headers: tuple[str, ...] = ()
    """Request headers to write, in lower case."""
