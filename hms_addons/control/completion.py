"""What a sidecar is sent: the pushed configuration, scoped to its service and completed.

Pure functions from a configuration, as plain data, and the registry's services to documents in the
same language. What is the same for all services (clusters with their endpoints, policies) is made
once and shared; a service of its own has only its listeners.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from hms_addons.config.compile import OWN_CERTIFICATE
from hms_addons.config.scope import scope

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Sequence

    from hms_addons.control.registry import Instance

type Services = Mapping[str, Sequence[Instance]]
"""What is registered: the instances of each service."""

_VERSION_SUFFIX = re.compile(r"-v[0-9]+$")
_NOT_SHARED: Final = frozenset({"listeners", "secrets", "service", "trust_domain", "zone"})


def service_of(cluster: Mapping[str, Any]) -> str:
    """The service that a configured cluster belongs to."""
    name: str = cluster["name"]
    return cluster.get("service") or _VERSION_SUFFIX.sub("", name)


def shared_part(config: Mapping[str, Any], services: Services) -> dict[str, Any]:
    """All that the documents of every service hold alike; `secrets` are nobody's.

    Args:
        config: a good configuration, as plain data.
        services: what is registered.
    """
    shared = {key: value for key, value in config.items() if key not in _NOT_SHARED}
    written: list[dict[str, Any]] = config.get("clusters") or []
    members: dict[str, set[str]] = {}
    for cluster in written:
        members.setdefault(service_of(cluster), set()).add(cluster["name"])
    clusters = [_filled(cluster, members[service_of(cluster)], services) for cluster in written]
    clusters += _added(written, services)
    if clusters:
        shared["clusters"] = clusters
    return shared


def own_part(config: Mapping[str, Any], service: str, trust_domain: str) -> dict[str, Any]:
    """What the document of `service` holds alone."""
    listeners = scope({"listeners": config.get("listeners") or []}, service)["listeners"]
    return {"service": service, "trust_domain": trust_domain, "listeners": listeners}


def as_json(part: Mapping[str, Any]) -> bytes:
    """A part in the one spelling that is sent, and that digests are of."""
    return json.dumps(part, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")


def joined(own: bytes, shared: bytes) -> bytes:
    """Two parts, each a JSON object, as one document."""
    if shared == b"{}":
        return own
    return b"%b,%b" % (own[:-1], shared[1:])


def _filled(
    cluster: dict[str, Any], siblings: Container[str], services: Services
) -> dict[str, Any]:
    """`cluster` with endpoints from the registry, if it says nothing of its own.

    Args:
        cluster: as written.
        siblings: the names of all written clusters of its service.
        services: what is registered.
    """
    if cluster.get("endpoints") or cluster.get("dns"):
        return cluster
    name, service = cluster["name"], service_of(cluster)
    found = list(services.get(service, ()))
    if name == service:
        found = [i for i in found if not i.version or f"{service}-{i.version}" not in siblings]
    else:
        found = [i for i in found if f"{service}-{i.version}" == name]
        found += services.get(name, ())
    return cluster | {"endpoints": _endpoints(found)}


def _endpoints(instances: Iterable[Instance]) -> list[dict[str, Any]]:
    """One endpoint an address: a sidecar that was killed and started anew is there twice a while."""
    found = {instance.address: instance.endpoint() for instance in instances if instance.weight}
    return list(found.values())


def _added(written: Sequence[Mapping[str, Any]], services: Services) -> Iterator[dict[str, Any]]:
    """A cluster for each registered service that no written one belongs to: `foo.svc` just works."""
    # Hosts know no case, so a sidecar refuses two names that differ in nothing else.
    taken = {name.lower() for cluster in written for name in (cluster["name"], service_of(cluster))}
    for service in sorted(services):
        if service.lower() in taken:
            continue
        taken.add(service.lower())
        cluster: dict[str, Any] = {"name": service}
        if service_of(cluster) != service:
            cluster["service"] = service
        cluster["endpoints"] = _endpoints(services[service])
        cluster["tls_context"] = {"sds": OWN_CERTIFICATE}
        yield cluster
