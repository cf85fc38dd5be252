from __future__ import annotations

import io
import json

import pytest
from rich.console import Console

from scripts.benchmark import report
from scripts.benchmark.outcome import Outcome, Table, as_text
from scripts.benchmark.report import BARS, RATIOS, as_json, judge, show
from scripts.benchmark.spread import Spread


def test_the_bars_are_those_of_the_issue() -> None:
    bars = {bar.figure: (bar.bar, bar.aim, bar.at_least) for bar in BARS}
    assert bars == {
        "policy_vs_envoy": (0.7, 1.0, True),
        "mtls_pair_vs_envoy": (0.8, 1.0, True),
        "plain_vs_mitmdump": (10, 20, True),
        "p99_added_vs_envoy": (2, 1, False),
        "rss_mb": (90, 70, False),
        "routes_5000_vs_1": (0.9, 1.0, True),
        "growth_down_mib": (32, None, False),
        "growth_up_mib": (32, None, False),
        "watched_vs_not": (0.92, 0.95, True),
        "control_last_s": (5, 1, False),
        "control_rss_mb": (200, 150, False),
        "control_start_s": (2, 1, False),
        "swaps_vs_quiet": (0.9, 1.0, True),
    }


@pytest.mark.parametrize(
    ("figure", "value", "met"),
    [
        ("policy_vs_envoy", 0.7, True),
        ("policy_vs_envoy", 0.699, False),
        ("p99_added_vs_envoy", 2.0, True),
        ("p99_added_vs_envoy", 2.01, False),
    ],
)
def test_a_ratios_median_is_held_against_its_bar(figure: str, value: float, met: bool) -> None:
    [verdict] = judge(Outcome({figure: Spread(value, 0.0, 99.0)}))
    assert (verdict.bar.figure, verdict.met) == (figure, met)


def test_measures_are_judged_too_and_what_was_not_measured_is_not() -> None:
    verdicts = judge(Outcome(measures={"rss_mb": 91.0, "startup_s": 1.2}))
    assert [(verdict.bar.figure, verdict.met) for verdict in verdicts] == [("rss_mb", False)]


def test_the_json_has_its_shape_whatever_was_measured() -> None:
    outcome = Outcome({"policy_vs_envoy": Spread(0.9, 0.8, 1.0)}, {"rss_mb": 64.2})
    document = as_json(outcome, {"cpu": "x"}, "abc", {"c": "void"}, {"rounds": 5})
    assert json.loads(json.dumps(document)) == document
    assert document["ratios"].keys() == set(RATIOS)
    assert document["ratios"]["policy_vs_envoy"] == {"median": 0.9, "min": 0.8, "max": 1.0}
    assert document["ratios"]["mtls_pair_vs_envoy"] is None
    assert (document["rss_mb"], document["startup_s"]) == (64.2, None)
    assert (document["machine"], document["commit"]) == ({"cpu": "x"}, "abc")
    assert document["failures"] == {"c": "void"}
    assert document["bars"]["policy_vs_envoy"] == {
        "value": 0.9,
        "bar": 0.7,
        "aim": 1.0,
        "met": True,
    }


def test_a_person_sees_figures_bars_and_failures() -> None:
    output = io.StringIO()
    outcome = Outcome(
        {"policy_vs_envoy": Spread(0.65, 0.6, 0.75)},
        {"rss_mb": 64.2},
        tables=[Table("Rates", ["", "requests/s"], [["hms", "[6,543]"]])],
    )
    show(
        Console(file=output, width=120), outcome, {"c": "hms: void round: [timeout 5]\n  | its log"}
    )
    text = output.getvalue()
    assert "[6,543]" in text
    rows = {
        line.split("│")[2].strip(): line for line in text.splitlines() if "≥" in line or "≤" in line
    }
    assert "✗" in rows["(b) requests/s against Envoy doing the same"]
    assert "0.65" in rows["(b) requests/s against Envoy doing the same"]
    assert "0.60 … 0.75" in rows["(b) requests/s against Envoy doing the same"]
    assert "✓" in rows["(e) resident memory after load, MB"]
    assert "✗ (c) failed: hms: void round: [timeout 5]" in text
    assert "its log" not in text


@pytest.mark.parametrize(
    ("spread", "doubted"),
    [
        (Spread(0.84, 0.44, 0.87), True),
        (Spread(0.84, 0.78, 0.87), False),
        (Spread(1.20, 0.85, 1.60), False),
        (Spread(0.40, 0.30, 0.60), False),
    ],
)
def test_a_verdict_on_rounds_that_disagree_is_doubted(spread: Spread, doubted: bool) -> None:
    output = io.StringIO()
    show(Console(file=output, width=200), Outcome({"mtls_pair_vs_envoy": spread}), {})
    assert ("! The rounds of mtls_pair_vs_envoy differ" in output.getvalue()) is doubted


def test_outcomes_add_up() -> None:
    first = Outcome({"a": Spread(1, 1, 1)}, {"m": 1.0}, {"x": 1}, [Table("1", [], [])])
    second = Outcome({"b": Spread(2, 2, 2)}, {"m": 2.0}, {"y": 2}, [Table("2", [], [])])
    both = first | second
    assert both.ratios.keys() == {"a", "b"}
    assert both.measures == {"m": 2.0}
    assert both.details == {"x": 1, "y": 2}
    assert [table.title for table in both.tables] == ["1", "2"]


def test_a_spread_as_two_cells() -> None:
    assert as_text(Spread(12345.6, 1.0, 99999.9)) == ("12,346", "1 … 100,000")
    assert as_text(Spread(0.333, 0.1, 1), 2) == ("0.33", "0.10 … 1.00")


def test_every_measure_of_a_bar_is_one_that_the_json_names() -> None:
    assert set(report.MEASURES) == {"rss_mb", "startup_s"}
