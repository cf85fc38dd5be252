"""What a running `hms up` leaves for `hms down`, `hms logs`, `hms open` and `hms top` to find.

It holds a lock on its folder while it runs; whoever finds the lock free knows that it does not, whatever
the files say.
"""

from __future__ import annotations

import fcntl
import json
import os
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError
from hms_addons.state_folder import StateFolder

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

FOLDER: Final = ".hms"
"""Beside `mesh.yaml`."""
USUAL: Final = "mesh.yaml"
"""Its usual name; meshes of other files beside it have folders of their own."""
_RUN: Final = "run"
_ADMIN: Final = "admin-token"


class RunState:
    """The folder of one mesh.

    Args:
        file: its `mesh.yaml`.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        name = "up" if file.name == USUAL else f"up-{file.name}"
        self.folder = file.absolute().parent / FOLDER / name
        self._state = StateFolder(self.folder)
        self._lock: int | None = None

    def __repr__(self) -> str:
        return f"<RunState {self.folder}>"

    @property
    def control(self) -> Path:
        """The control plane's data."""
        return self.folder / "control"

    @property
    def logs(self) -> Path:
        """A file for each instance."""
        return self.folder / "logs"

    def sidecar(self, name: str) -> Path:
        """The state folder of an instance's sidecar."""
        return self.folder / "sidecars" / name

    # -- the lock -------------------------------------------------------------------------------

    def take(self) -> None:
        """Take the folder.

        Raises:
            MeshError: somebody has it, or it cannot be written.
        """
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            ignore = self.folder.parent / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n", encoding="ascii")  # it holds the keys of a CA
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise MeshError(f"cannot keep state in {self.folder}: {error.strerror}") from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            message = f"{self.file} is up already (process {self.pid()}): `hms down` ends it"
            raise MeshError(message) from None
        try:
            os.ftruncate(lock, 0)
            os.write(lock, str(os.getpid()).encode())
        except OSError as error:
            os.close(lock)
            raise MeshError(f"cannot keep state in {self.folder}: {error.strerror}") from error
        self._lock = lock

    def release(self) -> None:
        """Give it back."""
        if self._lock is not None:
            self._state.remove(_RUN)
            os.close(self._lock)
            self._lock = None

    def pid(self) -> int | None:
        """The process that has the folder now; None if there is none.

        Raises:
            MeshError: that cannot be seen; it is somebody else's.
        """
        try:
            lock = os.open(self.folder / "lock", os.O_RDWR | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            message = f"cannot look into {self.folder}: {error.strerror}: is it another user's?"
            raise MeshError(message) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            written = os.read(lock, 20)
            return int(written) if written.isdigit() else None
        finally:
            os.close(lock)
        return None

    # -- what is told ---------------------------------------------------------------------------

    def tell(self, document: Mapping[str, Any]) -> None:
        """Say where everything is."""
        self._state.write(_RUN, json.dumps(document).encode())

    def told(self) -> dict[str, Any]:
        """Where everything is.

        Raises:
            MeshError: the mesh is not up.
        """
        content = self._state.read(_RUN) if self.pid() is not None else None
        if content is None:
            raise MeshError(f"{self.file} is not up: `hms up {self.file}` starts it")
        found: dict[str, Any] = json.loads(content)
        return found

    @property
    def admin_token(self) -> str | None:
        """What the control plane has shown once."""
        content = self._state.read(_ADMIN)
        return None if content is None else content.decode()

    @admin_token.setter
    def admin_token(self, token: str | None) -> None:
        if token is None:
            self._state.remove(_ADMIN)
        else:
            self._state.write(_ADMIN, token.encode())
