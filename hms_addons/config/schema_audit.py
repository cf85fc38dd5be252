"""What users write under `rbac.audit_log`."""

from __future__ import annotations

from typing import Literal

from hms_addons.config.schema_access_log import LogPath
from hms_addons.config.schema_base import Model


class AuditLogModel(Model):
    """A JSON line for every authorisation decision; it holds no token, query or header value."""

    path: LogPath
    """A file, relative to this one, or `stdout`. It is opened anew when it was renamed."""
    decisions: Literal["all", "denied"] | None = None
    """Which are written; `denied` includes what a policy of `mode: audit` would deny. Default all."""
