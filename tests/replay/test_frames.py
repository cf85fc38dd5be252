from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.replay.frames import MOST, DamagedError, Frames

ONE = b"6:0:~0:~}"
"""As mitmproxy frames a dictionary; what is in it is not looked at."""
TWO = b"12:3:abc,3:def,}"


def test_records_come_whole_however_the_bytes_come() -> None:
    frames = Frames()
    found = [record for byte in ONE + TWO + ONE for record in frames.feed(bytes([byte]))]
    assert found == [ONE, TWO, ONE]
    assert (frames.offset, frames.rest) == (len(ONE + TWO + ONE), 0)


def test_a_cut_is_where_the_last_whole_record_ends() -> None:
    frames = Frames()
    assert list(frames.feed(ONE + TWO[:-3])) == [ONE]
    assert (frames.offset, frames.rest) == (len(ONE), len(TWO) - 3)
    assert repr(frames) == f"<Frames offset={len(ONE)} rest={len(TWO) - 3}>"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"listeners:\n", "no length"),
        (b":", "no length"),
        (b"-5:abcde}", "no length"),
        (b"1234567890123", "no length"),
        (b"3:abc,", "does not end as a flow"),
        (b"%d:" % (MOST + 1), "would have"),
    ],
)
def test_what_is_no_record_is_told(data: bytes, why: str) -> None:
    frames = Frames()
    assert list(frames.feed(ONE)) == [ONE]
    with pytest.raises(DamagedError, match=why):
        list(frames.feed(data))
    assert frames.offset == len(ONE)


@given(st.binary(max_size=64))
def test_any_bytes_are_records_or_refused(data: bytes) -> None:
    frames = Frames()
    try:
        records = list(frames.feed(data))
    except DamagedError:
        return
    assert b"".join(records) == data[: frames.offset]
