"""The processes that the benchmark starts: each has a log, a core, and an end by its own id."""

from __future__ import annotations

import contextlib
import http.client
import os
import select
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

from scripts.benchmark import machine

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

STOP_SECONDS = 10.0
"""A process that has not ended so long after SIGTERM is killed."""
START_SECONDS = 30.0
POLL_SECONDS = 0.005
"""How often a starting process is asked; the resolution of start-up times."""

Address = tuple[str, int]


class BenchError(Exception):
    """The benchmark cannot go on; the message says what failed and what to do."""


class Child:
    """A running process that is ours to end.

    It leads its own process group, so that Ctrl-C reaches only the benchmark, which then ends it,
    and so that its own children (nginx's worker) can be ended with it.
    """

    def __init__(
        self, name: str, argv: Sequence[str], directory: Path, cores: frozenset[int]
    ) -> None:
        """Start it in `directory` on `cores`; `BenchError` when the program is not there."""
        self.name = name
        self.log = directory / f"{name}.log"
        self.started = time.monotonic()
        with self.log.open("wb") as log, machine.running_on(cores):
            try:
                self._popen = subprocess.Popen(
                    list(argv),
                    cwd=directory,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as error:
                raise BenchError(f"{name}: cannot start {argv[0]}: {error.strerror}") from error

    def __repr__(self) -> str:
        state = "running" if self._popen.poll() is None else f"ended {self._popen.returncode}"
        return f"<Child {self.name} pid={self.pid} {state}>"

    @property
    def pid(self) -> int:
        """Its process id, which is also its process group's."""
        return self._popen.pid

    def ensure_alive(self) -> None:
        """`BenchError` with the last lines of its log when it has ended by itself."""
        if (code := self._popen.poll()) is not None:
            raise BenchError(f"{self.name} ended with status {code}:\n{self.log_tail()}")

    def log_tail(self, lines: int = 15) -> str:
        """The last lines that it wrote."""
        text = self.log.read_text(encoding="utf-8", errors="replace")
        return "\n".join(f"  | {line}" for line in text.splitlines()[-lines:])

    def rss_mb(self) -> float:
        """Resident memory in MiB, its descendants' included."""
        return sum(_rss_bytes(pid) for pid in (self.pid, *_descendants(self.pid))) / 2**20

    def cpu_seconds(self) -> float:
        """Processor time spent so far, its living descendants' included; in steps of 10 ms."""
        return sum(_cpu_seconds(pid) for pid in (self.pid, *_descendants(self.pid)))

    def stop(self) -> None:
        """End it and wait for it; harmless when it has ended already."""
        if self._popen.poll() is not None:
            return
        self._popen.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what has not heard it, or was left behind
        self._popen.wait()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for_answer(
    children: Sequence[Child], address: Address, path: str, headers: Mapping[str, str]
) -> float:
    """Ask `address` until it answers 200; seconds since the first child was started.

    `BenchError` when a child ends meanwhile, or after `START_SECONDS` without the answer.
    """
    began = children[0].started
    last = "no connection"
    while (waited := time.monotonic() - began) < START_SECONDS:
        for child in children:
            child.ensure_alive()
        try:
            status, body = get(address, path, headers, timeout=5.0)
        except (OSError, http.client.HTTPException) as error:
            last = str(error) or type(error).__name__
        else:
            if status == http.HTTPStatus.OK:
                return time.monotonic() - began
            last = f"status {status}: {body[:200]!r}"
        select.select([], [], [], POLL_SECONDS)
    logs = "\n".join(child.log_tail() for child in children)
    raise BenchError(
        f"{children[0].name} gave no good answer within {waited:.0f} s ({last}); its log:\n{logs}"
    )


def get(
    address: Address,
    path: str,
    headers: Mapping[str, str],
    *,
    method: str = "GET",
    body: bytes | None = None,
    timeout: float = 30.0,
) -> tuple[int, bytes]:
    """One request on a connection of its own: status and body."""
    connection = http.client.HTTPConnection(*address, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=dict(headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def _rss_bytes(pid: int) -> int:
    """Resident memory of one process; 0 when it has just ended."""
    try:
        fields = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()
    except OSError:
        return 0
    return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")


def _cpu_seconds(pid: int) -> float:
    """User and system time of one process, all its threads; 0 when it has just ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    except OSError:
        return 0.0
    # proc(5): the name, in parentheses, may hold anything; utime and stime are fields 14 and 15.
    fields = text.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _descendants(pid: int) -> list[int]:
    """The ids of all processes below `pid`."""
    found: list[int] = []
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for word in (task / "children").read_text(encoding="ascii").split():
                found += [int(word), *_descendants(int(word))]
    return found
