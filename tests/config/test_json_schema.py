from __future__ import annotations

from typing import Any

from hms_addons.config.json_schema import json_schema, to_text
from tests.conftest import ROOT


def test_the_shipped_schema_is_that_of_the_models() -> None:
    shipped = (ROOT / "configs/hms.schema.json").read_text(encoding="utf-8")
    hint = "run: python -m hms_addons.config.json_schema > configs/hms.schema.json"
    assert shipped == to_text(), hint


def test_short_forms_are_in_it() -> None:
    definitions = json_schema()["$defs"]
    retries = definitions["ActionModel"]["properties"]["retries"]["anyOf"]
    assert {"type": "integer", "minimum": 0, "maximum": 100} in retries
    assert {"$ref": "#/$defs/RetriesModel"} in retries
    policy = definitions["ClusterModel"]["properties"]["trafficPolicy"]["anyOf"]
    assert {"type": "string", "pattern": "^weight=[0-9]+%?$"} in policy
    endpoint = definitions["Endpoint"]["anyOf"]
    assert {"type": "string"} in endpoint


def test_unknown_keys_are_refused_everywhere() -> None:
    schema = json_schema()
    for name, definition in {"": schema, **schema["$defs"]}.items():
        if definition.get("type") == "object":
            assert definition["additionalProperties"] is False, name


def test_properties_called_as_the_schema_s_own_words_are_kept() -> None:
    def properties(part: Any) -> set[str]:
        return set(part["properties"])

    schema = json_schema()
    assert {"listeners", "clusters", "secrets"} <= properties(schema)
    assert {"exact", "regex", "present"} == properties(schema["$defs"]["ValueModel"])
