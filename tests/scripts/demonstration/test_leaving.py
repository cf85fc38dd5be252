from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from scripts.demonstration import leaving

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in leaving.SIGNALS}
    leaving.install()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_a_signal_leaves_with_the_status_a_shell_expects() -> None:
    with pytest.raises(SystemExit) as left:
        send(signal.SIGTERM)
    assert left.value.code == 143


def test_ctrl_c_interrupts() -> None:
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)


def test_what_is_held_is_finished_first() -> None:
    steps = []

    def spawn_twice() -> None:
        with leaving.held():
            steps.append("one")
            send(signal.SIGHUP)
            with leaving.held():
                steps.append("two")
            steps.append("three")
        steps.append("never")

    with pytest.raises(SystemExit) as left:
        spawn_twice()
    assert left.value.code == 129
    assert steps == ["one", "two", "three"]
    with leaving.held():
        pass  # It took effect once.
