from __future__ import annotations

from hms_addons.config.problems import Severity
from hms_addons.control.configs import check
from scripts.benchmark.control import BAR_WATCHERS, CONFIG, Row, outcome_of
from scripts.benchmark.report import judge


def row(watchers: int, services: int, last: float, rss: float) -> Row:
    return Row(watchers, services, 0.1, 0.2, 0.3, last, rss, 1.0, 2048, 0.5)


def test_the_worst_of_what_the_bar_is_about_is_held_against_it() -> None:
    rows = [row(100, 10, 9, 999), row(BAR_WATCHERS, 10, 2, 90), row(BAR_WATCHERS, 1000, 1, 120)]
    outcome = outcome_of(rows)
    assert outcome.measures == {
        "control_last_s": 2,
        "control_rss_mb": 120,
        "control_start_s": 0.5,
    }
    assert all(verdict.met for verdict in judge(outcome))
    assert not all(verdict.met for verdict in judge(outcome_of([row(BAR_WATCHERS, 1, 6, 90)])))


def test_every_run_is_a_line() -> None:
    (table,) = outcome_of([row(100, 1000, 0.5, 90)]).tables
    assert len(table.columns) == len(table.rows[0])
    assert table.rows[0][0:2] == ["100", "1,000"]
    assert table.rows[0][-2:] == ["2", "0.50"]


def test_without_the_bars_number_of_watchers_nothing_is_judged() -> None:
    figures = [verdict.bar.figure for verdict in judge(outcome_of([row(100, 10, 9, 999)]))]
    assert figures == ["control_start_s"]


def test_what_is_pushed_is_good() -> None:
    problems = check([("config.yaml", CONFIG.format(seconds=61).encode())], "mpsa.mil")
    assert not [problem for problem in problems if problem.severity is Severity.ERROR]
