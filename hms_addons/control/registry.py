"""Which instances of which service there are: registered by their sidecars, gone when those are.

An instance is registered for a TTL and renewed by saying the same again. What is registered reaches
every sidecar as an endpoint, so what a sidecar could not take as one is refused here, before it does
harm to all of them.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from hms_addons.config.schema import ClusterModel
from hms_addons.control.leased import LeasedKeys
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hms_addons.control.mirror import Mirror
    from hms_addons.control.store.protocol import Event, Store

PREFIX: Final = "services/"
DEFAULT_TTL: Final = 15.0
MAX_INSTANCES: Final = 1000
"""Of one service, that its sidecars register: every sidecar that calls the service is sent them all."""
MAX_METADATA_BYTES: Final = 4096
"""Names and values of one instance together."""

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


class InstanceError(MeshError):
    """An instance cannot be registered; the message says why."""


class TooManyInstancesError(MeshError):
    """A service has as many instances as its sidecars may register; those can still be renewed."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One running copy of a service."""

    id: str
    service: str
    address: str
    """`host:port` of its inbound listener."""
    version: str = ""
    """As `v1`; empty: none in particular."""
    weight: int = 1
    """Its share, relative to the others'; 0: it gets nothing."""
    zone: str = ""
    priority: int = 0
    """0 is used first, 1 when that fails, and so on."""
    metadata: Mapping[str, str] = field(default_factory=dict)
    ttl: float = DEFAULT_TTL
    """Seconds after which it is gone, unless it is registered again."""

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-ready types."""
        return asdict(self)

    def endpoint(self) -> dict[str, Any]:
        """As a cluster's endpoint in a configuration."""
        endpoint: dict[str, Any] = {"address": self.address}
        if self.weight != 1:
            endpoint["weight"] = self.weight
        if self.zone:
            endpoint["zone"] = self.zone
        if self.priority:
            endpoint["priority"] = self.priority
        return endpoint


class Registry:
    """The services and their instances.

    Args:
        store: where they are kept.
        mirror: of that store; not yet started.
    """

    def __init__(self, store: Store, mirror: Mirror) -> None:
        self._keys = LeasedKeys(store)
        self._mirror = mirror
        self._instances: dict[str, dict[str, Instance]] = defaultdict(dict)
        """By service, then by id."""
        self._coming: set[tuple[str, str]] = set()
        """Service and id of those that are being written, and are new."""
        self._names: dict[str, str] = {}
        """By the name in lower case: hosts do not tell `Foo` from `foo`."""
        mirror.read(PREFIX, self._apply)

    def __repr__(self) -> str:
        count = sum(map(len, self._instances.values()))
        return f"<Registry {len(self._instances)} services, {count} instances>"

    def services(self) -> dict[str, tuple[Instance, ...]]:
        """All services that have an instance, by name; their instances by id."""
        return {name: self.instances(name) for name in sorted(self._instances)}

    def instances(self, service: str) -> tuple[Instance, ...]:
        """The instances of `service`, by id."""
        found = self._instances.get(service, {})
        return tuple(found[id_] for id_ in sorted(found))

    async def register(self, instance: Instance, *, bounded: bool = False) -> bool:
        """Register an instance, or renew it.

        Args:
            instance: with its service.
            bounded: a new one must be within `MAX_INSTANCES`: the admin may know better than that.

        Returns:
            Whether that changed anything.

        Raises:
            InstanceError: no sidecar could use it.
            TooManyInstancesError: it is one too many.
            StoreError: it could not be written.
        """
        self._check(instance)
        place = instance.service, instance.id
        if instance.id in self._instances.get(instance.service, ()) or place in self._coming:
            return await self._write(instance)
        if bounded:
            self._check_room(instance.service)
        self._coming.add(place)
        try:
            return await self._write(instance)
        finally:
            self._coming.discard(place)

    def _check_room(self, service: str) -> None:
        coming = sum(place[0] == service for place in self._coming)
        count = len(self._instances.get(service, ())) + coming
        if count >= MAX_INSTANCES:
            raise TooManyInstancesError(
                f"{service} has {count} instances, and its sidecars may register no more: "
                "let some end, or register this one as the admin"
            )

    async def _write(self, instance: Instance) -> bool:
        value = json.dumps(instance.to_json(), sort_keys=True).encode()
        revision = await self._keys.put(_key(instance.service, instance.id), value, instance.ttl)
        if revision is not None:
            await self._mirror.reach(revision)
        return revision is not None

    async def deregister(self, service: str, id_: str) -> bool:
        """Take an instance out; whether it was there.

        Raises:
            StoreError: it could not be written.
        """
        if not (_ID.fullmatch(service) and _ID.fullmatch(id_)):
            return False
        revision = await self._keys.delete(_key(service, id_))
        if revision is not None:
            await self._mirror.reach(revision)
        return revision is not None

    def _check(self, instance: Instance) -> None:
        for name in (instance.service, instance.id):
            if not _ID.fullmatch(name):
                message = f"{name!r} cannot be a name: use letters, digits, '.', '_' and '-'"
                raise InstanceError(message)
        other = self._names.get(instance.service.lower(), instance.service)
        if other != instance.service:
            message = f"{instance.service} and {other}, which is registered, differ only in case"
            raise InstanceError(f"{message}, which hosts do not tell")
        endpoint = instance.endpoint() | {"weight": max(instance.weight, 1)}
        cluster = {"name": instance.service, "endpoints": [endpoint]}
        try:
            ClusterModel.model_validate(cluster)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"] if part != 0)
            raise InstanceError(f"{where}: {first['msg']}") from None
        if instance.weight < 0:
            raise InstanceError(f"weight: must be at least 0, not {instance.weight}")
        texts = (*instance.metadata, *instance.metadata.values())
        size = sum(len(text.encode("utf-8", "replace")) for text in texts)
        if size > MAX_METADATA_BYTES:
            message = f"metadata: {size} bytes together; at most {MAX_METADATA_BYTES} are taken"
            raise InstanceError(message)

    def _apply(self, events: Sequence[Event]) -> None:
        for event in events:
            service, _, id_ = event.key.removeprefix(PREFIX).partition("/")
            if event.value is not None:
                self._instances[service][id_] = Instance(**json.loads(event.value))
                self._names[service.lower()] = service
                continue
            self._keys.forget(event.key)
            self._instances[service].pop(id_, None)
            if not self._instances[service]:
                del self._instances[service]
                self._names.pop(service.lower(), None)


def _key(service: str, id_: str) -> str:
    return f"{PREFIX}{service}/{id_}"
