"""Tracing, as the sidecar reads it: which requests are traced, and where their spans go."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

DEFAULT_SAMPLE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """Spans of requests, and the collector that gets them."""

    url: str
    """Of the collector's OTLP/HTTP port, with the path that takes traces."""
    sample: float = DEFAULT_SAMPLE
    """Share of the traces that begin here; one that came with a request is recorded if its caller does."""
    timeout: float = 10.0
    """Seconds that the collector may take for a batch."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Sent with every batch, as they stand here."""
    headers_env: Mapping[str, str] = field(default_factory=dict)
    """The same, with the names of the environment variables that hold them."""
    resource: Mapping[str, str] = field(default_factory=dict)
    """Attributes of this sidecar, besides those it knows itself."""
