"""What a process keeps on disk to start from when the control plane is away.

A `StateFolder` holds small files, each private (folder 0700, files 0600), replaced in one step and
headed by a line with the checksum of what follows. So a file is whole, or it is known to be damaged:
then it is set aside for a person to look at, said in the log, and done without.

The head is one line of text before the content; OpenSSL's tools read a PEM file in spite of it.
"""

from __future__ import annotations

import errno
import hashlib
import logging
import os
import re
import stat
from typing import TYPE_CHECKING, Final

from hms_addons.atomic_file import SECRET_MODE, write_atomic
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from pathlib import Path

logger = logging.getLogger(__name__)

FOLDER_MODE: Final = 0o700
MAX_STATE_BYTES: Final = 16 * 1024 * 1024
SET_ASIDE_SUFFIX: Final = ".damaged"

_HEAD = re.compile(rb"hms-state 1 sha256:([0-9a-f]{64})\n")


class StateError(MeshError):
    """The state folder cannot be used; the message names it and the remedy."""


class StateFolder:
    """Files that survive a restart.

    Args:
        path: the folder; made, 0700, when something is first written.
    """

    __slots__ = ("path",)

    def __init__(self, path: Path) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"<StateFolder {self.path}>"

    def write(self, name: str, content: bytes) -> None:
        """Replace the file `name` by `content`, in one step.

        Raises:
            StateError: the folder cannot be made or written; the old file is as it was.
        """
        head = b"hms-state 1 sha256:%s\n" % hashlib.sha256(content).hexdigest().encode()
        try:
            self.path.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
            if stat.S_IMODE(self.path.stat().st_mode) & 0o077:
                self.path.chmod(FOLDER_MODE)
            write_atomic(self.path / name, head + content, mode=SECRET_MODE)
        except OSError as error:
            full = error.errno in {errno.ENOSPC, errno.EDQUOT}
            remedy = "make room on its disk" if full else "give a folder of this user's (--state)"
            message = f"cannot write {self.path / name}: {error.strerror or error}: {remedy}"
            raise StateError(message) from error

    def read(self, name: str) -> bytes | None:
        """The content of the file `name`; None if there is none, or none that can be used.

        A damaged file is renamed to `<name>.damaged` and logged.
        """
        path = self.path / name
        try:
            with open(path, "rb", opener=_open_at_once) as file:
                whole = file.read(MAX_STATE_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            logger.warning("%s cannot be read: %s; going on without it", path, error.strerror)
            return None
        head = _HEAD.match(whole)
        if len(whole) > MAX_STATE_BYTES:
            self.set_aside(name, f"is larger than {MAX_STATE_BYTES} bytes")
        elif head is None:
            self.set_aside(name, "does not begin with a checksum of this program's")
        elif hashlib.sha256(content := whole[head.end() :]).hexdigest().encode() != head[1]:
            self.set_aside(name, "does not fit its checksum")
        else:
            return content
        return None

    def set_aside(self, name: str, reason: str) -> None:
        """Rename a file that cannot be used, so that it is not read again, and log `reason`."""
        path = self.path / name
        kept = path.with_name(name + SET_ASIDE_SUFFIX)
        try:
            path.replace(kept)
        except OSError as error:
            logger.warning("%s %s; going on without it (%s)", path, reason, error.strerror)
        else:
            logger.warning("%s %s; set aside as %s, going on without it", path, reason, kept.name)

    def remove(self, name: str) -> None:
        """Delete the file `name`, if there is one.

        Raises:
            StateError: it cannot be deleted.
        """
        try:
            (self.path / name).unlink(missing_ok=True)
        except OSError as error:
            message = f"cannot delete {self.path / name}: {error.strerror or error}"
            raise StateError(message) from error


def _open_at_once(path: str, flags: int) -> int:
    """Without waiting for a writer, should somebody have put a pipe there."""
    return os.open(path, flags | os.O_NONBLOCK)
