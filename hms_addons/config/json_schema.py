"""The JSON Schema of a configuration, made from the models, so that editors complete and check it.

`python -m hms_addons.config.json_schema > configs/hms.schema.json` writes the shipped one; a test
fails when that is older than the models.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from hms_addons.config.schema import Config


def json_schema() -> dict[str, Any]:
    """The schema, draft 2020-12."""
    made = Config.model_json_schema()
    made.pop("title", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "HMS-SVC sidecar configuration",
        **_tidy(made),
    }


def to_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"


def _tidy(value: Any, *, named: bool = False) -> Any:
    """Drop what pydantic adds and nobody reads: titles made from keys, and `default: null`.

    Args:
        value: a part of the schema.
        named: its keys are names that users write, not the schema's own words.
    """
    if isinstance(value, list):
        return [_tidy(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: _tidy(item, named=not named and key in {"properties", "$defs"})
        for key, item in value.items()
        if named or not (key == "title" or (key == "default" and item is None))
    }


if __name__ == "__main__":
    sys.stdout.write(to_text())
