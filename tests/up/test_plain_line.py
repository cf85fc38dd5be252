from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.up.plain_line import plain_line, without_colours


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("plain", "plain"),
        ("a\ttab, ä and 漢", "a\ttab, ä and 漢"),
        ("\x1b[31mred\x1b[0m", "\x1b[31mred\x1b[0m"),
        ("\x1b[1;38;5;9mred", "\x1b[1;38;5;9mred\x1b[0m"),
        ("\x1b[2J\x1bc", r"\x1b[2J\x1bc"),
        ("\x1b]52;c;aGk=\x07", r"\x1b]52;c;aGk=\x07"),
        ("\x9b2J\x00\x7f", r"\x9b2J\x00\x7f"),
        ("100 %\rall is well", r"100 %\rall is well"),
        (
            "one\x0btwo\x0cthree\x1cfour\x85five\u2028six",
            r"one\x0btwo\x0cthree\x1cfour\x85five\u2028six",
        ),
        ("user\u202etxt.exe", r"user\u202etxt.exe"),
    ],
)
def test_colours_stay_and_the_rest_is_written_out(written: str, shown: str) -> None:
    assert plain_line(written) == shown


@given(st.text())
def test_it_is_one_line_whatever_it_holds(text: str) -> None:
    shown = without_colours(plain_line(text))
    assert "\x1b" not in shown
    assert len(shown.splitlines()) <= 1


def test_without_colours_the_words_are_left() -> None:
    assert without_colours(plain_line("\x1b[31mred")) == "red"
