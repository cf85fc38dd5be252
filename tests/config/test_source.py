from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.problems import ConfigProblems
from hms_addons.config.source import (
    POLL_INTERVAL,
    SETTLE_TIME,
    FileSource,
    load_files,
    read_files,
)
from hms_addons.errors import MeshError
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hms_addons.config.snapshot import Snapshot

ONE = "listeners: [{name: one, port: 1}]"
TWO = "listeners: [{name: two, port: 1}]"


class Watch:
    """A running watch, and what it has told so far."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.told: list[str] = []
        self.refusing = False
        self._news = asyncio.Event()

    async def on_snapshot(self, snapshot: Snapshot) -> None:
        self._tell(f"ok {snapshot.listeners[0].name}")
        if self.refusing:
            message = "the port is in use"
            raise MeshError(message)

    def on_refused(self, reason: str) -> None:
        self._tell(f"refused {reason}")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        self._news.set()

    async def poll(self) -> None:
        """Let one look, and the wait for a standstill after it, go by."""
        await self.clock.advance(POLL_INTERVAL)
        await self.clock.advance(SETTLE_TIME)

    async def news(self) -> str:
        """Poll until there is something new; compiling is done in a thread."""
        self._news.clear()
        await self.poll()
        await asyncio.wait_for(self._news.wait(), 10)
        return self.told[-1]


@asynccontextmanager
async def watching(*paths: Path) -> AsyncIterator[Watch]:
    watch = Watch(FakeClock())
    source = FileSource(paths, watch.clock)
    source.load()
    task = asyncio.create_task(source.watch(watch.on_snapshot, watch.on_refused))
    await asyncio.sleep(0)
    try:
        yield watch
    finally:
        task.cancel()
        await asyncio.wait([task])
        assert watch.clock.pending == 0


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_load(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = write(tmp_path / "a.yaml", ONE + "\nclusters: [{name: a}]")
    with caplog.at_level(logging.WARNING):
        snapshot = FileSource([path], service="s").load()
    assert (snapshot.listeners[0].name, snapshot.service) == ("one", "s")
    assert f"{path}:2:19: warning: clusters[0].name: a has no endpoints" in caplog.text


def test_load_refuses_with_every_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", "listners: []\nclusters: 5")
    with pytest.raises(ConfigProblems) as caught:
        load_files([path])
    assert len([p for p in caught.value.problems if p.severity == "error"]) == 2
    with pytest.raises(ConfigProblems, match="No such file"):
        load_files([path, tmp_path / "nope.yaml"])


def test_names() -> None:
    source = FileSource([Path("a.yaml"), Path("b.yaml")])
    assert source.name == "a.yaml, b.yaml"
    assert repr(source) == "<FileSource a.yaml, b.yaml>"


def test_read_files_names_those_that_cannot_be_read(tmp_path: Path) -> None:
    good = write(tmp_path / "a", "x")
    contents, problems = read_files([good, tmp_path / "b"])
    assert contents == [(str(good), b"x")]
    assert [problem.file for problem in problems] == [str(tmp_path / "b")]


async def test_a_change_is_told_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        for _ in range(3):
            await watch.poll()
        assert watch.told == []
        write(path, TWO)
        assert await watch.news() == "ok two"
        for _ in range(3):
            await watch.poll()
        assert watch.told == ["ok two"]


async def test_a_file_that_is_only_touched_is_no_change(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        write(path, ONE)
        (tmp_path / "b").write_text(ONE)
        (tmp_path / "b").replace(path)
        for _ in range(3):
            await watch.poll()
        assert watch.told == []


async def test_a_change_that_could_not_be_used_is_tried_again_when_written_again(
    tmp_path: Path,
) -> None:
    """The port was in use, say, and is free now."""
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        watch.refusing = True
        write(path, TWO)
        assert await watch.news() == "ok two"
        for _ in range(3):
            await watch.poll()
        assert watch.told == ["ok two"]
        watch.refusing = False
        path.touch()
        assert await watch.news() == "ok two"
        path.touch()
        for _ in range(3):
            await watch.poll()
        assert watch.told == ["ok two"] * 2


async def test_a_bad_change_is_told_once_for_each_content(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        write(path, "listners: []")
        assert "did you mean listeners?" in await watch.news()
        write(path, "listners: []")
        for _ in range(3):
            await watch.poll()
        assert len(watch.told) == 1
        write(path, "clusters: 5")
        assert "clusters: expected a list" in await watch.news()
        write(path, ONE)
        assert await watch.news() == "ok one"


async def test_an_editor_s_rename_is_a_change(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        write(tmp_path / ".a.swp", TWO).replace(path)
        assert await watch.news() == "ok two"


async def test_a_symlink_that_is_swapped_is_a_change(tmp_path: Path) -> None:
    """As Kubernetes updates a mounted ConfigMap."""
    path = tmp_path / "a.yaml"
    path.symlink_to(write(tmp_path / "v1", ONE))
    async with watching(path) as watch:
        (tmp_path / "new").symlink_to(write(tmp_path / "v2", TWO))
        (tmp_path / "new").replace(path)
        assert await watch.news() == "ok two"


async def test_a_file_that_is_still_being_written_is_left_alone(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        for size in range(1, len(TWO)):
            write(path, TWO[:size])
            await watch.clock.advance(POLL_INTERVAL)
            write(path, TWO[: size + 1])
            await watch.clock.advance(SETTLE_TIME)
        assert watch.told == []
        assert await watch.news() == "ok two"


async def test_a_file_that_is_away_for_a_moment_is_no_problem(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        path.rename(tmp_path / "backup")
        await watch.clock.advance(POLL_INTERVAL)
        write(path, TWO)
        await watch.clock.advance(SETTLE_TIME)
        assert watch.told == []
        assert await watch.news() == "ok two"


async def test_a_file_that_stays_away_is_told_once(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", ONE)
    async with watching(path) as watch:
        path.unlink()
        assert "cannot be read: No such file" in await watch.news()
        for _ in range(3):
            await watch.poll()
        assert len(watch.told) == 1
        write(path, ONE)
        assert await watch.news() == "ok one"


async def test_any_of_several_files_counts(tmp_path: Path) -> None:
    first = write(tmp_path / "a.yaml", ONE)
    second = write(tmp_path / "b.yaml", "")
    async with watching(first, second) as watch:
        write(second, "listeners: [{name: one, port: 2}, {name: three, port: 3}]")
        assert await watch.news() == "ok one"


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.yaml"
    os.mkfifo(pipe)
    with pytest.raises(ConfigProblems, match="not a regular file"):
        FileSource([pipe]).load()
