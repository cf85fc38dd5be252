"""The demo's processes: each has a log, and is ended by its own id, however the demo ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

STOP_SECONDS = 8.0
"""A process that has not ended so long after SIGTERM is killed."""
POLL_SECONDS = 0.02
"""How often a condition is looked at."""


class DemoError(Exception):
    """The demo cannot go on; the message says what failed and what to do."""


class Child:
    """A running process that is ours to end.

    It leads its own session: Ctrl-C at the terminal reaches the demo alone, which then ends the
    children in good order.

    Args:
        name: for messages and for its log, `<name>.log`.
        argv: the command.
        logs: folder of its log; a log that is there is continued.
        cwd: folder it runs in.
        env: its environment.
        output: a file for what it writes to its standard output, when that is not for its log.
    """

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        *,
        logs: Path,
        cwd: Path,
        env: dict[str, str],
        output: Path | None = None,
    ) -> None:
        self.name = name
        self.argv = tuple(argv)
        self.log = logs / f"{name}.log"
        with self.log.open("ab") as log, (output or self.log).open("ab") as out:
            try:
                self._popen = subprocess.Popen(
                    self.argv,
                    cwd=cwd,
                    env=env,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=log,
                    start_new_session=True,
                )
            except OSError as error:
                raise DemoError(f"{name}: cannot start {argv[0]}: {error.strerror}") from error

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended {self._popen.returncode}"
        return f"<Child {self.name} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def running(self) -> bool:
        """It has not ended."""
        return self._popen.poll() is None

    @property
    def status(self) -> int | None:
        """Its exit status, negative for a signal; None while it runs."""
        return self._popen.poll()

    def log_tail(self, lines: int = 20) -> str:
        """The last lines that it wrote."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])

    def ensure_running(self) -> None:
        """`DemoError` with its last words when it has ended by itself."""
        if not self.running:
            raise DemoError(f"{self.name} has ended with status {self.status}:\n{self.log_tail()}")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when it has ended."""
        self._popen.send_signal(number)

    def wait(self, seconds: float) -> bool:
        """Wait at most so long for its end; True when it has ended."""
        try:
            self._popen.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            return False
        return True


def stop_all(children: Iterable[Child], seconds: float = STOP_SECONDS) -> list[Child]:
    """End all of them: SIGTERM, and SIGKILL for those still there after `seconds`.

    Returns:
        Those that had to be killed; what they had started themselves may still run.
    """
    running = [child for child in children if child.running]
    for child in running:
        child.send(signal.SIGTERM)
    deadline = time.monotonic() + seconds
    late = [child for child in running if not child.wait(deadline - time.monotonic())]
    for child in late:
        child.send(signal.SIGKILL)
        child.wait(STOP_SECONDS)
    return late


def kill_pid(pid: int) -> None:
    """Kill a process at once; nothing happens when it has ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def until[T](
    condition: Callable[[], T | None], *, within: float, what: str, needs: Sequence[Child]
) -> T:
    """Ask `condition` again and again until it gives something true, and return that.

    Args:
        condition: must be quick.
        within: seconds.
        what: what is waited for, for the message.
        needs: without these it cannot come true; at least one.

    Raises:
        DemoError: one of `needs` has ended, or the time is up.
    """
    deadline = time.monotonic() + within
    while True:
        for child in needs:
            child.ensure_running()
        found = condition()
        if found:
            return found
        if time.monotonic() >= deadline:
            logs = "\n".join(f"{child.name}:\n{child.log_tail(8)}" for child in needs[:3])
            raise DemoError(f"waited {within:g} s in vain: {what}\n{logs}")
        needs[0].wait(POLL_SECONDS)  # Wakes at once if it ends.
