from __future__ import annotations

import http.client
import io
from typing import TYPE_CHECKING, cast

import pytest
from rich.console import Console

from scripts.demonstration import tour
from scripts.demonstration.report import Report
from scripts.demonstration.up import DemoError

if TYPE_CHECKING:
    from scripts.demonstration.lost_package import LostPackage

MESH = cast("LostPackage", None)  # The steps below do not look at it.


@pytest.mark.parametrize(
    "error",
    [
        DemoError("auth-1 has ended"),
        ConnectionResetError("by peer"),
        http.client.BadStatusLine("x"),
        ValueError("no JSON"),
        KeyError("replica"),
    ],
)
def test_a_step_that_cannot_be_taken_fails_the_tour_and_the_next_is_taken(
    error: Exception,
) -> None:
    report = Report(Console(file=io.StringIO()))

    def breaks(_mesh: LostPackage, report: Report) -> None:
        report.step("Breaks", "…")
        raise error

    def works(_mesh: LostPackage, report: Report) -> None:
        report.step("Works", "…")
        report.check(ok=True, expectation="fine")

    tour.run(MESH, report, (breaks, works))
    assert report.steps == 2
    (failure,) = report.failures
    assert failure.startswith("Breaks: the step can be taken to its end: ")
    assert str(error.args[0]) in failure


def test_a_fault_of_the_demo_itself_is_not_hidden() -> None:
    def wrong(_mesh: LostPackage, _report: Report) -> None:
        raise NameError

    with pytest.raises(NameError):
        tour.run(MESH, Report(Console(file=io.StringIO())), (wrong,))


def test_each_step_is_taken_once() -> None:
    assert len(set(tour.STEPS)) == len(tour.STEPS)
