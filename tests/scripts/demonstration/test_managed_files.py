"""What the demo pushes is judged by the product's own check, as the control plane judges it."""

from __future__ import annotations

from pathlib import Path

import pytest

from hms_addons.config.check import CheckResult, check_files
from scripts.demonstration.managed_files import MeshOverlay
from scripts.demonstration.mesh import listener_routes

ROUTES = Path(__file__).resolve().parents[3] / "configs" / "routes.yaml"
OVERLAY = MeshOverlay(9100, listener_routes(ROUTES))


def check(folder: Path, text: str) -> CheckResult:
    path = folder / "overlay.yaml"
    path.write_text(text)
    return check_files([ROUTES, path], control=True)


@pytest.mark.parametrize(
    "overlay", [OVERLAY, OVERLAY.with_canary(), OVERLAY.with_canary().with_reports(9300)]
)
def test_each_is_good_for_a_whole_mesh(tmp_path: Path, overlay: MeshOverlay) -> None:
    assert check(tmp_path, overlay.text()).ok


def test_a_change_is_another_overlay() -> None:
    canary = OVERLAY.with_canary()
    assert (OVERLAY.canary_percent, canary.canary_percent) == (0, 10)
    assert "weight=10" in canary.text()
    assert "9300" in canary.with_reports(9300).text()


def test_no_address_and_no_key_is_in_it() -> None:
    text = OVERLAY.with_canary().text()
    assert "endpoints" not in text
    assert "certificate:" not in text


def test_the_broken_one_is_broken_in_one_place(tmp_path: Path) -> None:
    result = check(tmp_path, OVERLAY.with_canary().broken_text())
    (problem,) = result.problems
    assert "did you mean trafficPolicy?" in str(problem)
