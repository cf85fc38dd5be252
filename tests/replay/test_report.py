from __future__ import annotations

import io
import json

from hms_addons.replay.body_difference import Difference
from hms_addons.replay.flow_file import Cut, FlowFile
from hms_addons.replay.player import Result, Tally
from hms_addons.replay.report import document_of, exit_code, summary_of, text_of
from tests.replay.kit import recorded

CHANGED = Difference("status", "", "200", "500")


def empty() -> FlowFile:
    return FlowFile(io.BytesIO(), "x.flows")


def test_what_is_the_same_is_not_told() -> None:
    assert not text_of(Result(recorded(), []))


def test_a_difference_is_told_with_its_request() -> None:
    lines = [
        CHANGED,
        Difference("header", "x-a", "(none)", "1"),
        Difference("body", "$.a[1]", "1", "2"),
        Difference("body", "", "", "+new line"),
    ]
    assert text_of(Result(recorded(b"/x?\x1b", number=7), lines, None, "in part")) == (
        "#7 GET /x?\\x1b  (recorded 1970-01-01 00:00:00 UTC)\n"
        "    status  200 → 500\n"
        "    header  x-a: (none) → 1\n"
        "    body    $.a[1]: 1 → 2\n"
        "    body    +new line\n"
        "    (in part)\n"
    )


def test_many_differences_are_counted() -> None:
    assert "    … and 5 more\n" in text_of(Result(recorded(), [CHANGED] * 25))


def test_an_error_is_told() -> None:
    assert "    error   refused\n" in text_of(Result(recorded(), [], "refused"))


def test_the_summary_tells_what_was_left_out_and_why() -> None:
    tally = Tally(same=1, different=2, failed=1, partly=1, unsent=4)
    tally.skipped["they had no answer"] = 3
    tally.missing["Authorization"] = 2
    file = empty()
    file.other, file.unreadable, file.reason = 1, 1, "version 99"
    file.cut = Cut(100, 8, 5, "cut")
    said = summary_of(tally, file, "http://a")
    for part in (
        "3 requests compared with http://a: 1 the same, 2 different",
        "1 of them without their bodies",
        "1 had no new answer",
        "4 were not sent",
        "3 left out: they had no answer",
        "1 left out: they are no HTTP",
        "2 sent without Authorization",
        "1 flow could not be read: version 99",
        "cut at byte 100, behind 8 whole flows; the last 5 bytes are not used",
    ):
        assert part in said
    assert "nothing was compared" not in said


def test_exit_codes() -> None:
    assert exit_code(Tally(same=1), empty()) == 0
    assert exit_code(Tally(same=1, different=1), empty()) == 1
    assert exit_code(Tally(), empty()) == 2, "nothing was compared"
    assert exit_code(Tally(same=1, failed=1), empty()) == 2
    assert exit_code(Tally(same=1, unsent=1), empty()) == 2
    cut, unreadable = empty(), empty()
    cut.cut = Cut(1, 1, 1, "cut")
    unreadable.unreadable = 1
    assert exit_code(Tally(same=1), cut) == 2
    assert exit_code(Tally(different=1), unreadable) == 2
    assert "nothing was compared" in summary_of(Tally(), empty(), "http://a")


def test_the_document_is_json() -> None:
    file = empty()
    file.cut = Cut(1, 2, 3, "cut")
    result = Result(recorded(b"/\xff"), [CHANGED])
    document = document_of([result], Tally(different=1), file, "x.flows", "http://a")
    assert json.loads(json.dumps(document)) == document
    assert document["cut"] == {"offset": 1, "flows": 2, "lost": 3, "why": "cut"}
    assert document["requests"][0]["differences"] == [
        {"part": "status", "where": "", "before": "200", "after": "500"}
    ]
