from __future__ import annotations

import stat
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.last_good import SNAPSHOT_FILE, LastGood
from hms_addons.control_client.pushed import PushedSnapshot
from hms_addons.state_folder import StateFolder
from hms_addons.tasks import TaskSet
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

ONE = PushedSnapshot(1, "aa", {"clusters": []})
TWO = PushedSnapshot(2, "bb", {"clusters": [{"name": "a"}]})


def made(folder: Path) -> LastGood:
    return LastGood(StateFolder(folder), "x", FakeClock())


def test_what_was_kept_is_read(tmp_path: Path) -> None:
    kept = made(tmp_path)
    assert kept.read() is None
    kept.keep(ONE)
    kept.keep(TWO)
    kept.flush()
    assert made(tmp_path).read() == TWO
    assert stat.S_IMODE((tmp_path / SNAPSHOT_FILE).stat().st_mode) == 0o600
    kept.flush()
    assert "unwritten=None" in repr(kept)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"{}", b"[" * 100_000, b"\xff"])
def test_what_cannot_be_used_is_set_aside(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    StateFolder(tmp_path).write(SNAPSHOT_FILE, content)
    assert made(tmp_path).read() is None
    assert (tmp_path / f"{SNAPSHOT_FILE}.damaged").exists()
    assert SNAPSHOT_FILE in caplog.text


def test_another_service_s_is_set_aside(tmp_path: Path) -> None:
    StateFolder(tmp_path).write(SNAPSHOT_FILE, ONE.to_json("y"))
    assert made(tmp_path).read() is None


async def test_changes_that_come_fast_are_written_once_a_second(tmp_path: Path) -> None:
    clock = FakeClock()
    kept = LastGood(StateFolder(tmp_path), "x", clock)
    tasks = TaskSet("test")
    tasks.start(kept.run(), "keep")
    kept.keep(ONE)
    while made(tmp_path).read() != ONE:
        await clock.advance(0)
    kept.keep(TWO)
    await clock.advance(0.5)
    assert made(tmp_path).read() == ONE
    while made(tmp_path).read() != TWO:
        await clock.advance(0.6)
    await tasks.close()


def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    kept = made(tmp_path / "file" / "state")
    kept.keep(ONE)
    kept.flush()
    assert "a restart would need the control plane" in caplog.text
