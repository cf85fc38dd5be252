from __future__ import annotations

import io

import pytest
from rich.console import Console

from scripts.demonstration.report import Report


@pytest.fixture
def out() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def report(out: io.StringIO) -> Report:
    return Report(Console(file=out, soft_wrap=True, highlight=False, emoji=False))


def test_all_well(report: Report, out: io.StringIO) -> None:
    report.step("First", "Shows something.")
    report.show("seen\ntwice")
    assert report.check(ok=True, expectation="it is there", seen="not shown")
    assert report.summary()
    assert out.getvalue().startswith(
        "\n 1. First\n    Shows something.\n    seen\n    twice\n    ✓ it is there\n"
    )
    assert "All as it should be: 1 steps, 1 checks" in out.getvalue()
    assert "not shown" not in out.getvalue()


def test_what_fails_is_said_at_once_and_again_at_the_end(report: Report, out: io.StringIO) -> None:
    report.step("First", "…")
    assert not report.check([], "it is there", "saw nothing")
    report.step("Second", "…")
    assert not report.check(None, "it lives", "it died:\n| its last words")
    assert "    ✗ it lives: it died:\n      | its last words\n" in out.getvalue()
    assert report.check(ok=True, expectation="fine")
    assert not report.summary()
    assert "    ✗ it is there: saw nothing\n" in out.getvalue()
    assert out.getvalue().endswith(
        "  ✗ First: it is there: saw nothing\n  ✗ Second: it lives: it died:\n"
    )


def test_text_is_shown_as_it_is(report: Report, out: io.StringIO) -> None:
    odd = "[bold]X[/bold] :smile: " + "long " * 60 + "end"
    report.show(odd)
    report.check(ok=True, expectation="[red]ok[/red]")
    report.facts([("a [b]", "[/]"), ("longer", "value")])
    assert out.getvalue() == (
        f"    {odd}\n    ✓ [red]ok[/red]\n    a [b]   [/]\n    longer  value\n"
    )
