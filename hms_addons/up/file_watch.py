"""The files that an app watches: which of them has changed since the last look."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

MOST_WATCHED: Final = 5000
"""Files that are looked at for one app."""
_NOT_WATCHED: Final = frozenset({".hms", ".git", "__pycache__"})
"""What is in these changes by itself while an app runs: it would be restarted for ever."""

type Stamps = dict[Path, int]
type Looks = dict[tuple[Path, tuple[str, ...]], Stamps]
"""What was seen at one moment: instances of one service watch the same files."""


def why_not(pattern: str) -> str | None:
    """Why that is no pattern of files below a folder; None if it is one."""
    path = PurePath(pattern)
    if not path.parts or "\0" in pattern:
        return "expected files, as *.py or src/**/*.py"
    if path.is_absolute() or ".." in path.parts:
        return "expected files below `folder`, as *.py or src/**/*.py"
    return None


class FileWatch:
    """The files of some patterns below a folder.

    Args:
        folder: where they are.
        patterns: as `*.py`; see `why_not`.
    """

    def __init__(self, folder: Path, patterns: Sequence[str]) -> None:
        self._folder = folder
        self._patterns = tuple(patterns)
        self._known: Stamps | None = None

    def __repr__(self) -> str:
        return f"<FileWatch {self._folder} {' '.join(self._patterns)}>"

    def begin(self) -> None:
        """Changes count from now on. Looks at the disk, as `changed` does: not for an event loop."""
        self._known = self._stamps() if self._patterns else {}

    def changed(self, looks: Looks) -> Path | None:
        """One of the files that has changed, come or gone since the last look, or since `begin`.

        Args:
            looks: what was seen at this moment already; added to.
        """
        if not self._patterns:
            return None
        key = (self._folder, self._patterns)
        if key not in looks:
            looks[key] = self._stamps()
        before, self._known = self._known, looks[key]
        changed = set() if before is None else before.items() ^ self._known.items()
        return min(path for path, _ in changed) if changed else None

    @property
    def full(self) -> bool:
        """There are more than are looked at."""
        return self._known is not None and len(self._known) >= MOST_WATCHED

    def _stamps(self) -> Stamps:
        found: Stamps = {}
        for pattern in self._patterns:
            for path in self._folder.glob(pattern):
                if len(found) >= MOST_WATCHED:
                    return found
                if not _NOT_WATCHED.isdisjoint(path.relative_to(self._folder).parts):
                    continue
                try:
                    found[path] = path.stat().st_mtime_ns
                except OSError:
                    continue
        return found
