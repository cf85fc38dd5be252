from __future__ import annotations

import pytest

from scripts.benchmark.bench import Round, load_details, load_table, ratios_of
from scripts.benchmark.spread import Spread

SERIES = {
    "hms": [Round(60.0, 120.0, 1.0, 2.0), Round(30.0, 110.0, 3.0, 4.0)],
    "envoy": [Round(80.0, 160.0, 1.0, 2.0), Round(60.0, 165.0, 1.0, 2.0)],
    "direct": [Round(600.0, None, 0.1, 0.2), Round(300.0, None, 0.1, 0.2)],
}


def test_ratios_by_time_and_by_processor_time() -> None:
    ratios = ratios_of(SERIES, {"hop": ("hms", "envoy")})
    assert ratios["hop"] == Spread(0.625, 0.5, 0.75)
    assert ratios["hop_per_cpu"].max == pytest.approx(0.75)
    assert ratios["hop_per_cpu"].min == pytest.approx(2 / 3)


def test_what_was_not_measured_has_no_ratio() -> None:
    assert ratios_of(SERIES, {"hop": ("hms", "nginx")}) == {}
    assert ratios_of(SERIES, {"hop": ("hms", "direct")}).keys() == {"hop"}


def test_the_table_sets_us_against_each_other() -> None:
    table = load_table("Hop", SERIES)
    rows = {row[0]: row for row in table.rows}
    assert all(len(row) == len(table.columns) for row in table.rows)
    assert rows["hms"] == ["hms", "45", "30 … 60", "", "", "2.0", "3.0"]
    assert rows["envoy"][3:5] == ["0.62", "0.71"]
    assert rows["direct"][3:5] == ["0.10", ""]


def test_the_details_for_the_json() -> None:
    details = load_details(SERIES)
    assert details["direct"]["requests_per_cpu_second"] is None
    assert details["hms"]["requests_per_second"] == {"median": 45.0, "min": 30.0, "max": 60.0}
