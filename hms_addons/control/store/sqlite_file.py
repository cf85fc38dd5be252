"""The store's file: made whole, opened by one process at a time, refused when it is not ours.

Write-ahead log with `synchronous=FULL`: a commit is on disk when it returns. The file is locked for
as long as it is open, so two control planes never share one; the lock ends with the process.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
from pathlib import Path
from typing import Final

from hms_addons.atomic_file import SECRET_MODE
from hms_addons.control.store.protocol import StoreError

FOLDER_MODE: Final = 0o700
APPLICATION_ID: Final = 0x484D5331
"""`HMS1`, in the file's head: tells our files from other SQLite files."""
SCHEMA: Final = 1
"""The tables' version; a program refuses what a newer one has made."""

_TABLES: Final = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL);
CREATE TABLE entries (
  key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL, lease TEXT
);
CREATE INDEX entries_by_lease ON entries (lease) WHERE lease IS NOT NULL;
CREATE TABLE leases (id TEXT PRIMARY KEY, ttl REAL NOT NULL);
"""
_HEAD: Final = b"SQLite format 3\0"
# https://www.sqlite.org/fileformat.html section 1.3
_PAGE_AT: Final = slice(16, 18)
_PAGES_AT: Final = slice(28, 32)
_ID_AT: Final = slice(68, 72)
_LARGEST_PAGE: Final = 65_536  # written as 1
_HEAD_BYTES: Final = 100
_RESTORE: Final = (
    "restore its whole folder from a backup (it belongs together with its -wal, and a copy of one "
    "without the other is none)"
)
_CODE: Final = 0xFF  # SQLite's extended error codes keep the plain one in the lowest byte


class StoreFileError(StoreError):
    """The store's file cannot be used; the message names it and the remedy."""


def open_file(path: Path) -> sqlite3.Connection:
    """A connection to the store at `path`, which is made if there is none. May wait for the disk.

    The folder is made 0700, the file 0600; what is wider is narrowed.

    Raises:
        StoreFileError: it is locked, damaged, read-only, of another program or of a newer one; it
            is as it was.
    """
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        if not path.exists():
            _create(path)
        _check_head(path)
        for item, mode in ((path.parent, FOLDER_MODE), (path, SECRET_MODE)):
            if item.stat().st_mode & 0o077:
                item.chmod(mode)
        return _connect(path)
    except OSError as error:
        message = (
            f"{path} cannot be written: {error.strerror or error}; let this user write it and its "
            "folder, or give another folder"
        )
        raise StoreFileError(message) from error
    except sqlite3.Error as error:
        raise StoreFileError(explain(path, error)) from error


def explain(path: Path, error: sqlite3.Error) -> str:
    """What `error` means for the file at `path`, and the remedy."""
    code = getattr(error, "sqlite_errorcode", None)
    plain = None if code is None else code & _CODE
    if plain in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
        return f"{path} is locked: another process uses it; stop the other control plane first"
    if plain in {sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}:
        return (
            f"{path} cannot be written ({error}): let this user write the file and its folder, and "
            "see that the file system is not mounted read-only"
        )
    if plain in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}:
        return f"{path} is damaged or cut short ({error}): {_RESTORE}"
    if plain == sqlite3.SQLITE_FULL:
        return f"{path} could not grow ({error}): make room on its disk"
    return f"{path}: {error}"


def _create(path: Path) -> None:
    """Make an empty store; it gets its name when it is whole, so a crash leaves none."""
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        # SQLite would play the log of the lost file into the new one.
        message = (
            f"{path} is missing, but {log.name}, which belongs to it, is there: restore both from a "
            "backup, or delete that too"
        )
        raise StoreFileError(message)
    descriptor, made = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(descriptor)
    temporary = Path(made)
    try:
        with contextlib.closing(sqlite3.connect(temporary, isolation_level=None)) as connection:
            connection.executescript(_TABLES)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            start = [("schema", SCHEMA), ("revision", 0)]
            connection.executemany("INSERT INTO meta VALUES (?, ?)", start)
        with contextlib.suppress(FileExistsError):  # another process was faster: take its
            path.hardlink_to(temporary)
    finally:
        temporary.unlink()
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _check_head(path: Path) -> None:
    """Refuse what is not ours before SQLite touches it."""
    if not path.is_file():
        raise StoreFileError(f"{path} is not a file; give another folder")
    with path.open("r+b") as file:  # for writing: SQLite takes a read-only one, and fails later
        head = file.read(_HEAD_BYTES)
        size = os.fstat(file.fileno()).st_size
    if _HEAD.startswith(head[: len(_HEAD)]) and size < _whole(path, head):
        message = f"{path} is cut short: it has {size} bytes; {_RESTORE}"
        raise StoreFileError(message)
    ours = head.startswith(_HEAD) and int.from_bytes(head[_ID_AT]) == APPLICATION_ID
    if not ours:
        message = f"{path} is not a control plane's store, and is left alone; give another folder"
        raise StoreFileError(message)


def _whole(path: Path, head: bytes) -> int:
    """The bytes that the file has at least."""
    log = path.with_name(f"{path.name}-wal")
    if len(head) < _HEAD_BYTES or (log.exists() and log.stat().st_size):
        return _HEAD_BYTES  # the end of the file may still be in the log
    page = int.from_bytes(head[_PAGE_AT])
    return int.from_bytes(head[_PAGES_AT]) * (_LARGEST_PAGE if page == 1 else page)


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=0,
        isolation_level=None,
        check_same_thread=False,  # opened and used by one worker thread, closed after it
    )
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("BEGIN IMMEDIATE")  # takes the lock, and shows what cannot be written
        _check_content(path, connection)
        connection.execute("ROLLBACK")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA secure_delete = ON")  # a retired CA key does not linger
    except BaseException:
        connection.close()
        raise
    return connection


def _check_content(path: Path, connection: sqlite3.Connection) -> None:
    row = connection.execute("SELECT value FROM meta WHERE name = 'schema'").fetchone()
    if row is None or row[0] != SCHEMA:
        written = "none" if row is None else row[0]
        message = (
            f"{path} was written by another version of this program (its schema: {written}; this "
            f"one's: {SCHEMA}): use that version, or restore a backup from before"
        )
        raise StoreFileError(message)
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise StoreFileError(f"{path} is damaged ({found}): {_RESTORE}")
