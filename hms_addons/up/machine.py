"""What this machine has: free ports, who holds one, and processes that bear a mark.

Every process that `hms up` starts has `HMS_UP_FOLDER` and `HMS_UP_INSTANCE` in its environment, and so
have the processes that those start. So what a killed sidecar or a killed `hms up` leaves behind is
found again, whatever it calls itself. Linux shows environments in /proc; elsewhere nothing is found.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from hms_addons.clock import Clock

FOLDER_MARK: Final = "HMS_UP_FOLDER"
INSTANCE_MARK: Final = "HMS_UP_INSTANCE"
END_TIME: Final = 5.0
"""Seconds that a process without its sidecar is given after SIGTERM."""

_PROC = Path("/proc")
_LISTENS = "0A"
"""TCP_LISTEN in /proc/net/tcp."""
_TRIES = 200


def marks(folder: Path, instance: str) -> dict[str, str]:
    """The variables that mark a process."""
    return {FOLDER_MARK: str(folder), INSTANCE_MARK: instance}


def marked(folder: Path, instance: str | None = None) -> list[int]:
    """The processes that run with that mark, of one instance or all; never this one."""
    wanted = {f"{FOLDER_MARK}={folder}".encode()}
    if instance is not None:
        wanted.add(f"{INSTANCE_MARK}={instance}".encode())
    found = []
    for process in _processes():
        try:
            variables = set((process / "environ").read_bytes().split(b"\0"))
        except OSError:  # ended, or somebody else's
            continue
        if wanted <= variables and int(process.name) != os.getpid():
            found.append(int(process.name))
    return found


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """Send a signal to those that still run."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


async def end_marked(folder: Path, instance: str | None, clock: Clock) -> int:
    """End what bears the mark: asked first, killed after `END_TIME`. Returns how many there were."""
    pids = marked(folder, instance)
    send(pids, signal.SIGTERM)
    until = clock.monotonic() + END_TIME
    left = pids
    while left and clock.monotonic() < until:
        await clock.sleep(0.05)
        left = marked(folder, instance)
    send(left, signal.SIGKILL)
    return len(pids)


def is_free(port: int) -> bool:
    """Whether nobody listens on a port of 127.0.0.1."""
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def accepts(port: int) -> bool:
    """Whether somebody takes connections on a port of 127.0.0.1; does not wait."""
    with socket.socket() as trial:
        trial.settimeout(0.2)
        return trial.connect_ex(("127.0.0.1", port)) == 0


class FreePorts:
    """Hands out free ports of 127.0.0.1, none twice, and none that is reserved."""

    def __init__(self) -> None:
        self.taken: set[int] = set()

    def take(self, wanted: int | None = None) -> int:
        """A free port; the `wanted` one if it is free.

        Raises:
            MeshError: there is none.
        """
        if wanted is not None and wanted not in self.taken and is_free(wanted):
            self.taken.add(wanted)
            return wanted
        for _ in range(_TRIES):
            with socket.socket() as trial:
                trial.bind(("127.0.0.1", 0))
                port: int = trial.getsockname()[1]
            if port not in self.taken:
                self.taken.add(port)
                return port
        raise MeshError("no port of this machine is free")

    def give_back(self, ports: Iterable[int]) -> None:
        """They are not needed any more."""
        self.taken.difference_update(ports)


def holder(port: int) -> str:
    """Who listens on a port, in words."""
    inodes = set(_listeners(port))
    for process in _processes() if inodes else ():
        if not inodes.isdisjoint(_descriptors(process)):
            try:
                words = (process / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            command = b" ".join(filter(None, words)).decode("utf-8", "replace")
            return f"process {process.name} ({command[:120]})"
    return f"another program (`ss -ltnp 'sport = :{port}'` may name it)"


def _listeners(port: int) -> Iterator[str]:
    """What the descriptors of a port's listeners are called in /proc."""
    for table in ("tcp", "tcp6"):
        try:
            lines = (_PROC / "net" / table).read_text(encoding="ascii").splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENS and int(fields[1].rpartition(":")[2], 16) == port:
                yield f"socket:[{fields[9]}]"


def _descriptors(process: Path) -> Iterator[str]:
    """What a process has open, as far as we may see it."""
    with contextlib.suppress(OSError):
        for link in (process / "fd").iterdir():
            with contextlib.suppress(OSError):  # closed meanwhile
                yield str(link.readlink())


def _processes() -> list[Path]:
    try:
        return [entry for entry in _PROC.iterdir() if entry.name.isdigit()]
    except OSError:
        return []
