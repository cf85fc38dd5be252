from __future__ import annotations

import pytest

from scripts.benchmark.fixed_rate import Latencies
from scripts.benchmark.latency import SMALLEST_MS, summarise


def rounds(*figures: tuple[float, float], unanswered: int = 0) -> list[Latencies]:
    return [Latencies(p50, p99, 1000, unanswered) for p50, p99 in figures]


def test_what_is_added_is_taken_within_a_round() -> None:
    outcome = summarise(
        {
            "direct": rounds((0.1, 0.5), (0.2, 5.0)),
            "hms": rounds((0.4, 1.1), (0.5, 5.4)),
            "envoy": rounds((0.3, 0.8), (0.3, 5.8)),
        }
    )
    ratio = outcome.ratios["p99_added_vs_envoy"]
    assert ratio.min == pytest.approx(0.5)
    assert ratio.max == pytest.approx(2.0)
    assert outcome.ratios["p50_added_vs_envoy"].min == pytest.approx(1.5)
    details = outcome.details["latency"]
    assert details["hms"]["p99_added_ms"] == {"median": 0.5, "min": 0.4, "max": 0.6}
    assert details["direct"]["p99_ms"] == {"median": 2.75, "min": 0.5, "max": 5.0}


def test_noise_that_makes_a_proxy_faster_than_none_cannot_turn_the_ratio_around() -> None:
    outcome = summarise(
        {
            "direct": rounds((0.1, 0.5)),
            "hms": rounds((0.4, 0.6)),
            "envoy": rounds((0.3, 0.4)),
        }
    )
    assert outcome.ratios["p99_added_vs_envoy"].max == pytest.approx(0.1 / SMALLEST_MS)


def test_a_contender_that_cannot_carry_the_rate_is_said_to() -> None:
    outcome = summarise(
        {"direct": rounds((0.1, 0.5)), "mitmdump": rounds((900.0, 950.0), unanswered=120)}
    )
    assert outcome.details["latency"]["mitmdump"]["overloaded"] is True
    assert outcome.tables[0].rows[0][-1] == "cannot carry that rate"
    assert outcome.ratios == {}
