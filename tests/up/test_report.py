from __future__ import annotations

import json
from io import StringIO

from rich.console import Console

from hms_addons.up.report import (
    MOST_LINES,
    TOGETHER,
    JsonReport,
    LiveReport,
    Terminal,
    TextReport,
)
from hms_addons.up.stats import Row
from tests.fakes.clock import FakeClock


class Full(StringIO):
    """Takes nothing any more, as a closed pipe."""

    def write(self, text: str, /) -> int:
        raise BrokenPipeError(text)


def test_without_a_terminal_there_are_plain_lines_with_names() -> None:
    out = StringIO()
    report = TextReport(Console(file=out, width=40))
    report.log("a-1", "x" * 60 + " [bold]\x1b[31mred\x1b[0m")
    report.state("a-1", "waiting", "has ended; its last lines:\n    oh")
    report.state("a-1", "ready", "")
    report.say("one\ntwo", event="problem")
    assert out.getvalue().splitlines() == [
        "a-1      │ " + "x" * 60 + " [bold]red",
        "up       │ a-1 has ended; its last lines:",
        "up       │     oh",
        "up       │ a-1 is ready",
        "up       │ one",
        "up       │ two",
    ]


def test_instances_have_colours_on_a_terminal() -> None:
    out = StringIO()
    report = TextReport(Console(file=out, force_terminal=True, color_system="standard"))
    report.log("a-1", "x")
    report.log("b-1", "x")
    first, second = out.getvalue().splitlines()
    assert first.replace("a-1", "b-1") != second


def test_the_table_is_below_the_lines() -> None:
    out = StringIO()
    report = LiveReport(Console(file=out, force_terminal=True, width=100, height=20), FakeClock())
    report.table([Row("a-1", "ready")])
    report.log("a-1", "hello")
    report.close()
    assert "INSTANCE" in out.getvalue()
    assert "hello" in out.getvalue()


def test_many_lines_cost_few_drawings_and_what_the_mesh_says_is_never_left_out() -> None:
    out, clock = StringIO(), FakeClock()
    report = LiveReport(Console(file=out, force_terminal=True, width=100, height=20), clock)
    report.table([Row("a-1", "ready")])
    for number in range(MOST_LINES + 7):
        report.log("a-1", f"line {number}")
    report.state("b-1", "waiting", "has ended")
    before = out.getvalue()
    assert "line 0" not in before
    clock.tick(TOGETHER)
    said = out.getvalue()[len(before) :]
    assert said.count("INSTANCE") == 1
    assert said.count("line ") == MOST_LINES
    assert "b-1 has ended" in said
    assert "7 lines more; `hms logs SERVICE` has the newest" in said
    report.log("a-1", "the last")
    report.close()
    assert "the last" in out.getvalue()
    assert clock.pending == 0


def test_without_colours_there_are_none_at_all() -> None:
    out = StringIO()
    report = TextReport(Console(file=out, force_terminal=True, no_color=True))
    report.log("a-1", "\x1b[31mred\x1b[0m")
    report.state("a-1", "ready", "")
    assert "\x1b" not in out.getvalue()


def test_what_it_quotes_cannot_forge_lines() -> None:
    out = StringIO()
    report = TextReport(Console(file=out))
    report.say("port 1 is in use by process 7 (sh\x1b[2J\r)")
    assert out.getvalue() == "up       │ port 1 is in use by process 7 (sh\\x1b[2J\\r)\n"


def test_scripts_get_an_object_a_line() -> None:
    out = StringIO()
    report = JsonReport(out, FakeClock(wall=5.0))
    report.log("a-1", 'say "hi"')
    report.state("a-1", "ready", "")
    report.say("all is well", event="up", instances=[])
    report.say("no event of its own")
    report.table([])
    report.close()
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {"event": "log", "time": 5.0, "instance": "a-1", "line": 'say "hi"'},
        {"event": "state", "time": 5.0, "instance": "a-1", "state": "ready", "detail": ""},
        {"event": "up", "time": 5.0, "message": "all is well", "instances": []},
        {"event": "message", "time": 5.0, "message": "no event of its own"},
    ]


def test_when_nobody_listens_any_more_that_is_told() -> None:
    for report in (JsonReport(Full(), FakeClock()), TextReport(Terminal(file=Full()))):
        gone: list[bool] = []
        report.on_gone = lambda gone=gone: gone.append(True)  # type: ignore[misc]
        report.log("a-1", "x")
        assert gone == [True]
