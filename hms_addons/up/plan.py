"""What should run, and what has to be done when that changes: plain data, nothing is touched."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hms_addons.up.schema import MeshFileModel, ServiceModel

_PLACEHOLDER: Final = re.compile(r"\{(port|name|python|mesh)\}")
ENTRY_PORT: Final = 15001
"""Where apps call; on one machine only one sidecar can have it."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One app with its sidecar. Two that are equal need no restart.

    Args:
        name: as `auth-svc-2`.
        group: the key in the file.
        service: the mesh's name for it.
        command: the app, with placeholders.
        folder: where it runs.
        version, weight, env: see `ServiceModel`.
        port: where the app listens; None: any.
        outbound: where its sidecar takes the app's calls; None: any.
        asked: the file asks for that port; otherwise another will do if it is taken.
        alone: it has no sidecar.
        health, watch: see `ServiceModel`; a change needs no restart.
    """

    name: str
    group: str
    service: str
    command: tuple[str, ...]
    folder: Path
    version: str = ""
    weight: int = 1
    env: tuple[tuple[str, str], ...] = ()
    port: int | None = None
    outbound: int | None = None
    asked: bool = False
    alone: bool = False
    health: str | None = field(default=None, compare=False)
    watch: tuple[str, ...] = field(default=(), compare=False)

    @property
    def listens(self) -> bool:
        """Whether its app is known to listen: it was given a port, or its command names it."""
        return (
            self.port is not None
            or self.health is not None
            or any("{port}" in word for word in self.command)
        )

    def words(self, port: int, mesh: str) -> list[str]:
        """The command, filled in; `mesh` is where it calls."""
        return [self._filled(word, port, mesh) for word in self.command]

    def variables(self, port: int, mesh: str) -> dict[str, str]:
        """`env`, filled in likewise."""
        return {name: self._filled(value, port, mesh) for name, value in self.env}

    def _filled(self, word: str, port: int, mesh: str) -> str:
        values = {"port": str(port), "name": self.name, "python": sys.executable, "mesh": mesh}
        return _PLACEHOLDER.sub(lambda found: values[found[1]], word)


def instances_of(model: MeshFileModel, folder: Path) -> dict[str, Instance]:
    """The instances that a file asks for, by name, in its order.

    Args:
        model: the file.
        folder: what paths in it are relative to.
    """
    marked = [group for group, service in model.services.items() if service.entry]
    first = next((group for group, service in model.services.items() if service.sidecar), None)
    found = {}
    for group, service in model.services.items():
        for number in range(service.replicas):
            name = f"{group}-{number + 1}"
            entry = number == 0 and (group in marked or (not marked and group == first))
            found[name] = _instance(name, number, group, service, folder, entry=entry)
    return found


def _instance(
    name: str, number: int, group: str, service: ServiceModel, folder: Path, *, entry: bool
) -> Instance:
    outbound = None
    if entry and service.sidecar and service.entry is not False:
        chosen = service.entry
        # `True` is an int, too.
        outbound = ENTRY_PORT if chosen is None or chosen is True else chosen
    return Instance(
        name=name,
        group=group,
        service=service.service or group,
        command=tuple(service.command),
        folder=folder / service.folder,
        version=service.version,
        weight=service.weight,
        env=tuple(service.env.items()),
        port=None if service.port is None else service.port + number,
        outbound=outbound,
        asked=bool(service.entry),
        alone=not service.sidecar,
        health=service.health,
        watch=tuple(service.watch),
    )


def wanted_ports(instances: Mapping[str, Instance]) -> dict[int, list[str]]:
    """The ports that a file insists on, and the instances that are to have them."""
    found: dict[int, list[str]] = {}
    for instance in instances.values():
        if instance.port is not None:
            found.setdefault(instance.port, []).append(instance.name)
        if instance.outbound is not None and instance.asked:
            found.setdefault(instance.outbound, []).append(f"{instance.name}'s sidecar")
    return found


class Actions(NamedTuple):
    """What turns one state of affairs into another."""

    stop: tuple[str, ...]
    """Instances that are not wanted any more."""
    restart: tuple[Instance, ...]
    """Those that are to run otherwise; one of a group after the other."""
    start: tuple[Instance, ...]
    """New ones."""
    keep: tuple[Instance, ...]
    """Those that go on; what needs no restart may have changed."""

    def __bool__(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.stop or self.restart or self.start)

    def __str__(self) -> str:
        """In words."""
        parts = [
            f"{verb} {', '.join(names)}"
            for verb, names in (
                ("stop", self.stop),
                ("restart", [one.name for one in self.restart]),
                ("start", [one.name for one in self.start]),
            )
            if names
        ]
        return "; ".join(parts) or "nothing to do"


def diff(old: Mapping[str, Instance], new: Mapping[str, Instance]) -> Actions:
    """What to do when `old` is running and `new` is wanted."""
    both = [new[name] for name in new if name in old]
    return Actions(
        stop=tuple(name for name in old if name not in new),
        restart=tuple(one for one in both if one != old[one.name]),
        start=tuple(one for name, one in new.items() if name not in old),
        keep=tuple(one for one in both if one == old[one.name]),
    )
