"""What is done to the store's tables: plain functions over a connection, inside a transaction.

Each looks first and changes afterwards: when one raises a `StoreError`, it has changed nothing, and
its transaction can go on with the next.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.control.store.protocol import ConflictError, Entry, Event, LeaseError, Write

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

_ENTRY: Final = "SELECT key, value, revision, lease FROM entries"


class Change(NamedTuple):
    """What a batch has done."""

    revision: int
    """The store's, after it."""
    events: tuple[Event, ...]
    """By key; empty when nothing changed."""


def read_revision(connection: sqlite3.Connection) -> int:
    """The store's revision."""
    row = connection.execute("SELECT value FROM meta WHERE name = 'revision'").fetchone()
    revision: int = row[0]
    return revision


def read_leases(connection: sqlite3.Connection) -> dict[str, float]:
    """The TTL of each lease."""
    return dict(connection.execute("SELECT id, ttl FROM leases"))


def read_entry(connection: sqlite3.Connection, key: str) -> Entry | None:
    """See `Store.get`."""
    row = connection.execute(f"{_ENTRY} WHERE key = ?", (key,)).fetchone()
    return None if row is None else Entry(*row)


def read_entries(connection: sqlite3.Connection, prefix: str) -> list[Entry]:
    """See `Store.list`."""
    end = after_prefix(prefix)
    if end is None:
        rows = connection.execute(f"{_ENTRY} WHERE key >= ? ORDER BY key", (prefix,))
    else:
        range_ = f"{_ENTRY} WHERE key >= ? AND key < ? ORDER BY key"
        rows = connection.execute(range_, (prefix, end))
    return [Entry(*row) for row in rows]


def after_prefix(prefix: str) -> str | None:
    """The first text after all that begin with `prefix`, by code point; None: there is none."""
    for at in range(len(prefix) - 1, -1, -1):
        code = ord(prefix[at])
        if code < sys.maxunicode:
            # Surrogates are no characters, and SQLite stores none.
            following = 0xE000 if 0xD7FF <= code < 0xE000 else code + 1  # noqa: PLR2004 - the gap
            return prefix[:at] + chr(following)
    return None


def write(connection: sqlite3.Connection, writes: Sequence[Write]) -> Change:
    """See `Store.write`."""
    present = {}
    for item in writes:
        row = connection.execute("SELECT revision FROM entries WHERE key = ?", (item.key,))
        revision = (row.fetchone() or (0,))[0]
        if item.expected is not None and item.expected != revision:
            raise ConflictError(item.key, revision)
        present[item.key] = bool(revision)
    for lease in {item.lease for item in writes if item.lease and item.value is not None}:
        row = connection.execute("SELECT 1 FROM leases WHERE id = ?", (lease,))
        if row.fetchone() is None:
            raise LeaseError(lease)
    changes = [item for item in writes if item.value is not None or present[item.key]]
    return _apply(connection, changes)


def _apply(connection: sqlite3.Connection, changes: Sequence[Write]) -> Change:
    before = read_revision(connection)
    if not changes:
        return Change(before, ())
    revision = before + 1
    for key, value, _, lease in changes:
        if value is None:
            connection.execute("DELETE FROM entries WHERE key = ?", (key,))
        else:
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?) ON CONFLICT (key) DO UPDATE "
                "SET value = excluded.value, revision = excluded.revision, lease = excluded.lease",
                (key, value, revision, lease),
            )
    connection.execute("UPDATE meta SET value = ? WHERE name = 'revision'", (revision,))
    events = (Event(item.key, item.value, revision) for item in changes)
    return Change(revision, tuple(sorted(events)))


def grant(connection: sqlite3.Connection, lease: str, ttl: float) -> None:
    """See `Store.grant`."""
    connection.execute("INSERT INTO leases VALUES (?, ?)", (lease, ttl))


def end_leases(connection: sqlite3.Connection, leases: Iterable[str]) -> Change:
    """End leases and all their keys in one batch."""
    deletes: list[Write] = []
    for lease in leases:
        connection.execute("DELETE FROM leases WHERE id = ?", (lease,))
        found = connection.execute("SELECT key FROM entries WHERE lease = ?", (lease,))
        deletes.extend(Write(key, None) for (key,) in found)
    return _apply(connection, deletes)
