"""Signals that end the demo: turned into exceptions, but never while a process is being started.

An exception in the midst of `Popen` would leave a child that nobody knows of, so what must not be
cut short runs under `held()`, and the signal takes effect right after.
"""

from __future__ import annotations

import contextlib
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class _State:
    """The process's, as signals are."""

    holding = 0
    pending: int | None = None


def install() -> None:
    """From now on a signal raises: `KeyboardInterrupt` for Ctrl-C, else `SystemExit` (128 + n)."""
    for number in SIGNALS:
        signal.signal(number, _handle)


@contextlib.contextmanager
def held() -> Iterator[None]:
    """Signals wait until the block is left; the last one takes effect then."""
    _State.holding += 1
    try:
        yield
    finally:
        _State.holding -= 1
        if not _State.holding and _State.pending is not None:
            number, _State.pending = _State.pending, None
            _raise(number)


def _handle(number: int, _frame: object) -> None:
    if _State.holding:
        _State.pending = number
    else:
        _raise(number)


def _raise(number: int) -> None:
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
