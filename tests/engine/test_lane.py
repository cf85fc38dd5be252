from __future__ import annotations

import pytest

from hms_addons.engine.admin_lane import AdminLane
from hms_addons.engine.fast_lane import FastLane
from hms_addons.engine.lane import Lane
from tests.fakes.lane import FakeLane

ASKED = {name for name in vars(Lane) if not name.startswith("_")}


def test_a_lane_is_asked_for_its_bounds_and_told_of_every_end() -> None:
    assert {"limits", "opened", "closed", "handle", "refused", "clean_trailers"} == ASKED


@pytest.mark.parametrize("lane", [FastLane, AdminLane, FakeLane])
def test_every_lane_has_all_of_it(lane: type) -> None:
    # Its bounds may be an attribute, which the class does not show.
    assert [name for name in sorted(ASKED - {"limits"}) if not hasattr(lane, name)] == []
