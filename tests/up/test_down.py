from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import MeshError
from hms_addons.up import down
from hms_addons.up.down import LIMIT, bring_down
from hms_addons.up.machine import marks
from hms_addons.up.run_state import RunState
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class Moving(FakeClock):
    """Time passes while one sleeps."""

    async def sleep(self, delay: float) -> None:
        self.tick(delay)


async def test_what_is_not_up_is_told(tmp_path: Path) -> None:
    assert (await bring_down(tmp_path / "mesh.yaml", clock=Moving())).endswith("is not up")


async def test_who_holds_the_folder_is_asked_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(tmp_path / "mesh.yaml")
    state.take()
    sent: list[tuple[list[int], signal.Signals]] = []

    def asked(pids: Iterable[int], number: signal.Signals) -> None:
        sent.append((list(pids), number))
        state.release()

    monkeypatch.setattr(down, "send", asked)
    assert (await bring_down(tmp_path / "mesh.yaml", clock=Moving())).endswith("is down")
    assert sent == [([os.getpid()], signal.SIGTERM)]


async def test_kill_asks_twice_and_patience_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = RunState(tmp_path / "mesh.yaml")
    state.take()
    sent: list[signal.Signals] = []
    monkeypatch.setattr(down, "send", lambda _, number: sent.append(number))
    clock = Moving()
    with pytest.raises(MeshError, match="has not ended in 180 s"):
        await bring_down(tmp_path / "mesh.yaml", kill=True, clock=clock)
    assert sent[:3] == [signal.SIGTERM, signal.SIGINT, signal.SIGINT]
    assert clock.monotonic() >= 1000 + LIMIT
    state.release()


@pytest.fixture
def left(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a mesh whose `hms up` is no more."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print(flush=True); input()"],
        env=os.environ | marks(RunState(tmp_path / "mesh.yaml").folder, "a-1"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


async def test_what_was_left_behind_is_ended(left: subprocess.Popen[bytes], tmp_path: Path) -> None:
    said = await bring_down(tmp_path / "mesh.yaml", clock=Moving())
    assert said == "ended 1 processes that an earlier `hms up` has left behind"
    assert left.wait() < 0
