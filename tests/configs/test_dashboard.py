"""The dashboard as a file: what Grafana needs of it. That its queries give data, tests/integration/test_up.py shows."""

from __future__ import annotations

import json
import re
from itertools import combinations
from typing import Any

import pytest

from tests.architecture.source import ROOT

DASHBOARD = json.loads((ROOT / "configs" / "grafana" / "hms-mesh.json").read_text())
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
WANTED = """hms_requests_total hms_request_duration_seconds_bucket hms_upstream_attempts_total
    hms_upstream_retries_total hms_endpoint_state hms_breaker_open hms_connections_active
    hms_pool_connections hms_rbac_decisions_total hms_policy_version_info hms_config_version
    hms_config_rejected_total hms_certificate_expiry_timestamp_seconds hms_plugin_errors_total""".split()


def test_it_can_be_imported_into_any_grafana() -> None:
    assert DASHBOARD["id"] is None
    assert DASHBOARD["uid"] == "hms-mesh"
    assert DASHBOARD["schemaVersion"] >= 36
    variables = {one["name"]: one for one in DASHBOARD["templating"]["list"]}
    assert list(variables) == ["datasource", "service", "direction"]
    assert variables["datasource"]["type"] == "datasource"
    for name in ("service", "direction"):
        one = variables[name]
        assert (one["type"], one["datasource"]) == ("query", SOURCE)
        assert (one["multi"], one["includeAll"], one["allValue"]) == (True, True, ".*")


@pytest.mark.parametrize("panel", PANELS, ids=lambda panel: panel["title"])
def test_a_panel_is_whole(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"]
    assert panel["datasource"] == SOURCE
    assert panel["targets"]
    assert all(target["datasource"] == SOURCE for target in panel["targets"])
    references = [target["refId"] for target in panel["targets"]]
    assert len(set(references)) == len(references)


def test_panels_lie_side_by_side() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    boxes = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(box["x"] >= 0 and box["x"] + box["w"] <= 24 for box in boxes)
    for a, b in combinations(boxes, 2):
        apart = a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"]
        assert apart or a["y"] + a["h"] <= b["y"] or b["y"] + b["h"] <= a["y"], (a, b)


def test_it_shows_every_metric_that_was_promised_and_none_that_is_not_there() -> None:
    queries = "\n".join(target["expr"] for panel in PANELS for target in panel["targets"])
    shown = set(re.findall(r"hms_[a-z_]+", queries))
    assert shown >= set(WANTED)
    source = "\n".join(path.read_text() for path in (ROOT / "hms_addons").rglob("*.py"))
    for name in shown:
        assert f'"{re.sub("_(total|bucket)$", "", name)}"' in source, name
