"""Which version of the configuration this user has seen last, of each control plane.

A push goes over the version in force. Whether its maker knew that version, the control plane cannot
tell; the maker's own computer can, if it remembers what it was shown. [Compare `git push`, which
refuses what was made from an older commit, and `--force`.]

It is a memory, not a lock: without it, a push is what it would be on any other computer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hms_addons.atomic_file import SECRET_MODE, write_atomic

if TYPE_CHECKING:
    from collections.abc import Callable

FILE: Final = "seen-versions.json"
FOLDER_MODE: Final = 0o700
MAX_BYTES: Final = 256 * 1024
MAX_KNOWN: Final = 500
"""Control planes that are remembered; past it, those that were asked longest ago are not."""


def default_path() -> Path | None:
    """Below `XDG_STATE_HOME`, else `~/.local/state`; None: this user has no home.

    https://specifications.freedesktop.org/basedir-spec/latest/
    """
    state = Path(os.environ.get("XDG_STATE_HOME", ""))
    if not state.is_absolute():  # the specification: then it is to be ignored
        try:
            state = Path.home() / ".local" / "state"
        except RuntimeError:
            return None
    return state / "hms" / FILE


class SeenVersions:
    """The versions, in one small file.

    What is wrong with the file is told, and never more than that: it must not keep anybody from
    pushing.

    Args:
        path: the file; None: nothing is remembered.
        warn: told what is wrong with it.
    """

    def __init__(self, path: Path | None, warn: Callable[[str], object]) -> None:
        self._path = path
        self._warn = warn

    def __repr__(self) -> str:
        return f"<SeenVersions {self._path}>"

    def get(self, url: str) -> int | None:
        """The version of the control plane at `url` that was seen last; None: nobody knows."""
        return self._read().get(url)

    def saw_in_force(self, url: str, version: int) -> None:
        """The version in force was shown, or was made here."""
        known = self._read()
        if known.pop(url, None) != version:
            self._write({**known, url: version})

    def saw(self, url: str, version: int) -> None:
        """Some version was shown, the one in force or an older one."""
        self.saw_in_force(url, max(version, self.get(url) or 0))

    def _read(self) -> dict[str, int]:
        if self._path is None:
            return {}
        try:
            with self._path.open("rb") as file:
                content = file.read(MAX_BYTES + 1)
            return _versions(content)
        except FileNotFoundError:
            return {}
        except OSError as error:
            self._tell(f"cannot be read ({error.strerror or error})")
        except (ValueError, RecursionError):
            self._tell("is damaged, and is ignored")
        return {}

    def _write(self, known: dict[str, int]) -> None:
        if self._path is None:
            return
        newest = dict(list(known.items())[-MAX_KNOWN:])
        content = json.dumps({"seen": newest}, indent=1).encode() + b"\n"
        try:
            self._path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            write_atomic(self._path, content, mode=SECRET_MODE)
        except OSError as error:
            self._tell(f"cannot be written ({error.strerror or error})")

    def _tell(self, what: str) -> None:
        self._warn(
            f"{self._path}, which remembers the versions of the configuration that you have seen, "
            f"{what}"
        )


def _versions(content: bytes) -> dict[str, int]:
    """What the file holds.

    Raises:
        ValueError: something else than what was written.
    """
    told = json.loads(content) if len(content) <= MAX_BYTES else None
    seen = told.get("seen") if isinstance(told, dict) else None
    if not isinstance(seen, dict):
        raise ValueError("no versions")  # noqa: TRY004 - content, not a caller's mistake
    for version in seen.values():
        if not isinstance(version, int) or isinstance(version, bool) or version < 0:
            raise ValueError("no version")
    return seen
