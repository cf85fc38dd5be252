from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.header_edits import MAX_VALUE, HeaderEdits, why_not_name, why_not_value

OWNED = (b"X-Policy-Version", b"X-Caller-Role")


def test_what_is_removed_goes_first_and_what_is_set_or_added_comes_last() -> None:
    edits = HeaderEdits(
        set=((b"X-Set", b"new"),), add=((b"X-Add", b"more"),), remove=(b"x-remove",)
    )
    before = ((b"x-set", b"old"), (b"X-Add", b"one"), (b"X-Remove", b"r"), (b"X-Other", b"o"))
    assert edits.apply(before) == (
        (b"X-Add", b"one"),
        (b"X-Other", b"o"),
        (b"X-Set", b"new"),
        (b"X-Add", b"more"),
    )


def test_a_rule_that_removes_nothing_keeps_every_field() -> None:
    before = ((b"A", b"1"), (b"a", b"2"))
    assert HeaderEdits(add=((b"A", b"3"),)).apply(before) == (*before, (b"A", b"3"))


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("Host", "use `rewrite: {host: …}`"),
        ("Content-Length", "frames the message"),
        ("content_length", "frames the message"),
        ("Connection", "frames the message"),
        ("TE", "frames the message"),
        ("X-Forwarded-Client-Cert", "only the mesh may"),
        ("X-HMS-Flag", "marks the mesh's own answers"),
        ("X-HMS-Fallback", "marks the mesh's own answers"),
        ("x_hms_mirror", "marks the mesh's own answers and copies"),
        ("x-policy-version", "only the mesh may set"),
        ("X_Caller_Role", "only the mesh may set"),
    ],
)
def test_names_that_no_rule_may_touch(name: str, why: str) -> None:
    assert why in (why_not_name(name, OWNED) or "")


@pytest.mark.parametrize("name", ["X-Team", "Authorization", "Server", "Set-Cookie", "Via"])
def test_other_names_are_free(name: str) -> None:
    assert why_not_name(name, OWNED) is None


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("a\r\nX-Evil: 1", "one line"),
        ("a\nb", "one line"),
        (" a", "space at either end"),
        ("a\t", "space at either end"),
        ("a\0b", "control characters"),
        ("a\x7fb", "control characters"),
        ("žluťoučký", "beyond Latin-1"),
        ("x" * (MAX_VALUE + 1), "more than"),
    ],
)
def test_values_that_no_field_can_carry(value: str, why: str) -> None:
    assert why in (why_not_value(value) or "")


@given(st.text())
def test_what_is_accepted_can_never_end_a_line(value: str) -> None:
    if why_not_value(value) is None:
        sent = value.encode("latin-1")
        assert not {0x0D, 0x0A, 0} & set(sent)
        assert sent == sent.strip()


@pytest.mark.parametrize("value", ["", "a", "a b", "é", 'text/html; q="x"'])
def test_ordinary_values_are_accepted(value: str) -> None:
    assert why_not_value(value) is None
