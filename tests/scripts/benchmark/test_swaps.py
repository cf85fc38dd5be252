from __future__ import annotations

import pytest

from hms_addons.config.problems import Severity
from hms_addons.control.configs import check
from scripts.benchmark.report import judge
from scripts.benchmark.swapping import snapshot
from scripts.benchmark.swaps import CONFIG, SECONDS, Rate, Round, outcome_of


def round_of(quiet: float, busy: float) -> Round:
    rates = Rate(quiet, 2 * quiet), Rate(busy, 2 * busy)
    return Round(*rates, changes=50 * SECONDS, taken=20 * SECONDS)


def test_each_busy_round_is_held_against_its_own_quiet_one() -> None:
    rounds = [round_of(1000, 950), round_of(500, 465), round_of(2000, 1000)]
    outcome = outcome_of("swaps", rounds)
    assert outcome.ratios["swaps_vs_quiet"].median == pytest.approx(0.93)
    (verdict,) = judge(outcome)
    assert verdict.met
    assert outcome.ratios["swaps_vs_quiet_per_cpu"].median == pytest.approx(0.93)
    assert not judge(outcome_of("swaps", [round_of(1000, 890)]))[0].met


def test_what_was_pushed_and_taken_is_a_rate() -> None:
    (table,) = outcome_of("swaps", [round_of(1000, 950)]).tables
    assert table.rows[4][:2] == ["made a second", "50.0"]
    assert table.rows[5][:2] == ["taken a second", "20.0"]


def test_what_is_pushed_is_good_and_each_time_another() -> None:
    texts = [CONFIG.format(timeout=30_000 + n, port=80).encode() for n in range(2)]
    assert texts[0] != texts[1]
    for text in texts:
        problems = check([("config.yaml", text)], "mpsa.mil")
        assert not [problem for problem in problems if problem.severity is Severity.ERROR]


def test_a_swap_is_good_and_each_time_another() -> None:
    first, second = (snapshot(15001, 80, number) for number in range(2))
    assert first.version != second.version


def test_only_swaps_are_judged() -> None:
    outcome = outcome_of("pushes", [round_of(1000, 500)])
    assert outcome.ratios["pushes_vs_quiet"].median == 0.5
    assert judge(outcome) == []
