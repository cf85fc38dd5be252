"""A process that `hms up` has started: its lines as they come, its last ones, its end."""

from __future__ import annotations

import asyncio
import codecs
import os
import signal
from collections import deque
from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError
from hms_addons.up.machine import end_marked, marked, marks, send
from hms_addons.up.plain_line import plain_line

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from hms_addons.clock import Clock

LAST_LINES: Final = 8
LONGEST_LINE: Final = 8192
"""Characters; what is longer comes in pieces."""
_CHUNK = 65536


class Child:
    """A running process; made by `start`.

    Args:
        process: as it was started.
        folder, name: its mark.
        descriptor: where its output comes from.
        on_line: called with each line, made safe to be shown.
        clock: time, injected.
    """

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        folder: Path,
        name: str,
        descriptor: int,
        on_line: Callable[[str], object],
        clock: Clock,
    ) -> None:
        self._process = process
        self._folder = folder
        self._name = name
        self._clock = clock
        self._descriptor = descriptor
        self._on_line = on_line
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._rest = ""
        self._open = True
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        """Its last lines."""
        os.set_blocking(descriptor, False)
        asyncio.get_running_loop().add_reader(descriptor, self._read)

    def __repr__(self) -> str:
        return f"<Child {self._name} pid={self.pid}>"

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def _read(self) -> bool:
        """Take what there is; whether there was anything."""
        try:
            chunk = os.read(self._descriptor, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            chunk = b""
        text = self._rest + self._decoder.decode(chunk, final=not chunk)
        *lines, self._rest = text.split("\n")
        if len(self._rest) > LONGEST_LINE or (not chunk and self._rest):
            lines.append(self._rest)
            self._rest = ""
        for line in lines:
            shown = plain_line(line.rstrip("\r"))
            self.last.append(shown)
            self._on_line(shown)
        if not chunk:
            self._close()
        return bool(chunk)

    def _close(self) -> None:
        if self._open:
            self._open = False
            asyncio.get_running_loop().remove_reader(self._descriptor)
            os.close(self._descriptor)

    async def wait(self) -> int:
        """Wait for its end, and end what it has left behind; its exit code, below 0 for a signal."""
        try:
            code = await self._process.wait()
            await end_marked(self._folder, self._name, self._clock)
            while self._open and self._read():
                pass
        finally:
            self._close()
        return code

    def terminate(self) -> None:
        """Ask it to end: a sidecar drains, then ends its app."""
        if self._process.returncode is None:
            send([self.pid], signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it has started, at once."""
        send([*marked(self._folder, self._name), self.pid], signal.SIGKILL)


async def start(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: Path,
    folder: Path,
    name: str,
    on_line: Callable[[str], object],
    clock: Clock,
) -> Child:
    """Start a process in a session of its own, so that Ctrl-C does not reach it by itself.

    Args:
        argv: the program and its words.
        env: its environment, to which its mark is added.
        cwd: where it runs.
        folder, name: its mark, see `machine`.
        on_line: called with each line that it writes.
        clock: time, injected.

    Raises:
        MeshError: it cannot be started.
    """
    reading, writing = os.pipe()
    try:
        # Not by asyncio's pipes: those wait for the last heir of a killed process to close them.
        process = await asyncio.create_subprocess_exec(
            *argv,
            env={**env, **marks(folder, name)},
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=writing,
            stderr=writing,
            start_new_session=True,
        )
    except OSError as error:
        os.close(reading)
        raise MeshError(f"cannot run {argv[0]!r}: {error.strerror or error}") from error
    finally:
        os.close(writing)
    return Child(process, folder, name, reading, on_line, clock)
