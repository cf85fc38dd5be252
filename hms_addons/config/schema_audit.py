"""What users write under `rbac.audit_log`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator

from hms_addons.config.schema_base import Model, fault


def _log_path(value: str) -> str:
    if not value or "\0" in value or value.endswith("/"):
        raise fault("expected the path of a file, or stdout")
    return value


class AuditLogModel(Model):
    """A JSON line for every authorisation decision; it holds no token, query or header value."""

    path: Annotated[str, AfterValidator(_log_path)]
    """A file, relative to this one, or `stdout`. It is opened anew when it was renamed."""
    decisions: Literal["all", "denied"] | None = None
    """Which are written; `denied` includes what a policy of `mode: audit` would deny. Default all."""
