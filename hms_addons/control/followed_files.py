"""`hms control --config`: the configuration comes from files, as from a git checkout.

They are watched as a sidecar watches its own, by polling what `stat` says, and each change is pushed
like any operator's: checked, numbered and kept. What is bad is said once and the last good version
stays in force. What only the store is to blame for, as a full disk, is tried again at each look.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from hms_addons.config.problems import ConfigProblems
from hms_addons.config.source import POLL_INTERVAL, SETTLE_TIME, read_files
from hms_addons.control.store.protocol import StoreError
from hms_addons.errors import MeshError
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.clock import Clock
    from hms_addons.control.configs import ConfigService

logger = logging.getLogger(__name__)

AUTHOR: Final = "files"
_SUFFIXES: Final = frozenset({".yaml", ".yml"})

type _Look = tuple[tuple[Path, int, int, int], ...]


class FollowedFiles:
    """Pushes what `path` holds, now and whenever it changes.

    Args:
        configs: takes it, and nothing else from now on.
        path: a file, or a folder whose `*.yaml` files are merged in the order of their names.
        clock: tells when to look again.
    """

    def __init__(self, configs: ConfigService, path: Path, clock: Clock) -> None:
        self._configs = configs
        self._path = path
        self._clock = clock
        # What was pushed or refused last; None: what was found could not be stored.
        self._seen: _Look | None = ()
        self._tasks = TaskSet("followed files")
        configs.follows = str(path)

    def __repr__(self) -> str:
        return f"<FollowedFiles {self._path}>"

    async def start(self) -> None:
        """Push what there is, and follow it in the background. What is bad is logged."""
        self._seen = self._look()
        await self._push()
        self._tasks.start(self._watch(), "watch")

    async def close(self) -> None:
        """Follow it no longer. Idempotent."""
        await self._tasks.close()

    def _files(self) -> list[Path]:
        if not self._path.is_dir():
            return [self._path]
        return sorted(item for item in self._path.iterdir() if item.suffix in _SUFFIXES)

    def _look(self) -> _Look:
        found = []
        try:
            for path in self._files():
                stat = path.stat()
                found.append((path, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        except OSError:
            pass  # `_push` says what is wrong with it
        return tuple(found)

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(POLL_INTERVAL)
            seen = self._look()
            if seen == self._seen:
                continue
            await self._clock.sleep(SETTLE_TIME)
            if self._look() == seen:  # else it is still being written: look again later
                self._seen = seen
                await self._push()

    async def _push(self) -> None:
        try:
            contents = self._read()
            result = await self._configs.accept(contents, author=AUTHOR, source=str(self._path))
        except StoreError as error:
            self._seen = None
            trouble = f"what {self._path} says cannot be stored, and is tried again: {error}"
            if trouble != self._configs.trouble:
                logger.error("%s", trouble)  # noqa: TRY400 - says all
            self._configs.trouble = trouble
            return
        except MeshError as error:
            self._configs.trouble = f"{self._path} is refused: {error}"
            logger.error("%s is refused, the last good version stays: %s", self._path, error)  # noqa: TRY400 - says all
            return
        self._configs.trouble = None
        for problem in result.problems:
            logger.warning("%s", problem)
        if result.changed:
            logger.info("%s is in force as version %d", self._path, result.version)

    def _read(self) -> list[tuple[str, bytes]]:
        try:
            contents, problems = read_files(self._files())
        except OSError as error:
            raise MeshError(f"{self._path} cannot be read: {error.strerror or error}") from error
        if problems:
            raise ConfigProblems(problems)
        if not contents:
            raise MeshError(f"{self._path} holds no .yaml file")
        return contents
