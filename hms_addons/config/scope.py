"""Which part of a mesh's configuration is a sidecar's: listeners that name their `services:`.

One configuration may hold the listeners of many services. A listener that names services belongs
to their sidecars alone; one that names none belongs to all. The control plane cuts a document
down to the service that asks; a sidecar does the same with what its own files say.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

KEY = "services"
"""A listener's key that names them."""


def belongs_to(services: object, service: str | None) -> bool:
    """Whether a listener with this value of `services:` belongs to the sidecars of `service`.

    Args:
        services: a list of names, or None where there is none. Anything else is a mistake, which
            validation tells of, so such a listener is not dropped before.
        service: None: not known, or all; then every listener does.
    """
    return service is None or not isinstance(services, list) or service in services


def overlap(one: list[str] | None, other: list[str] | None) -> bool:
    """Whether a sidecar could have two listeners with these values of `services:`."""
    return one is None or other is None or not set(one).isdisjoint(other)


def scope(document: Mapping[str, Any], service: str | None) -> dict[str, Any]:
    """`document` as the sidecars of `service` get it; of plain data, changed nowhere.

    Listeners of other services are left out, and what is left of the key `services:` is too. With
    `service` None it is the same document.
    """
    scoped = dict(document)
    listeners = scoped.get("listeners")
    if service is None or not isinstance(listeners, list):
        return scoped
    scoped["listeners"] = [
        {key: value for key, value in item.items() if key != KEY or not isinstance(value, list)}
        if isinstance(item, dict)
        else item
        for item in listeners
        if not isinstance(item, dict) or belongs_to(item.get(KEY), service)
    ]
    return scoped
