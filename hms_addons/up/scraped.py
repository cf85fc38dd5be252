"""What Prometheus is told of a running mesh: its targets, as a list for `file_sd`, and the control plane's CA.

Both lie in `.hms`, beside the mesh's file, readable for Prometheus whoever runs it; they hold no secrets.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from hms_addons.atomic_file import PUBLIC_MODE, write_atomic
from hms_addons.errors import MeshError
from hms_addons.up.run_state import FOLDER, USUAL

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from pathlib import Path

    from hms_addons.clock import Clock

CONTROL: Final = "control-plane"
"""The label `service` of the control plane, by which the scrape configuration tells it apart."""
NO_VERSION: Final = "-"
LOOK: Final = 30.0
"""Seconds between looks at the roots of the control plane's CA."""
RETRY: Final = 2.0


def targets(control: str, instances: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Where metrics are, in the form of Prometheus' `file_sd`.

    Args:
        control: the control plane's address.
        instances: as `Member.document` tells of them; one without an admin port has none.
    """
    found = [_target(urlsplit(control).netloc, CONTROL, CONTROL, "")]
    for one in instances:
        if one["admin"]:
            address = f"127.0.0.1:{one['admin']}"
            found.append(_target(address, one["service"], one["name"], one["version"] or ""))
    return found


def _target(address: str, service: str, instance: str, version: str) -> dict[str, Any]:
    labels = {"service": service, "instance": instance, "version": version or NO_VERSION}
    return {"targets": [address], "labels": labels}


class ScrapeFiles:
    """The two files of one mesh.

    Args:
        file: its `mesh.yaml`; meshes of other files beside it have files of their own.
    """

    def __init__(self, file: Path) -> None:
        name = "prometheus" if file.name == USUAL else f"prometheus-{file.name}"
        folder = file.absolute().parent / FOLDER
        self.targets = folder / f"{name}.json"
        self.ca = folder / f"{name}-ca.pem"
        self._written: dict[Path, bytes] = {}

    def __repr__(self) -> str:
        return f"<ScrapeFiles {self.targets}>"

    def tell(self, control: str, instances: Iterable[Mapping[str, Any]]) -> None:
        """Say where metrics are now.

        Raises:
            MeshError: the file cannot be written.
        """
        text = json.dumps(targets(control, instances), indent=1) + "\n"
        self._write(self.targets, text.encode())

    def trust(self, pem: bytes) -> None:
        """Say whose word the control plane's certificate has.

        Raises:
            MeshError: the file cannot be written.
        """
        self._write(self.ca, pem)

    async def follow(self, roots: Callable[[], Awaitable[bytes]], clock: Clock) -> None:
        """Keep the CA's file as the control plane has it: roots may be replaced. Never returns."""
        while True:
            try:
                self.trust(await roots())
            except MeshError:
                await clock.sleep(RETRY)
            else:
                await clock.sleep(LOOK)

    def remove(self) -> None:
        """There is nothing to be scraped any more. The CA stays: Prometheus would stumble without it."""
        self._written.clear()
        self.targets.unlink(missing_ok=True)

    def _write(self, path: Path, content: bytes) -> None:
        if self._written.get(path) == content:
            return
        try:
            write_atomic(path, content, mode=PUBLIC_MODE)
        except OSError as error:
            raise MeshError(f"cannot write {path}: {error.strerror or error}") from error
        self._written[path] = content
