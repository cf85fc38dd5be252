from __future__ import annotations

import pytest

from scripts.benchmark.bench import Round
from scripts.benchmark.observed import KINDS, microseconds, summarise


def test_processor_time_a_request_is_that_of_all_rounds_together() -> None:
    # 1,000 requests in 0.1 s of processor time, then 3,000 in 0.5 s.
    rounds = [Round(1000, 10_000, 1, 1), Round(3000, 6000, 1, 1)]
    assert microseconds(rounds) == pytest.approx(600_000 / 4000)


def test_what_is_kept_of_the_rate_is_told_round_by_round() -> None:
    series = {kind: [100.0 + 5 * n, 110.0 + 5 * n] for n, kind in enumerate(KINDS)}
    outcome = summarise(series)
    kept = outcome.ratios["watched_vs_not"]
    assert (kept.min, kept.max) == pytest.approx((100 / 110, 110 / 120))
    assert outcome.details["watched"][KINDS[0]]["kept"]["median"] == 1.0
    assert [row[0] for row in outcome.tables[0].rows] == list(KINDS)
