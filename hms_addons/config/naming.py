"""What is told of a configuration's content: a short name for it, and what may be shown."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

_SENSITIVE = re.compile(r"secret|token|passw|credential|api_?key|private", re.IGNORECASE)


def digest(data: Mapping[str, Any], service: str | None) -> str:
    """A short name for a configuration's content: the same for the same, in any order of keys."""
    text = json.dumps([data, service], sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def redacted(data: Mapping[str, Any]) -> dict[str, Any]:
    """What may be shown of it: plugins' options whose names speak of secrets are hidden.

    Our own sections hold none: they name files and environment variables.
    """
    shown = dict(data)
    if isinstance(shown.get("plugins"), dict):
        shown["plugins"] = {name: _hide(options) for name, options in shown["plugins"].items()}
    return shown


def _hide(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            key: "(hidden)" if _SENSITIVE.search(key) and item is not None else _hide(item)
            for key, item in value.items()
        }
    return [_hide(item) for item in value] if isinstance(value, list) else value
