from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.problems import (
    ConfigProblems,
    Place,
    Problem,
    Report,
    Severity,
    closest,
    dotted,
    listing,
)


def test_printed_as_editors_and_ci_read_it() -> None:
    problem = Problem(
        Severity.ERROR, "a.yaml", 3, 7, "clusters[0].nam", "unknown key 'nam'", "name"
    )
    line = "a.yaml:3:7: clusters[0].nam: unknown key 'nam' (did you mean name?)"
    assert str(problem) == line
    assert str(Problem(Severity.WARNING, "a.yaml", 1, 1, "", "odd")) == "a.yaml:1:1: warning: odd"


def test_to_json_holds_every_part() -> None:
    problem = Problem(Severity.WARNING, "a.yaml", 3, 7, "x", "m", None)
    assert problem.to_json() == {
        "severity": "warning",
        "file": "a.yaml",
        "line": 3,
        "column": 7,
        "path": "x",
        "message": "m",
        "suggestion": None,
    }


def test_a_report_sorts_by_file_and_place_and_tells_nothing_twice() -> None:
    places = {"a": Place("1", 9, 1), "b": Place("2", 1, 1), "c": Place("1", 2, 5)}
    report = Report(lambda path, _at_key: places[str(path[0])])
    report.warning(("a",), "late")
    assert not report.failed
    report.error(("b",), "other file")
    report.error(("c",), "early")
    report.error(("c",), "early")
    assert [problem.message for problem in report.sorted()] == ["early", "late", "other file"]
    with pytest.raises(ConfigProblems) as caught:
        report.raise_errors()
    assert len(caught.value.problems) == 3
    assert str(caught.value) == "1:2:5: c: early\n2:1:1: b: other file"


def test_dotted() -> None:
    assert dotted(("listeners", 0, "routes", 12, "match")) == "listeners[0].routes[12].match"
    assert not dotted(())


@pytest.mark.parametrize(
    ("name", "known", "meant"),
    [
        ("retrys", ["retries", "timeout"], "retries"),
        ("maxConnections", ["max_connections", "max_requests"], "max_connections"),
        ("traffic_policy", ["trafficPolicy", "tls_context"], "trafficPolicy"),
        ("auth-scv", ["auth-svc-v2", "auth-svc"], "auth-svc"),
        ("zzz", ["retries"], None),
        (5, ["retries"], None),
        ("a" * 101, ["a" * 100], None),
        ("a1", [f"a{n}" for n in range(501)], None),
        ("---", ["--"], "--"),
    ],
)
def test_closest(name: object, known: list[str], meant: str | None) -> None:
    assert closest(name, known) == meant


@given(st.text(), st.lists(st.text()))
def test_closest_is_one_of_the_known(name: str, known: list[str]) -> None:
    assert closest(name, known) in {None, *known}


def test_listing() -> None:
    assert listing(["b", "a"]) == "a, b"
    assert listing([]) == "none"
    assert listing(map(str, range(5)), limit=2) == "0, 1 and 3 more"
