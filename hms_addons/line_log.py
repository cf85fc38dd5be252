"""Lines for a file or for standard output, written by a thread of their own.

Whoever logs a request must not wait for a disk. So a line is only put down here; every tenth of a
second, or every 256 KiB, what has gathered is handed to a thread, which writes it in one call. If the disk
hangs, the thread hangs: up to `limit` characters wait for it, and lines past that are dropped and
counted. Nothing here ever raises for what happens to the file; it is told in the log, once.

    write(line) ──▶ gathered ──0.1 s──▶ handed over ──thread──▶ written, or lost

A file that was renamed or removed, as by logrotate, is opened anew, without a signal.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import threading
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import within

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hms_addons.clock import Clock, Timer

logger = logging.getLogger(__name__)

STDOUT: Final = "stdout"
"""The path that means standard output."""
GATHERED_FOR: Final = 0.1
"""Seconds for which lines are gathered before they are handed to the thread."""
GATHERED: Final = 256 * 1024
"""Characters that are handed over at once. To wake the thread costs the event loop 0.3 ms."""
FORMED: Final = 64
"""Entries that lines are made of at once."""
LIMIT: Final = 4 * 1024 * 1024
"""Characters that wait for a slow disk; lines past that are dropped."""
GUESS: Final = 1024
"""Characters that a line is taken for while it has not been made."""

_MODE: Final = 0o640
_STDOUT_LOCK: Final = threading.Lock()
"""Several logs may share standard output; each writes whole lines."""


class LineLog:
    """Appends lines to a file, or to standard output; never makes the event loop wait.

    Its methods are for the event loop's thread. The file is opened, and the thread started, when the
    first lines are written, so an unused one costs nothing.

    Args:
        path: of the file, which is made if it is not there (its folder is not); or `stdout`.
        clock: when to hand over, and how long `flush` and `close` wait.
        name: what it is, for messages: `access log`.
        limit: characters that may wait.
        mode: the permissions of a file that is made.
        form: makes the lines of what `write` was given, of some dozens at once.

    Attributes:
        written: lines that are in the file.
        lost: lines that could not be written, as the disk was full, say.
        refused: lines that were dropped because too much was waiting, or because it is closed.
    """

    __slots__ = (
        "_batches",
        "_clock",
        "_closed",
        "_entries",
        "_fd",
        "_finished",
        "_form",
        "_given",
        "_limit",
        "_lines",
        "_made",
        "_mode",
        "_name",
        "_size",
        "_timer",
        "_torn",
        "_trouble",
        "_writer",
        "lost",
        "path",
        "refused",
        "written",
    )

    def __init__(
        self,
        path: str,
        clock: Clock,
        name: str = "log",
        *,
        limit: int = LIMIT,
        mode: int = _MODE,
        form: Callable[[Sequence[Any]], list[str]] | None = None,
    ) -> None:
        self.path = path
        self._clock = clock
        self._name = name
        self._limit = limit
        self._mode = mode
        self._form = form
        self._closed = False
        # The loop's: what has been gathered, and characters handed over since the start.
        self._entries: list[Any] = []
        self._lines: list[str] = []
        self._made = 0
        self._size = 0
        self._given = 0
        self._timer: Timer | None = None
        self._writer: threading.Thread | None = None
        self.refused = 0
        # Between the two.
        self._batches: SimpleQueue[list[str] | Callable[[], object] | None] = SimpleQueue()
        # The thread's; each number has one writer, so none needs a lock.
        self._finished = 0
        self._fd = -1
        self._torn = False
        self._trouble = False
        self.written = 0
        self.lost = 0

    def __repr__(self) -> str:
        state = " closed" if self._closed else ""
        return (
            f"<LineLog {self._name} {self.path} waiting={self.waiting} written={self.written} "
            f"dropped={self.dropped}{state}>"
        )

    @property
    def dropped(self) -> int:
        """Lines that are in no file: refused or lost."""
        return self.refused + self.lost

    @property
    def waiting(self) -> int:
        """Characters that are not written yet."""
        return self._given - self._finished + self._size

    @property
    def failing(self) -> bool:
        """The last lines could not be written; it is tried again with the next."""
        return self._trouble

    # -- the event loop's side ------------------------------------------------------------------

    def write(self, entry: Any) -> bool:
        """Have a line written, soon; a line break within it is escaped. Never waits.

        Args:
            entry: the line, or what `form` makes it from.

        Returns:
            False if it was dropped: too much waits already, or the log is closed.
        """
        size = self._size + (len(entry) if isinstance(entry, str) else GUESS)
        if self._given - self._finished + size > self._limit or self._closed:
            self.refused += 1
            return False
        self._entries.append(entry)
        self._size = size
        if len(self._entries) >= FORMED:
            self._make_lines()
        if self._timer is None:
            self._timer = self._clock.call_later(GATHERED_FOR, self._hand_over)
        elif self._size >= GATHERED:
            self._hand_over()
        return True

    def _make_lines(self) -> None:
        """Of the entries; one of which none can be made takes no other with it."""
        entries, self._entries = self._entries, []
        self._size = self._made
        try:
            lines = entries if self._form is None else self._form(entries)
        except Exception as error:  # noqa: BLE001 - whatever a plugin has left in one
            logger.error("%s: no line can be made of an entry: %r", self._name, error)  # noqa: TRY400
            lines = []
            for entry in entries:
                lines += self._line_of(entry)
        self._lines += lines
        self._made = self._size = self._size + sum([len(line) for line in lines])

    def _line_of(self, entry: Any) -> list[str]:
        form = self._form
        try:
            return [] if form is None else form([entry])
        except Exception:  # noqa: BLE001 - told already
            self.refused += 1
            return []

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._make_lines()
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        self._given += self._size
        self._made = self._size = 0
        self._batches.put(lines)
        if self._writer is None:
            # A daemon: the process can end though the disk hangs.
            self._writer = threading.Thread(target=self._run, name=self._name, daemon=True)
            self._writer.start()

    async def flush(self, seconds: float) -> bool:
        """Wait until what was written before is in the file (or lost), for `seconds` at most.

        Returns:
            False if that took too long.
        """
        self._hand_over()
        if self._writer is None:
            return True
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        def tell() -> None:
            if not done.done():
                done.set_result(None)

        self._batches.put(lambda: loop.call_soon_threadsafe(tell))
        try:
            async with within(self._clock, seconds):
                await done
        except TimeoutError:
            logger.warning("%s: %s takes no lines; %d characters wait", *self._where, self.waiting)
            return False
        return True

    async def close(self, seconds: float) -> bool:
        """Take no more lines, and `flush`; a file that hangs is left behind. Idempotent.

        Returns:
            False if lines were left unwritten.
        """
        self._closed = True
        flushed = await self.flush(seconds)
        if self._writer is not None:
            self._batches.put(None)
            self._writer = None
        return flushed

    # -- the thread's side ----------------------------------------------------------------------

    @property
    def _where(self) -> tuple[str, str]:
        return self._name, self.path

    def _run(self) -> None:
        while (batch := self._batches.get()) is not None:
            if callable(batch):
                try:
                    batch()
                except RuntimeError:  # its loop has been closed meanwhile
                    logger.debug("%s: nobody waits for %s any more", *self._where)
                continue
            self._write_batch(batch)
            self._finished += sum(map(len, batch))
        if self._fd >= 0 and self.path != STDOUT:
            os.close(self._fd)
        self._fd = -1

    def _write_batch(self, batch: list[str]) -> None:
        text = "\n".join(batch)
        if text.count("\n") != len(batch) - 1 or "\r" in text:
            text = "\n".join(map(_one_line, batch))
        data = f"{text}\n".encode("utf-8", "backslashreplace")
        begun = 0
        try:
            if self.path == STDOUT:
                self._fd = 1
                with _STDOUT_LOCK:
                    begun = self._write_all(data)
            else:
                self._open()
                begun = self._write_all(data)
        except (OSError, ValueError) as error:  # the latter: a path that is none
            self.lost += len(batch)
            self._told(error)
            return
        if begun < len(data):
            whole = data.count(b"\n", 0, begun)
            self.written += whole
            self.lost += len(batch) - whole
            return
        self.written += len(batch)
        if self._trouble:
            self._trouble = False
            logger.warning("%s: %s can be written again; %d lost", *self._where, self.lost)

    def _open(self) -> None:
        """The file of that name, as it is now."""
        if self._fd >= 0:
            try:
                there = Path(self.path).stat()
            except FileNotFoundError:
                there = None
            if there is not None and os.path.samestat(there, os.fstat(self._fd)):
                return
            os.close(self._fd)
            self._fd = -1
        self._torn = False
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOCTTY
        self._fd = os.open(self.path, flags, self._mode)

    def _write_all(self, data: bytes) -> int:
        """Bytes of `data` that were written: all but where the disk has failed, which is told.

        Raises:
            OSError: none was.
        """
        begun = 0
        if self._torn:  # half a line, from when the disk was full
            os.write(self._fd, b"\n")
            self._torn = False
        rest = memoryview(data)
        while begun < len(data):
            try:
                begun += os.write(self._fd, rest[begun:])
            except BlockingIOError:
                # Standard output may be a pipe that somebody has made non-blocking.
                select.select([], [self._fd], [])
            except OSError as error:
                if not begun:
                    raise
                self._torn = data[begun - 1 : begun] != b"\n"
                self._told(error)
                break
        return begun

    def _told(self, error: Exception) -> None:
        if not self._trouble:
            self._trouble = True
            logger.error(
                "%s: %s cannot be written, so its lines are lost: %s; it is tried again with the next",
                *self._where,
                error,
            )


def _one_line(line: str) -> str:
    """`line`, which nobody can make into two."""
    if "\n" not in line and "\r" not in line:
        return line
    return line.replace("\r", "\\r").replace("\n", "\\n")
