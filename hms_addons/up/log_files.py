"""A log for each instance, bounded, for `hms logs`: a time and a line, as they came."""

from __future__ import annotations

import contextlib
import heapq
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import FileIO
    from pathlib import Path

    from hms_addons.clock import Clock

MAX_BYTES: Final = 5 * 1024 * 1024
"""Of one file; the one before it is kept, too."""
SUFFIX: Final = ".log"
OLD: Final = ".log.1"


class LogFiles:
    """Writes them.

    Args:
        folder: where; made if missing.
        clock: time, injected.
        max_bytes: see `MAX_BYTES`.
    """

    def __init__(self, folder: Path, clock: Clock, max_bytes: int = MAX_BYTES) -> None:
        self._folder = folder
        self._clock = clock
        self._max = max_bytes
        self._files: dict[str, tuple[FileIO, int]] = {}
        """And how long they are. Unbuffered: what a full disk does not take is not kept."""
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def __repr__(self) -> str:
        return f"<LogFiles {self._folder}>"

    def write(self, name: str, line: str) -> None:
        """Add a line to an instance's log. A full disk costs the line, and nothing else."""
        at = datetime.fromtimestamp(self._clock.wall(), UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")
        with contextlib.suppress(OSError):
            file, size = self._files.get(name) or self._opened(name)
            if size >= self._max:
                del self._files[name]
                file.close()
                path = self._folder / f"{name}{SUFFIX}"
                path.replace(self._folder / f"{name}{OLD}")
                file, size = self._opened(name)
            file.write(f"{at[:-3]}Z {line}\n".encode("utf-8", "replace"))
            self._files[name] = file, file.tell()

    def _opened(self, name: str) -> tuple[FileIO, int]:
        file = (self._folder / f"{name}{SUFFIX}").open("ab", buffering=0)
        self._files[name] = file, file.tell()
        return self._files[name]

    def close(self) -> None:
        """Close them."""
        for file, _ in self._files.values():
            with contextlib.suppress(OSError):
                file.close()
        self._files.clear()


class LogReader:
    """Reads the logs of a service's instances, merged by time, and then what is added.

    Args:
        folder: where they are.
        wanted: a service's or an instance's name, as in the file.

    Raises:
        MeshError: there is no such log.
    """

    def __init__(self, folder: Path, wanted: str) -> None:
        self._folder = folder
        self._wanted = wanted
        self._offsets: dict[str, tuple[int, int]] = {}
        """By name: the file's inode, and how much of it has been read."""
        if not self._names():
            known = ", ".join(sorted(path.name[: -len(SUFFIX)] for path in self._logs()))
            message = f"there is no log of {wanted}; there are: {known or 'none'}"
            raise MeshError(message)

    def __repr__(self) -> str:
        return f"<LogReader {self._wanted}>"

    def _logs(self) -> list[Path]:
        return sorted(self._folder.glob(f"*{SUFFIX}"))

    def _names(self) -> list[str]:
        names = [path.name[: -len(SUFFIX)] for path in self._logs()]
        return [
            name
            for name in names
            if name == self._wanted
            or (name.rpartition("-")[0] == self._wanted and name.rpartition("-")[2].isdigit())
        ]

    def new(self) -> list[tuple[str, str]]:
        """Instance and line of all that was added since the last call, by time; at first, of all."""
        found = [
            [(name, *line.partition(" ")[::2]) for line in self._added(name)]
            for name in self._names()
        ]
        # Each instance's lines stay in order, also where the machine's clock was set back.
        merged = heapq.merge(*found, key=lambda item: item[1])
        return [(name, line) for name, _, line in merged]

    def _added(self, name: str) -> Iterator[str]:
        path = self._folder / f"{name}{SUFFIX}"
        inode, offset = self._offsets.get(name, (0, 0))
        with contextlib.suppress(OSError), path.open("rb") as file:
            now = path.stat().st_ino
            if inode != now:
                with contextlib.suppress(OSError):
                    yield from _lines((self._folder / f"{name}{OLD}").read_bytes()[offset:])
                offset = 0
            file.seek(offset)
            content = file.read()
            whole = content[: content.rfind(b"\n") + 1]
            self._offsets[name] = (now, offset + len(whole))
            yield from _lines(whole)


def _lines(content: bytes) -> list[str]:
    return content.decode("utf-8", "replace").split("\n")[:-1]
