from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.store import sqlite_work
from hms_addons.control.store.protocol import ConflictError, Event, LeaseError, Write
from hms_addons.control.store.sqlite_file import open_file
from hms_addons.control.store.sqlite_work import after_prefix

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with contextlib.closing(open_file(tmp_path / "control.db")) as connection:
        yield connection


@given(TEXT, TEXT)
def test_a_prefix_is_a_range(prefix: str, text: str) -> None:
    end = after_prefix(prefix)
    within = text >= prefix and (end is None or text < end)
    assert within == text.startswith(prefix)


def test_the_last_prefix_has_no_end() -> None:
    assert after_prefix("") is None
    assert after_prefix("\U0010ffff\U0010ffff") is None
    assert after_prefix("a\U0010ffff") == "b"
    assert after_prefix("\ud7ff") == "\ue000"


def test_a_refusal_has_changed_nothing(connection: sqlite3.Connection) -> None:
    sqlite_work.write(connection, [Write("a", b"1")])
    before = connection.total_changes
    with pytest.raises(ConflictError):
        sqlite_work.write(connection, [Write("b", b"1"), Write("a", b"2", expected=0)])
    with pytest.raises(LeaseError):
        sqlite_work.write(connection, [Write("b", b"1"), Write("c", b"1", lease="none")])
    assert connection.total_changes == before


def test_events_come_by_key(connection: sqlite3.Connection) -> None:
    change = sqlite_work.write(connection, [Write("b", b"1"), Write("c", b"1"), Write("a", b"1")])
    assert change.events == (Event("a", b"1", 1), Event("b", b"1", 1), Event("c", b"1", 1))


def test_a_lease_without_keys_ends_unseen(connection: sqlite3.Connection) -> None:
    sqlite_work.grant(connection, "l1", 5.0)
    assert sqlite_work.read_leases(connection) == {"l1": 5.0}
    assert sqlite_work.end_leases(connection, ["l1", "l2"]) == (0, ())
    assert sqlite_work.read_leases(connection) == {}
