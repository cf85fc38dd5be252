"""Log lines that strangers can cause: so many a second, and then how many were kept back.

A handshake that fails, or a request that is none, costs its sender next to nothing. Its log line should
not fill a disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import logging

    from hms_addons.clock import Clock

PER_SECOND: Final = 10


class LogLimit:
    """Writes `info` lines to `logger`, at most `PER_SECOND` in a second.

    Args:
        logger: whose lines they are.
        clock: time.
    """

    __slots__ = ("_clock", "_kept_back", "_logger", "_second", "_written")

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._second = float("-inf")  # when the current one began
        self._written = 0
        self._kept_back = 0

    def __repr__(self) -> str:
        return f"<LogLimit {self._logger.name} kept_back={self._kept_back}>"

    def info(self, message: str, *arguments: object) -> None:
        """Write a line, or count it."""
        now = self._clock.monotonic()
        if now - self._second >= 1.0:
            if self._kept_back:
                self._logger.info("%d further lines like these were left out", self._kept_back)
            self._second, self._written, self._kept_back = now, 0, 0
        if self._written >= PER_SECOND:
            self._kept_back += 1
            return
        self._written += 1
        self._logger.info(message, *arguments)
