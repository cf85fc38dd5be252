from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from hms_addons.up import file_watch
from hms_addons.up.file_watch import FileWatch, Looks, why_not

if TYPE_CHECKING:
    from pathlib import Path


def watch(folder: Path, *patterns: str) -> FileWatch:
    made = FileWatch(folder, patterns)
    made.begin()
    return made


def test_files_that_change_come_and_go_are_seen(tmp_path: Path) -> None:
    source = tmp_path / "a" / "b.py"
    source.parent.mkdir()
    source.write_text("1")
    watched = watch(tmp_path, "**/*.py")
    assert watched.changed({}) is None
    os.utime(source, (1, 1))
    assert watched.changed({}) == source
    assert watched.changed({}) is None
    (tmp_path / "new.py").write_text("")
    assert watched.changed({}) == tmp_path / "new.py"
    source.unlink()
    assert watched.changed({}) == source
    assert repr(watched) == f"<FileWatch {tmp_path} **/*.py>"


def test_what_changes_by_itself_is_not_watched(tmp_path: Path) -> None:
    watched = watch(tmp_path, "**/*")
    for name in (".hms/up/logs", ".git", "src/__pycache__"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").write_text("")
    assert watched.changed({}) == tmp_path / "src"
    (tmp_path / ".hms" / "up" / "logs" / "file").write_text("more")
    assert watched.changed({}) is None


def test_instances_of_a_service_look_at_the_disk_once(tmp_path: Path) -> None:
    first, second = watch(tmp_path, "*"), watch(tmp_path, "*")
    (tmp_path / "one").write_text("")
    looks: Looks = {}
    assert first.changed(looks) == tmp_path / "one"
    (tmp_path / "zero").write_text("")
    assert second.changed(looks) == tmp_path / "one"
    assert len(looks) == 1


def test_nothing_counts_before_it_has_begun_or_without_patterns(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("")
    assert FileWatch(tmp_path, ("*",)).changed({}) is None
    assert watch(tmp_path).changed({}) is None


def test_there_are_not_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(file_watch, "MOST_WATCHED", 2)
    for name in "abc":
        (tmp_path / name).write_text("")
    assert watch(tmp_path, "*").full
    assert not watch(tmp_path, "a").full


@pytest.mark.parametrize("pattern", ["", ".", "/etc/*.conf", "../*.py", "a/../../b", "a\0b"])
def test_these_are_no_patterns(pattern: str) -> None:
    assert why_not(pattern)


@pytest.mark.parametrize("pattern", ["*.py", "src/**/*.py", ".env", "./a", "..a"])
def test_these_are(pattern: str) -> None:
    assert why_not(pattern) is None
