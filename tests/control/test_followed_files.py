from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.source import POLL_INTERVAL, SETTLE_TIME
from hms_addons.control.configs import FollowsFilesError
from hms_addons.control.followed_files import FollowedFiles
from hms_addons.control.store.protocol import StoreError
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.control_state import Plane


@pytest.fixture
def clock() -> FakeClock:
    """The files' own, which only they wait on."""
    return FakeClock()


async def look(clock: FakeClock) -> None:
    """Let it look, and push what it finds."""
    await clock.advance(POLL_INTERVAL)
    await clock.advance(SETTLE_TIME)
    async with asyncio.timeout(10):
        while not clock.pending:  # it waits again once it is done
            await asyncio.to_thread(int)  # where its files are read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mesh"
    folder.mkdir()
    (folder / "20-more.yaml").write_text("clusters: [{name: a, endpoints: ['h:2']}]")
    (folder / "10-base.yaml").write_text("clusters: [{name: a, endpoints: ['h:1']}, {name: b}]")
    (folder / "README.md").write_text("not: [yaml")
    return folder


async def test_a_folder_is_merged_in_the_order_of_names(
    plane: Plane, clock: FakeClock, folder: Path
) -> None:
    files = FollowedFiles(plane.configs, folder, clock)
    await files.start()
    content = await plane.configs.version(1)
    assert [name.rpartition("/")[2] for name, _ in content.files] == [
        "10-base.yaml",
        "20-more.yaml",
    ]
    assert (content.about.author, content.about.source) == ("files", str(folder))
    with pytest.raises(FollowsFilesError):
        await plane.push("clusters: []")
    await files.close()
    assert repr(files) == f"<FollowedFiles {folder}>"


async def test_a_change_is_a_new_version_and_no_change_is_none(
    plane: Plane, clock: FakeClock, folder: Path
) -> None:
    files = FollowedFiles(plane.configs, folder, clock)
    await files.start()
    await look(clock)
    assert len(plane.configs.versions()) == 1
    (folder / "30-new.yaml").write_text("clusters: [{name: c}]")
    await look(clock)
    assert len(plane.configs.versions()) == 2
    (folder / "30-new.yaml").unlink()
    await look(clock)
    assert len(plane.configs.versions()) == 3
    await files.close()


async def test_what_is_bad_is_told_once_and_the_last_good_version_stays(
    plane: Plane, clock: FakeClock, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = FollowedFiles(plane.configs, folder, clock)
    await files.start()
    (folder / "20-more.yaml").write_text("clusters: 5")
    await look(clock)
    await look(clock)
    assert caplog.text.count("20-more.yaml:1:11: clusters: expected a list") == 1
    assert len(plane.configs.versions()) == 1
    (problem,) = plane.fleet.status()["problems"]
    assert "20-more.yaml:1:11" in problem
    assert problem.startswith(f"{folder} is refused: ")

    (folder / "20-more.yaml").write_text("clusters: []")
    await look(clock)
    assert len(plane.configs.versions()) == 2
    assert plane.fleet.status()["problems"] == []
    await files.close()


async def test_a_file_that_is_no_utf_8_is_refused(
    plane: Plane, clock: FakeClock, folder: Path
) -> None:
    (folder / "20-more.yaml").write_text("clusters: []", encoding="utf-16")
    files = FollowedFiles(plane.configs, folder, clock)
    await files.start()
    assert "20-more.yaml:1:1: not readable as UTF-8 text" in str(plane.configs.trouble)
    assert plane.configs.current is None
    await files.close()


async def test_one_file_will_do_and_may_come_later(
    plane: Plane, clock: FakeClock, tmp_path: Path
) -> None:
    path = tmp_path / "mesh.yaml"
    files = FollowedFiles(plane.configs, path, clock)
    await files.start()
    assert "mesh.yaml" in str(plane.configs.trouble)
    path.write_text("clusters: [{name: a}]")
    await look(clock)
    assert plane.configs.trouble is None
    assert len(plane.configs.versions()) == 1
    await files.close()


async def test_an_empty_folder_wipes_nothing(plane: Plane, clock: FakeClock, folder: Path) -> None:
    files = FollowedFiles(plane.configs, folder, clock)
    await files.start()
    for name in ("10-base.yaml", "20-more.yaml"):
        (folder / name).unlink()
    await look(clock)
    assert "holds no .yaml file" in str(plane.configs.trouble)
    assert len(plane.configs.versions()) == 1
    await files.close()


async def test_what_could_not_be_stored_is_stored_as_soon_as_it_can_be(
    plane: Plane,
    clock: FakeClock,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    files = FollowedFiles(plane.configs, folder, clock)
    await files.start()

    async def full(writes: object) -> int:
        del writes
        raise StoreError("control.db: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "write", full)
        (folder / "30-new.yaml").write_text("clusters: [{name: c}]")
        await look(clock)
        await look(clock)
    assert len(plane.configs.versions()) == 1
    (problem,) = plane.fleet.status()["problems"]
    assert problem == (
        f"what {folder} says cannot be stored, and is tried again: "
        "control.db: database or disk is full"
    )
    assert "refused" not in caplog.text
    assert caplog.text.count("cannot be stored") == 1

    await look(clock)
    assert len(plane.configs.versions()) == 2
    assert plane.fleet.status()["problems"] == []
    await files.close()


async def test_a_start_with_a_store_that_cannot_be_written_is_made_up_for(
    plane: Plane, clock: FakeClock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = FollowedFiles(plane.configs, folder, clock)

    async def full(writes: object) -> int:
        del writes
        raise StoreError("full")

    with monkeypatch.context() as patch:
        patch.setattr(plane.store, "write", full)
        await files.start()
    assert plane.configs.current is None
    await look(clock)
    assert plane.configs.current is not None
    assert plane.configs.trouble is None
    await files.close()
