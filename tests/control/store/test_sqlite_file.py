from __future__ import annotations

import contextlib
import os
import sqlite3
import stat
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.store.sqlite_file import StoreFileError, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

NOBODY = 65534


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "control.db"


@pytest.fixture
def filled(path: Path) -> Path:
    """A store with a megabyte in it, closed in order."""
    with contextlib.closing(open_file(path)) as connection:
        for n in range(100):
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, 1, NULL)", (f"k{n}", os.urandom(10_000))
            )
    return path


@contextlib.contextmanager
def refused(path: Path, match: str) -> Iterator[None]:
    """The file is refused by name, and neither it nor its folder has changed."""

    def look() -> dict[str, bytes]:
        return {item.name: item.read_bytes() for item in path.parent.iterdir() if item.is_file()}

    before = look()
    with pytest.raises(StoreFileError, match=match) as caught:
        yield
    assert str(path) in str(caught.value)
    assert look() == before


def test_a_new_file_is_private_and_durable(path: Path) -> None:
    with contextlib.closing(open_file(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL
        connection.execute("INSERT INTO entries VALUES ('k', x'00', 1, NULL)")
        modes = {item.name: stat.S_IMODE(item.stat().st_mode) for item in path.parent.iterdir()}
    assert modes == {"control.db": 0o600, "control.db-wal": 0o600}
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_what_others_could_read_is_closed_to_them(filled: Path) -> None:
    filled.chmod(0o644)
    filled.parent.chmod(0o755)
    open_file(filled).close()
    assert stat.S_IMODE(filled.stat().st_mode) == 0o600
    assert stat.S_IMODE(filled.parent.stat().st_mode) == 0o700


def test_a_locked_file_is_refused(filled: Path) -> None:
    with contextlib.closing(open_file(filled)), refused(filled, "stop the other control plane"):
        open_file(filled)
    open_file(filled).close()


def test_a_file_that_another_program_locks_is_refused(filled: Path) -> None:
    other = sqlite3.connect(filled, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with contextlib.closing(other), refused(filled, "is locked"):
        open_file(filled)


@pytest.mark.parametrize("left", [0, 1, 16, 99])
def test_a_file_without_its_head_is_refused(filled: Path, left: int) -> None:
    os.truncate(filled, left)
    with refused(filled, f"is cut short: it has {left} bytes"):
        open_file(filled)


@pytest.mark.parametrize("left", [100, 4096, 5000, 40_960, 500_000, -4096, -1])
def test_a_file_that_is_cut_short_is_refused(filled: Path, left: int) -> None:
    os.truncate(filled, left if left > 0 else filled.stat().st_size + left)
    with refused(filled, "(damaged|cut short).*restore its whole folder from a backup"):
        open_file(filled)


def test_a_file_with_holes_is_refused(filled: Path) -> None:
    with filled.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xee" * 3 * 4096)
    with refused(filled, "damaged .*: restore its whole folder from a backup .*-wal"):
        open_file(filled)


def test_a_file_of_another_kind_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"listeners: []\n" * 1000)
    with refused(path, "is not a control plane's store"):
        open_file(path)


def test_another_programs_database_is_refused(path: Path) -> None:
    path.parent.mkdir()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE meta (name, value)")
    with refused(path, "is not a control plane's store"):
        open_file(path)


def test_a_newer_programs_file_is_refused(filled: Path) -> None:
    with contextlib.closing(open_file(filled)) as connection:
        connection.execute("UPDATE meta SET value = 2 WHERE name = 'schema'")
    with refused(filled, "by another version of this program .its schema: 2; this one's: 1."):
        open_file(filled)


def test_a_log_without_its_file_is_refused(filled: Path) -> None:
    connection = open_file(filled)
    connection.execute("DELETE FROM entries")
    filled.rename(filled.with_name("elsewhere"))
    log = filled.with_name("control.db-wal")
    assert log.exists()
    with contextlib.closing(connection), refused(filled, "is missing, but control.db-wal"):
        open_file(filled)


def test_a_folder_in_its_place_is_refused(path: Path) -> None:
    path.mkdir(parents=True)
    with refused(path, "is not a file"):
        open_file(path)


def test_a_file_in_the_folders_place_is_refused(path: Path) -> None:
    path.parent.write_bytes(b"")
    with pytest.raises(StoreFileError, match="give another folder"):
        open_file(path)


@pytest.fixture
def unprivileged(tmp_path: Path) -> Iterator[Callable[[Path], None]]:
    """Root writes what it likes; so be nobody, who owns the folders given."""
    root = os.geteuid() == 0

    def own(path: Path) -> None:
        if root:
            for item in (path.parent, path):
                os.chown(item, NOBODY, NOBODY)
            for item in tmp_path.parents[:3]:  # a parallel run has one folder more
                item.chmod(item.stat().st_mode | 0o011)
            tmp_path.chmod(0o755)
            os.seteuid(NOBODY)

    yield own
    if root:
        os.seteuid(0)


def test_a_read_only_file_is_refused(filled: Path, unprivileged: Callable[[Path], None]) -> None:
    filled.chmod(0o400)
    unprivileged(filled)
    with refused(filled, "cannot be written"):
        open_file(filled)


def test_a_read_only_folder_is_refused(filled: Path, unprivileged: Callable[[Path], None]) -> None:
    filled.parent.chmod(0o500)
    unprivileged(filled)
    try:
        with refused(filled, "cannot be written"):
            open_file(filled)
    finally:
        filled.parent.chmod(0o700)


def test_a_start_that_was_broken_off_leaves_nothing_in_the_way(path: Path) -> None:
    path.parent.mkdir()
    path.with_name(".control.db.abc").write_bytes(b"half")
    open_file(path).close()
    assert path.exists()
