"""The `hms up` process: started, read line by line, waited for, and ended in order."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

END_SECONDS = 60.0
"""For a drain; then it is told a second time, which kills."""
LOOK = 0.05
"""Seconds between two looks at a condition."""


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and what to do."""


class Up:
    """`hms up`, in a session of its own: Ctrl-C at the terminal reaches the demo alone.

    It notices when nobody reads what it says, and ends the mesh; so nothing is left if this process is
    killed.

    Args:
        command: what to run.
        cwd, env: where, and with what environment.
        log: a file that gets all that it says.
        shown: called with each line while it is to be shown.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
        shown: Callable[[str], object],
    ) -> None:
        try:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise DemoError(f"cannot start {command[0]}: {error.strerror}") from error
        self._log = log
        self._shown: Callable[[str], object] | None = shown
        self._lines: list[str] = []
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()

    def __repr__(self) -> str:
        return f"<Up pid={self._process.pid} lines={len(self._lines)}>"

    def _read(self, lines: IO[str]) -> None:
        with lines, self._log.open("a", encoding="utf-8") as log:
            for line in lines:
                log.write(line)
                log.flush()
                self._lines.append(line.rstrip("\n"))
                if self._shown is not None:
                    self._shown(self._lines[-1])

    def hush(self) -> None:
        """Show no more of what it says."""
        self._shown = None

    def mark(self) -> int:
        """How many lines it has said."""
        return len(self._lines)

    def said(self, text: str, after: int = 0) -> list[str]:
        """The lines after a mark that hold `text`."""
        return [line for line in self._lines[after:] if text in line]

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._process.poll() is None

    def wait_for(self, text: str, *, within: float, after: int = 0) -> str:
        """The first line after a mark that holds `text`.

        Raises:
            DemoError: it has ended, or the time is up.
        """
        return self.until(
            lambda: next(iter(self.said(text, after)), ""), within=within, what=f"it says {text!r}"
        )

    def until[T](self, condition: Callable[[], T | None], *, within: float, what: str) -> T:
        """Ask `condition` again and again until it gives something true, and return that.

        Raises:
            DemoError: it has ended, or the time is up.
        """
        deadline = time.monotonic() + within
        while True:
            ended = not self.running
            if found := condition():
                return found
            if ended:
                self._reader.join(END_SECONDS)
                raise DemoError(f"hms up has ended (exit code {self.code}):\n{self.tail()}")
            if time.monotonic() >= deadline:
                raise DemoError(f"waited {within:g} s in vain until {what}; hms up:\n{self.tail()}")
            time.sleep(LOOK)

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    def tail(self, lines: int = 25) -> str:
        """What it said last."""
        return "\n".join(f"  | {line}" for line in self._lines[-lines:])

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for its end; True when it has ended."""
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self) -> int:
        """Ctrl-C; a second one if it does not end. Returns its exit code; idempotent."""
        for number in (signal.SIGINT, signal.SIGINT, signal.SIGKILL):
            if self.running:
                self._process.send_signal(number)
            if self.wait(END_SECONDS):
                break
        self._reader.join(END_SECONDS)
        return self._process.wait()
