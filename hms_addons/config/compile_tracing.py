"""Tracing: from what users write to what the sidecar reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.snapshot_tracing import Tracing

if TYPE_CHECKING:
    from hms_addons.config.schema_tracing import TracingModel

PATH: Final = "/v1/traces"
"""Where a collector takes spans (OTLP 1.x, "OTLP/HTTP Request")."""


def compile_tracing(model: TracingModel | None) -> Tracing | None:
    """What is asked for, if anything is."""
    if model is None:
        return None
    url = model.otlp.rstrip("/")
    given: dict[str, Any] = {
        key: value
        for key in ("sample", "timeout", "resource")
        if (value := getattr(model, key)) is not None
    }
    headers = (model.headers or {}).items()
    return Tracing(
        url=url if url.endswith(PATH) else url + PATH,
        headers={name: one.value for name, one in headers if one.value is not None},
        headers_env={name: one.env for name, one in headers if one.env is not None},
        **given,
    )
