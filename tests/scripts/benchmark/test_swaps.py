from __future__ import annotations

import pytest

from hms_addons.config.problems import Severity
from hms_addons.control.configs import check
from scripts.benchmark.report import judge
from scripts.benchmark.swaps import CONFIG, SECONDS, Round, outcome_of


def test_each_busy_round_is_held_against_its_own_quiet_one() -> None:
    rounds = [Round(1000, 950, 500, 300), Round(500, 465, 490, 100), Round(2000, 1000, 500, 500)]
    outcome = outcome_of(rounds)
    assert outcome.ratios["swaps_vs_quiet"].median == pytest.approx(0.93)
    (verdict,) = judge(outcome)
    assert verdict.met
    assert not judge(outcome_of([Round(1000, 890, 500, 300)]))[0].met


def test_what_was_pushed_and_taken_is_a_rate() -> None:
    (table,) = outcome_of([Round(1000, 950, 50 * SECONDS, 20 * SECONDS)]).tables
    assert table.rows[2][:2] == ["pushes a second", "50.0"]
    assert table.rows[3][:2] == ["taken a second", "20.0"]


def test_what_is_pushed_is_good_and_each_time_another() -> None:
    texts = [CONFIG.format(timeout=30_000 + n, port=80).encode() for n in range(2)]
    assert texts[0] != texts[1]
    for text in texts:
        problems = check([("config.yaml", text)], "mpsa.mil")
        assert not [problem for problem in problems if problem.severity is Severity.ERROR]
