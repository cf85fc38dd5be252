"""`kill -9`, again and again, in the middle of writing: what was acknowledged is there."""

from __future__ import annotations

import asyncio
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.store.sqlite import SqliteStore
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = Path(__file__).resolve().parents[3]
ROUNDS = 30


def run_and_kill(path: Path, round_: str, after: int) -> list[tuple[str, int, int]]:
    """Start a writer and kill it after some acknowledgements; those that it got out."""
    command = [sys.executable, "-m", "tests.control.store.writer", str(path), round_]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [line for _, line in zip(range(after), process.stdout, strict=False)]
        process.send_signal(signal.SIGKILL)
        lines += process.stdout.readlines()
    assert process.returncode == -signal.SIGKILL
    whole = [line.split() for line in lines if line.endswith("\n")]
    return [(name, int(n), int(revision)) for name, n, revision in whole]


async def check(path: Path, acknowledged: dict[str, tuple[int, int]], revision: int) -> int:
    store = await SqliteStore.open(path, FakeClock())
    try:
        entries = {entry.key: entry for entry in await store.list("")}
        assert store.revision >= revision
        assert store.revision == max((e.revision for e in entries.values()), default=0)
        for name, (n, at) in acknowledged.items():
            a, b = entries[f"{name}/a"], entries[f"{name}/b"]
            # One write more may have been made than acknowledged, and then whole.
            assert (a.value, a.revision) == (b.value, b.revision)
            assert (int(a.value), a.revision >= at) in ((n, True), (n + 1, True))
            assert b.lease is not None
            assert await store.keep_alive(b.lease)
        return store.revision
    finally:
        await store.close()


@pytest.mark.timeout(180)
def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "data" / "control.db"
    chance = random.Random(9)
    acknowledged: dict[str, tuple[int, int]] = {}
    revision = total = 0
    for round_ in range(ROUNDS):
        told = run_and_kill(path, f"r{round_}", chance.randrange(1, 300))
        revisions = [at for _, _, at in told]
        assert len(set(revisions)) == len(revisions)
        assert min(revisions) > revision
        for name, n, at in told:
            acknowledged[name] = (n, at)
        total += len(told)
        revision = asyncio.run(check(path, acknowledged, max(revisions)))
    assert total > ROUNDS


def test_killed_while_it_makes_the_file_it_can_start_again(tmp_path: Path) -> None:
    for polls in range(8):
        path = tmp_path / f"data{polls}" / "control.db"
        command = [sys.executable, "-m", "tests.control.store.writer", str(path), "r"]
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL) as process:
            # The folder comes just before the file; from there on, a little later each time.
            assert until(path.parent.exists)
            until(path.exists, polls)
            process.kill()
        asyncio.run(check(path, {}, 0))


def until(condition: Callable[[], bool], polls: int = 10_000) -> bool:
    return any(condition() or time.sleep(0.0005) for _ in range(polls))
