from __future__ import annotations

import gzip
from dataclasses import replace
from typing import TYPE_CHECKING

from hms_addons.replay.body_difference import parse_path
from hms_addons.replay.comparison import Rules, compare
from hms_addons.replay.message import Answered
from tests.replay.kit import fields_of, recorded

if TYPE_CHECKING:
    import pytest

PLAIN = fields_of([("Content-Type", "application/json"), ("Date", "Mon"), ("X-A", "1")])
OLD = Answered(200, PLAIN, b'{"id": 1}')
REQUEST = recorded(answer=OLD)


def told(new: Answered, rules: Rules | None = None, old: Answered = OLD) -> list[str]:
    found = compare(replace(REQUEST, answer=old), new, rules or Rules())
    return [f"{one.part} {one.where}: {one.before} → {one.after}" for one in found]


def test_the_same_is_the_same() -> None:
    assert told(OLD) == []


def test_status_headers_and_body_are_told() -> None:
    fields = fields_of([("content-type", "application/json"), ("X-A", "2"), ("X-B", "3")])
    assert told(Answered(500, fields, b'{"id": 2}')) == [
        "status : 200 → 500",
        "header x-a: 1 → 2",
        "header x-b: (none) → 3",
        "body $.id: 1 → 2",
    ]


def test_what_always_differs_is_passed_over_and_what_its_user_names() -> None:
    fields = fields_of(
        [
            ("Content-Type", "application/json"),
            ("Date", "Tue"),
            ("X-Request-ID", "7"),
            ("X-A", "2"),
        ]
    )
    rules = Rules(frozenset({"x-a"}), (parse_path("$.id"),))
    assert told(Answered(200, fields, b'{"id": 2}'), rules) == []


def test_repeated_headers_count_in_their_order() -> None:
    old = Answered(200, fields_of([("Vary", "a"), ("Vary", "b")]), b"")
    new = Answered(200, fields_of([("Vary", "b"), ("Vary", "a")]), b"")
    assert told(new, old=old) == ["header vary: a | b → b | a"]


def test_of_secrets_only_their_presence_counts_and_nothing_is_shown() -> None:
    old = Answered(200, fields_of([("Set-Cookie", "[redacted]")]), b"")
    assert told(Answered(200, fields_of([("Set-Cookie", "id=hunter2")]), b""), old=old) == []
    assert told(Answered(200, (), b""), old=old) == ["header set-cookie: [redacted] → (none)"]
    two = Answered(200, fields_of([("Set-Cookie", "id=hunter2"), ("Set-Cookie", "b=1")]), b"")
    assert "hunter2" not in "".join(told(two, old=old))


def test_a_body_that_is_not_whole_is_not_compared() -> None:
    part = Answered(200, PLAIN, None)
    assert told(part) == []
    assert told(OLD, old=part) == []
    assert told(Answered(404, PLAIN, b""), old=part) == ["status : 200 → 404"]


def test_bodies_are_compared_as_they_mean() -> None:
    coded = fields_of([("Content-Type", "application/json"), ("Content-Encoding", "gzip")])
    zipped = Answered(200, (*coded, (b"X-A", b"1")), gzip.compress(b'{"id":1}'))
    assert told(zipped) == ["header content-encoding: (none) → gzip"]


def test_the_length_of_a_head_s_answer_counts() -> None:
    old = Answered(200, fields_of([("Content-Length", "5")]), b"")
    new = Answered(200, fields_of([("Content-Length", "6")]), b"")
    assert told(new, old=old) == []
    assert compare(recorded(method="HEAD", answer=old), new, Rules())


def test_what_is_too_long_when_decoded_is_compared_as_it_came(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hms_addons.replay.content_coding.MOST", 100)
    coded = fields_of([("Content-Encoding", "gzip")])
    old = Answered(200, coded, gzip.compress(b"a" * 101, mtime=0))
    assert told(old, old=old) == []
    new = Answered(200, coded, gzip.compress(b"a" * 102, mtime=0))
    (line,) = told(new, old=old)
    assert line.startswith("body not decoded, as it is longer than 100 bytes when decoded: ")
    assert line.endswith(" bytes as they came")


def test_a_secret_within_a_url_is_neither_a_difference_nor_shown() -> None:
    for before in ("[redacted]", "[redacted-0123456789abcdef]"):
        old = Answered(302, fields_of([("Location", f"/in?token={before}&a=1")]), b"")
        new = Answered(302, fields_of([("Location", "/in?token=hunter2&a=1")]), b"")
        assert told(new, old=old) == []
    new = Answered(302, fields_of([("Location", "/in?token=hunter2&a=2")]), b"")
    assert told(new, old=old) == [
        "header location: /in?token=[redacted]&a=1 → /in?token=[redacted]&a=2"
    ]
