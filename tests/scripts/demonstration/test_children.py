from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration.children import Child, DemoError, kill_pid, stop_all, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

type Start = Callable[[str], Child]

SLEEPER = "import signal; print('asleep', flush=True); signal.pause()"
STUBBORN = (
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True)\n"
    "while True: signal.pause()"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    children: list[Child] = []

    def begin(code: str) -> Child:
        command = [sys.executable, "-c", code]
        child = Child("one", command, logs=tmp_path, cwd=tmp_path, env=dict(os.environ))
        children.append(child)
        return child

    yield begin
    stop_all(children, 0.0)


def await_log(child: Child, text: str) -> None:
    until(lambda: text in child.log_tail(), within=20, what=text, needs=[child])


def test_what_a_child_writes_is_in_its_log_after_what_was_there(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "one.log").write_text("from an earlier life\n")
    child = start("import sys; print('out'); sys.stdout.flush(); sys.stderr.write('err')")
    assert child.wait(20)
    assert child.log_tail() == "  | from an earlier life\n  | out\n  | err"
    assert child.log_tail(1) == "  | err"


def test_a_child_that_ended_by_itself_is_told_with_its_last_words(start: Start) -> None:
    child = start("print('no such listener'); raise SystemExit(3)")
    assert child.wait(20)
    with pytest.raises(DemoError, match=r"one has ended with status 3:\n  \| no such listener"):
        child.ensure_running()
    assert repr(child).endswith("ended 3>")


def test_a_program_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DemoError, match="one: cannot start /no/such: No such file"):
        Child("one", ["/no/such"], logs=tmp_path, cwd=tmp_path, env={})


def test_ctrl_c_at_the_terminal_does_not_reach_children(start: Start) -> None:
    child = start(SLEEPER)
    assert os.getsid(child.pid) == child.pid != os.getsid(0)


def test_all_are_ended_and_those_that_will_not_are_killed(start: Start) -> None:
    meek, deaf = start(SLEEPER), start(STUBBORN)
    await_log(meek, "asleep")
    await_log(deaf, "deaf")
    assert stop_all([meek, deaf], 0.2) == [deaf]
    assert (meek.status, deaf.status) == (-signal.SIGTERM, -signal.SIGKILL)
    assert stop_all([meek, deaf]) == []


def test_killing_a_process_that_has_ended_does_nothing(start: Start) -> None:
    child = start("pass")
    assert child.wait(20)
    kill_pid(child.pid)


def test_waiting_gives_what_the_condition_gave(start: Start) -> None:
    answers: Iterator[list[str] | None] = iter([None, [], ["at last"]])
    found = until(lambda: next(answers), within=20, what="an answer", needs=[start(SLEEPER)])
    assert found == ["at last"]


def test_waiting_ends_when_time_is_up_and_shows_the_log(start: Start) -> None:
    child = start(SLEEPER)
    await_log(child, "asleep")
    with pytest.raises(DemoError, match=r"(?s)waited 0 s in vain: it should wake.*\| asleep"):
        until(lambda: False, within=0, what="it should wake", needs=[child])


def test_waiting_ends_at_once_when_what_it_needs_has_died(start: Start) -> None:
    with pytest.raises(DemoError, match="status 7"):
        until(lambda: False, within=60, what="it should live", needs=[start("raise SystemExit(7)")])
