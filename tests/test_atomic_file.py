from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from hms_addons.atomic_file import PUBLIC_MODE, SECRET_MODE, write_atomic

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("mode", [SECRET_MODE, PUBLIC_MODE])
def test_content_and_permissions(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "file"
    for content in (b"one", b"", b"two"):
        write_atomic(path, content, mode=mode)
        assert path.read_bytes() == content
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_are_narrowed_on_replacement(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(b"old")
    path.chmod(0o666)
    write_atomic(path, b"new", mode=SECRET_MODE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_reader_keeps_the_whole_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old" * 1000, mode=PUBLIC_MODE)
    with path.open("rb") as reader:
        head = reader.read(3)
        write_atomic(path, b"new", mode=PUBLIC_MODE)
        assert head + reader.read() == b"old" * 1000


def test_a_failure_leaves_the_old_file_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomic(path, b"old", mode=PUBLIC_MODE)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_atomic(path, b"new", mode=PUBLIC_MODE)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "no" / "file", b"x", mode=PUBLIC_MODE)
