"""Calls that go on in the background, so that a step can say that none of them failed meanwhile."""

from __future__ import annotations

import http.client
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.demonstration.calls import Answer

PAUSE = 0.04
"""Seconds between an answer and the next call."""


class Pulse:
    """A client that calls again and again, until it is stopped.

    Args:
        call: makes one call.
    """

    def __init__(self, call: Callable[[], Answer]) -> None:
        self._call = call
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="pulse", daemon=True)
        self.calls = 0
        """Made so far."""
        self.failures: list[str] = []
        """What came back that was no 2xx, or nothing."""

    def __repr__(self) -> str:
        return f"<Pulse {self.calls} calls, {len(self.failures)} failed>"

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End; returns after the last answer."""
        self._ending.set()
        self._thread.join()

    def _beat(self) -> None:
        while not self._ending.wait(PAUSE):
            try:
                answer = self._call()
            except (OSError, http.client.HTTPException) as error:
                self.failures.append(repr(error))
            else:
                if not answer.good:
                    self.failures.append(answer.describe())
            self.calls += 1
