"""What plugins ask of the running sidecar, without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.hookspecs import Mesh


class FakeMesh:
    """Keeps what plugins have to tell; `mesh` is what they are given."""

    def __init__(self) -> None:
        self._status: dict[str, Callable[[], Any]] = {}

    @property
    def mesh(self) -> Mesh:
        return cast("Mesh", self)

    def add_status(self, name: str, show: Callable[[], Any]) -> None:
        self._status[name] = show

    def shown(self, name: str) -> Any:
        """What `status()` would tell under `name`."""
        return self._status[name]()
