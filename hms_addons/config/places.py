"""Where a configuration was written, for refusals that come after it was read.

A plugin, or whoever else takes part in the transaction, knows a snapshot, not a file. The snapshot
keeps the places of what such a refusal can be about: plugins' options, balancers, secrets, providers.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from hms_addons.config.problems import Problem, Severity, dotted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hms_addons.config.problems import Path, Place
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.config.yaml_marks import Document

_MOST = 1000
"""Most places that one plugin's options are given; the others have their section's."""
_PATH = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*(?:\.[A-Za-z0-9_-]+|\[[0-9]+\])*(?=: )")


def places_of(document: Document) -> dict[str, Place]:
    """The places in a document that was read from files, by dotted path.

    A cluster's balancer is at `clusters.NAME.load_balancer`.
    """
    data, marks = document.data, document.marks
    found: dict[str, Place] = {}
    if not isinstance(data, dict):
        return found
    for section in ("plugins", "secrets", "rbac", "governance", "tracing"):
        if section in marks.keys:
            found[section] = marks.keys[section]
    for path in _below(data.get("plugins"), ("plugins",)):
        found[dotted(path)] = marks.place_of(path, isinstance(path[-1], str) and len(path) == 2)  # noqa: PLR2004 - section and name
    for path in _below(data.get("secrets"), ("secrets",)):
        found[dotted(path)] = marks.place_of(path)
    if isinstance(rbac := data.get("rbac"), dict):
        found |= {dotted(("rbac", key)): marks.place_of(("rbac", key)) for key in rbac}
    clusters = data.get("clusters")
    for index, item in enumerate(clusters if isinstance(clusters, list) else ()):
        if isinstance(item, dict) and "load_balancer" in item:
            place = marks.place_of(("clusters", index, "load_balancer"))
            found[f"clusters.{item.get('name')}.load_balancer"] = place
    return {path: place for path, place in found.items() if not place.file.startswith("(")}


def located(snapshot: Snapshot, path: str, message: str, suggestion: str | None = None) -> str:
    """`message` about what is at `path`, with its place (or that of what it is in) if it has one."""
    place = _place(snapshot.places, path)
    if place is None:
        guess = f" (did you mean {suggestion}?)" if suggestion else ""
        return f"{path}: {message}{guess}"
    return str(Problem(Severity.ERROR, *place, path, message, suggestion))


def located_by_itself(snapshot: Snapshot, message: str, otherwise: str) -> str:
    """`message` with a place before it: of the path that it begins with, else of `otherwise`."""
    named = _PATH.match(message)
    place = _place(snapshot.places, named[0]) if named is not None else None
    if place is None:
        place = snapshot.places.get(otherwise)
    return message if place is None else f"{place}: {message}"


def _place(places: Mapping[str, Place], path: str) -> Place | None:
    while path:
        if path in places:
            return places[path]
        path = path[: max(path.rfind("."), path.rfind("["), 0)]
    return None


def _below(value: Any, path: Path) -> Iterator[Path]:
    """Every path below a mapping's, at most so many."""
    left = [(value, path)]
    for _ in range(_MOST):
        if not left:
            return
        item, at = left.pop(0)
        if len(at) > 1:
            yield at
        if isinstance(item, dict):
            left.extend((inner, (*at, key)) for key, inner in item.items())
        elif isinstance(item, list):
            left.extend((inner, (*at, index)) for index, inner in enumerate(item))
