from __future__ import annotations

import threading
from email.message import Message

from scripts.demonstration.calls import Answer
from scripts.demonstration.pulse import Pulse

ENOUGH = 3


def run(*outcomes: Answer | Exception) -> Pulse:
    """A pulse whose calls end so, the last for ever; ended after a few."""
    left = list(outcomes)
    made = threading.Semaphore(0)

    def call() -> Answer:
        outcome = left.pop(0) if len(left) > 1 else left[0]
        made.release()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    pulse = Pulse(call)
    pulse.start()
    for _ in range(ENOUGH):
        assert made.acquire(timeout=20)
    pulse.stop()
    return pulse


def answer(status: int) -> Answer:
    return Answer(status, Message(), b"{}")


def test_calls_go_on_until_they_are_stopped() -> None:
    pulse = run(answer(200))
    assert pulse.calls >= ENOUGH
    assert pulse.failures == []
    assert repr(pulse) == f"<Pulse {pulse.calls} calls, 0 failed>"


def test_what_is_no_200_and_what_is_no_answer_count_as_failed() -> None:
    pulse = run(answer(503), ConnectionResetError("by peer"), answer(200))
    assert pulse.failures == ["503 {}", "ConnectionResetError('by peer')"]
