from __future__ import annotations

import pytest

from hms_addons.operator_client.outcome import Outcome, when


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (172800, "2 d")],
)
def test_times_are_told_in_the_largest_unit_of_which_there_are_two(
    seconds: float, said: str
) -> None:
    assert when(1000.0 + seconds, 1000.0) == said
    assert when(1000.0 - seconds, 1000.0) == said


def test_an_outcome_is_good_unless_said_otherwise() -> None:
    assert Outcome("text", {}).ok
