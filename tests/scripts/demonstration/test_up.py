from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration.up import DemoError, Up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

WAITS = "import signal; print('up', flush=True); signal.pause()"
DRAINS = """
import signal, sys
signal.signal(signal.SIGINT, lambda *_: (print('drained'), sys.exit(0)))
print('up', flush=True)
signal.pause()
"""

type Start = Callable[[str], Up]


@pytest.fixture
def shown() -> list[str]:
    return []


@pytest.fixture
def start(tmp_path: Path, shown: list[str]) -> Iterator[Start]:
    started: list[Up] = []

    def begin(code: str) -> Up:
        command = [sys.executable, "-c", code]
        log, env = tmp_path / "log", dict(os.environ)
        started.append(Up(command, cwd=tmp_path, env=env, log=log, shown=shown.append))
        return started[-1]

    yield begin
    for up in started:
        up.end()


def test_what_it_says_is_kept_logged_and_shown_until_that_is_enough(
    start: Start, tmp_path: Path, shown: list[str]
) -> None:
    up = start(
        "import signal; signal.signal(signal.SIGINT, lambda *_: print('two'))\n"
        "print('one', flush=True); signal.pause()"
    )
    assert up.wait_for("one", within=20) == "one"
    up.hush()
    up.end()
    assert shown == ["one"]
    assert (tmp_path / "log").read_text() == "one\ntwo\n"
    assert up.said("one") == ["one"]
    assert not up.said("one", up.mark())


def test_ctrl_c_at_the_terminal_does_not_reach_it(start: Start) -> None:
    up = start(WAITS)
    assert os.getsid(up._process.pid) != os.getsid(0)


def test_it_is_ended_as_by_ctrl_c(start: Start) -> None:
    up = start(DRAINS)
    up.wait_for("up", within=20)
    assert up.end() == 0
    assert up.said("drained")
    assert up.end() == 0


def test_one_that_does_not_listen_is_killed(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scripts.demonstration.up.END_SECONDS", 0.05)
    deaf = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN); print('up', flush=True)\n"
    up = start(f"{deaf}while True: signal.pause()")
    up.wait_for("up", within=20)
    assert up.end() == -signal.SIGKILL


def test_one_that_has_ended_is_told_with_its_last_words(start: Start) -> None:
    up = start("print('port 15001 is in use'); raise SystemExit(2)")
    with pytest.raises(
        DemoError, match=r"(?s)has ended \(exit code 2\):\n  \| port 15001 is in use"
    ):
        up.wait_for("ready", within=20)


def test_what_is_waited_for_in_vain_is_told(start: Start) -> None:
    up = start(WAITS)
    up.wait_for("up", within=20)
    with pytest.raises(DemoError, match=r"(?s)waited 0 s in vain until it rains.*\| up"):
        up.until(lambda: None, within=0, what="it rains")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="cannot start /no/such: No such file"):
        Up(["/no/such"], cwd=tmp_path, env={}, log=tmp_path / "log", shown=print)
