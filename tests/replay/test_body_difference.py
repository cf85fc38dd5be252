from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.replay.body_difference import (
    Difference,
    body_differences,
    parse_path,
    printable,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


def told(before: Any, after: Any, *ignored: str) -> list[tuple[str, str, str]]:
    paths = [parse_path(path) for path in ignored]
    found = body_differences(json.dumps(before).encode(), json.dumps(after).encode(), ignored=paths)
    assert {one.part for one in found} <= {"body"}
    return [one[1:] for one in found]


def test_json_is_compared_by_its_structure() -> None:
    before = {"id": 7, "items": [{"n": 1}, {"n": 2}], "gone": None}
    after = {"items": [{"n": 1}, {"n": 3}, {"n": 4}], "id": 7, "new": True}
    assert told(before, after) == [
        ("$.items[1].n", "2", "3"),
        ("$.items[2]", "(none)", '{"n": 4}'),
        ("$.gone", "null", "(none)"),
        ("$.new", "(none)", "true"),
    ]


def test_true_is_not_one_and_one_is_one() -> None:
    assert told({"a": True}, {"a": 1}) == [("$.a", "true", "1")]
    assert told({"a": 1}, {"a": 1.0}) == []


def test_spaces_and_order_of_keys_do_not_count() -> None:
    assert body_differences(b'{"a":1,"b":2}', b'{"b": 2, "a": 1}\n') == []


def test_values_that_may_differ_are_passed_over() -> None:
    before = {"id": 1, "items": [{"at": 1, "n": 1}, {"at": 2, "n": 2}], "deep": {"x": [1]}}
    after = {"id": 2, "items": [{"at": 3, "n": 1}, {"at": 4, "n": 5}], "deep": {"x": [2]}}
    assert told(before, after, "$.id", "items[*].at", "$.deep") == [("$.items[1].n", "2", "5")]
    assert told(before, after, "$.*", "items[0]") == []


@given(VALUES, VALUES)
def test_there_are_differences_exactly_where_values_differ(before: Any, after: Any) -> None:
    same = json.dumps(before, sort_keys=True) == json.dumps(after, sort_keys=True)
    assert bool(told(before, after)) != same


@given(VALUES)
def test_a_value_is_as_it_is(value: Any) -> None:
    assert told(value, value) == []


@pytest.mark.parametrize("wrong", ["", "$", "$.", "a[x]", "a..b", "[1", "a]"])
def test_what_is_no_path_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="path such as|names nothing"):
        parse_path(wrong)


def test_text_is_compared_by_its_lines() -> None:
    found = body_differences(b"a\nb\nc\nd\n", b"a\nb\nx\nd\n", kind="text/plain")
    assert [one.after for one in found] == ["@@ -2,3 +2,3 @@", " b", "-c", "+x", " d"]


def test_only_line_ends_differ() -> None:
    assert body_differences(b"a\nb\n", b"a\r\nb\r\n") == [
        Difference("body", "line ends", r"'b\n'", r"'\r\n'")
    ]


def test_long_texts_are_not_compared_line_by_line() -> None:
    lines = [f"{number}" for number in range(5000)]
    other = [*lines[:4321], "x", *lines[4322:]]
    (found,) = body_differences("\n".join(lines).encode(), "\n".join(other).encode())
    assert "first other line: 4322" in found.before


def test_binary_is_compared_by_size() -> None:
    assert body_differences(b"\0\1", b"\0\1\2") == [Difference("body", "", "2 bytes", "3 bytes")]
    (found,) = body_differences(b"abc", b"abd", kind="image/png")
    assert found.before == "3 bytes"
    (found,) = body_differences(b"\xff\xfe", b"text")
    assert found.after == "4 bytes"


def test_json_nested_to_exhaustion_is_text() -> None:
    deep = b"[" * 100_000 + b"]" * 100_000
    assert body_differences(deep, b"[]")


def test_nothing_reaches_the_terminal_that_it_would_obey() -> None:
    assert printable("a\x1b[2Jb\x9b\u202e") == "a\\x1b[2Jb\\x9b\\x202e"
    assert printable("x" * 200) == "x" * 120 + "… (200 characters)"
    (found,) = body_differences(b'"a"', b'"\xc2\x9b31m"')
    assert found.after == '"\\x9b31m"'


def test_half_a_character_is_shown() -> None:
    (found,) = body_differences(b'"a"', b'"\\ud800"')
    assert found.after == '"\\xd800"'
