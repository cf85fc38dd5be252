"""Files that are whole or absent: how keys, certificates and kept state are written."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final

SECRET_MODE: Final = 0o600
PUBLIC_MODE: Final = 0o644


def write_atomic(path: Path, content: bytes, *, mode: int) -> None:
    """Replace `path` by `content` in one step, with the permissions `mode`.

    A reader sees the old file or the new one, never a part; a crash leaves the old one. The content
    is on disk before the name points at it. A key is never readable by others, not even for a
    moment: the temporary file is made 0600.

    Raises:
        OSError: the folder is missing, not writable, or full.
    """
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(temporary).unlink()
        raise
