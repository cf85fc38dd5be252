"""Configuration from files: loaded at start, and again whenever one of them changes.

A change is a transaction: a new snapshot is handed on only when all files together are good. A bad
change is reported once and the old snapshot stays. Files are watched by polling what `stat` says
(mtime, size, inode), which also sees an editor's rename and a Kubernetes symlink swap, and costs
nothing that matters at one look a second.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import stat
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.problems import ConfigProblems, Problem, Severity
from hms_addons.config.yaml_marks import MAX_BYTES
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot

logger = logging.getLogger(__name__)

POLL_INTERVAL: Final = 1.0
"""Seconds between two looks."""
SETTLE_TIME: Final = 0.1
"""Seconds that files must stand still before they are read: editors write in several steps."""

type _Stats = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles:
    """Some files, read together and again when one of them changes.

    Args:
        paths: the files; there may be none.
        clock: tells when to look again.
    """

    def __init__(self, paths: Sequence[Path], clock: Clock = SYSTEM_CLOCK) -> None:
        self.paths = tuple(paths)
        self._clock = clock
        self._digest = b""
        """Of the content last read, good or bad."""
        self._stats: _Stats = ()

    def __repr__(self) -> str:
        return f"<WatchedFiles {', '.join(map(str, self.paths))}>"

    def read(self) -> list[tuple[str, bytes]]:
        """Name and content of each file, now.

        Raises:
            ConfigProblems: one of them cannot be read.
        """
        self._stats = self._look()
        return self._read()

    def forget(self) -> None:
        """What was read last was in vain: the same content counts as new when it is touched."""
        self._digest = b""

    async def change(self) -> list[tuple[str, bytes]]:
        """Wait until the files hold something else than what was read last, and read it.

        Raises:
            ConfigProblems: they cannot be read any more; raised once for each state of affairs.
        """
        while True:
            await self._clock.sleep(POLL_INTERVAL)
            stats = self._look()
            if stats == self._stats:
                continue
            await self._clock.sleep(SETTLE_TIME)
            if self._look() != stats:
                continue  # still being written: look again later
            self._stats = stats
            before = self._digest
            try:
                contents = self._read()
            except ConfigProblems:
                if self._digest == before:
                    continue  # reported already
                raise
            if self._digest != before:
                return contents

    def _look(self) -> _Stats:
        return tuple(map(_stat, self.paths))

    def _read(self) -> list[tuple[str, bytes]]:
        contents, problems = read_files(self.paths)
        self._digest = _digest(contents, problems)
        if problems:
            raise ConfigProblems(problems)
        return contents


class FileSource:
    """One or several configuration files, the later over the earlier.

    Args:
        paths: the files; at least one.
        clock: tells when to look again.
        service: the service this sidecar stands beside, if the command line says so.
        extra: a configuration whose listeners are added where the files have none on their port.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        clock: Clock = SYSTEM_CLOCK,
        *,
        service: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self._files = WatchedFiles(paths, clock)
        self._extra = extra
        self._service = service

    def __repr__(self) -> str:
        return f"<FileSource {self.name}>"

    @property
    def name(self) -> str:
        """The files, for people."""
        return ", ".join(map(str, self._files.paths))

    def load(self) -> Snapshot:
        """Read the files now. Warnings are logged.

        Raises:
            ConfigProblems: they cannot be read or used; holds every problem.
        """
        return self._made(self._files.read())

    def _made(self, contents: list[tuple[str, bytes]]) -> Snapshot:
        # Here, as whoever only reads files (`hms config push`, `hms up`) is to start fast.
        from hms_addons.config.load import load  # noqa: PLC0415 - see above

        loaded = load(contents, service=self._service, extra=self._extra)
        if loaded.snapshot is None:
            raise ConfigProblems(loaded.problems)
        for problem in loaded.problems:
            logger.warning("%s", problem)
        return loaded.snapshot

    async def watch(
        self,
        on_snapshot: Callable[[Snapshot], Awaitable[None]],
        on_refused: Callable[[str], object],
    ) -> None:
        """Look for changes until cancelled.

        Args:
            on_snapshot: awaited with each new good snapshot, before the next look. It raises
                `MeshError` if the snapshot cannot be put to use (and says so itself): the same
                content is then tried again when the files are next written or touched.
            on_refused: called once for each bad content, with all its errors, one a line.
        """
        while True:
            try:
                contents = await self._files.change()
                # Thousands of routes take a second to compile; requests must not wait for that.
                snapshot = await asyncio.to_thread(self._made, contents)
            except ConfigProblems as error:
                on_refused(str(error))
                continue
            try:
                await on_snapshot(snapshot)
            except MeshError:
                self._files.forget()


def load_files(paths: Sequence[Path], *, service: str | None = None) -> Snapshot:
    """The snapshot of some files, once.

    Raises:
        ConfigProblems: they cannot be read or used; holds every problem.
    """
    return FileSource(paths, service=service).load()


def read_files(paths: Sequence[Path]) -> tuple[list[tuple[str, bytes]], list[Problem]]:
    """Name and content of each file that can be read, and a problem for each that cannot."""
    contents = []
    problems = []
    for path in paths:
        try:
            # A pipe or a device must not make the event loop wait for somebody to write to it.
            descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            with os.fdopen(descriptor, "rb") as file:
                if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                    message = "is not a regular file"
                    problems.append(Problem(Severity.ERROR, str(path), 1, 1, "", message))
                    continue
                contents.append((str(path), file.read(MAX_BYTES + 1)))
        except OSError as error:
            message = f"cannot be read: {error.strerror or error}"
            problems.append(Problem(Severity.ERROR, str(path), 1, 1, "", message))
    return contents, problems


def not_utf8(contents: Iterable[tuple[str, bytes]]) -> list[Problem]:
    """A problem for each file that is no UTF-8: YAML allows UTF-16, which JSON cannot carry on."""
    problems = []
    for name, content in contents:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            line = content.count(b"\n", 0, error.start) + 1
            message = f"not readable as UTF-8 text: {error.reason}"
            problems.append(Problem(Severity.ERROR, name, line, 1, "", message))
    return problems


def _digest(contents: Sequence[tuple[str, bytes]], problems: Sequence[Problem]) -> bytes:
    digest = hashlib.sha256()
    for name, content in contents:
        digest.update(b"%d:%s%d:" % (len(name), name.encode("utf-8", "replace"), len(content)))
        digest.update(content)
    for problem in problems:
        digest.update(str(problem).encode("utf-8", "replace"))
    return digest.digest()


def _stat(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino
