from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fakes.plane import RunningPlane


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
async def test_it_is_well(control: RunningPlane, path: str) -> None:
    answer = await control.ask("GET", path)
    assert (answer.status_code, answer.json()["status"]) == (200, "ok")


async def test_it_is_not_ready_when_it_is_about_to_stop(control: RunningPlane) -> None:
    control.plane.stopping.set()
    answer = await control.ask("GET", "/readyz")
    assert answer.status_code == 503
    assert "about to stop" in answer.json()["detail"]
    assert (await control.ask("GET", "/healthz")).status_code == 200


async def test_it_is_not_ready_without_its_store_and_the_log_says_why_once(
    control: RunningPlane, caplog: pytest.LogCaptureFixture
) -> None:
    await control.plane.store.close()
    for _ in range(3):
        answer = await control.ask("GET", "/readyz")
        assert answer.status_code == 503
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["detail"] == "the store does not answer; the log says why"
    assert caplog.text.count("not ready: the store does not answer: the store ") == 1


async def test_its_metrics_are_for_prometheus(control: RunningPlane) -> None:
    answer = await control.ask("GET", "/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert f"hms_control_store_revision {control.plane.store.revision}.0" in answer.text


async def test_the_page_loads_nothing_from_elsewhere(control: RunningPlane) -> None:
    answer = await control.ask("GET", "/docs")
    assert answer.headers["content-type"].startswith("text/html")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert "<script" not in answer.text
    assert "://" not in answer.text
    for path in (await control.ask("GET", "/openapi.json")).json()["paths"]:
        assert path in answer.text
