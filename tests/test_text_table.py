from __future__ import annotations

from typing import Any

from hms_addons.text_table import flat, indent, table


def test_columns_are_aligned_and_empty_ones_left_out() -> None:
    rows: list[dict[str, Any]] = [
        {"name": "a", "state": "open", "note": None, "on": True},
        {"name": "longer", "state": "closed", "note": None, "on": False, "tags": ["x", 1]},
    ]
    assert table(rows) == (
        "NAME    STATE   ON   TAGS\na       open    yes\nlonger  closed  no   x, 1"
    )
    assert table([]) == ""


def test_a_summary_in_one_line() -> None:
    slots = {"in_use": 1, "max": 5}
    assert flat({"open_slots": slots, "a": None, "b": {"c": 1}}) == "open slots 1/5, b (c 1)"
    assert flat({"a": {}, "b": 1}) == "b 1"


def test_indented() -> None:
    assert indent("a\nb") == "  a\n  b"
