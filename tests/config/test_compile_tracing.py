from __future__ import annotations

import pytest

from hms_addons.config.snapshot_tracing import Tracing
from tests.fakes.configs import snapshot_of


@pytest.mark.parametrize(
    ("otlp", "url"),
    [
        ("http://127.0.0.1:4318", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/", "http://127.0.0.1:4318/v1/traces"),
        ("http://127.0.0.1:4318/v1/traces", "http://127.0.0.1:4318/v1/traces"),
        ("https://otlp.test/otlp", "https://otlp.test/otlp/v1/traces"),
    ],
)
def test_where_spans_go(otlp: str, url: str) -> None:
    assert snapshot_of(f"tracing: {{otlp: '{otlp}'}}").tracing == Tracing(url=url)


def test_all_that_can_be_said() -> None:
    text = """
    tracing:
      otlp: http://127.0.0.1:4318
      sample: 1
      timeout: 250ms
      headers: {X-Scope-OrgID: mpsa, Authorization: {env: HMS_OTLP_TOKEN}}
      resource: {deployment.environment.name: prod, zone: 7}
    """
    assert snapshot_of(text).tracing == Tracing(
        url="http://127.0.0.1:4318/v1/traces",
        sample=1.0,
        timeout=0.25,
        headers={"X-Scope-OrgID": "mpsa"},
        headers_env={"Authorization": "HMS_OTLP_TOKEN"},
        resource={"deployment.environment.name": "prod", "zone": "7"},
    )


def test_a_later_file_changes_some_of_it() -> None:
    first = "tracing: {otlp: 'http://127.0.0.1:4318', sample: 0.5}"
    found = snapshot_of(first, "tracing: {sample: 0}").tracing
    assert found == Tracing(url="http://127.0.0.1:4318/v1/traces", sample=0.0)


def test_a_service_of_a_pushed_mesh_gets_it() -> None:
    text = "tracing: {otlp: 'http://127.0.0.1:4318'}"
    snapshot = snapshot_of(text, service="auth-svc", control=True)
    assert snapshot.tracing is not None
    assert snapshot.document["tracing"] == {"otlp": "http://127.0.0.1:4318"}
