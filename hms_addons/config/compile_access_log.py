"""The access log: from what users write to what the hot path reads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.snapshot_access_log import DEFAULT_FIELDS, AccessLog
from hms_addons.line_log import STDOUT

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.config.problems import Path
    from hms_addons.config.schema_access_log import AccessLogModel


def compile_access_log(
    model: AccessLogModel | None, file: Callable[[Path, str], str]
) -> AccessLog | None:
    """The log, if there is one; `file` makes the path of what is written at a place absolute."""
    if model is None:
        return None
    path = model.path or STDOUT
    return AccessLog(
        path=path if path == STDOUT else file(("access_log", "path"), path),
        as_json=model.format != "text",
        sample=1.0 if model.sample is None else model.sample,
        fields=tuple(dict.fromkeys(model.fields or DEFAULT_FIELDS)),
        headers=tuple(dict.fromkeys(name.lower() for name in model.headers or ())),
    )
