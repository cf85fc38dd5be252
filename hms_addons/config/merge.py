"""Several files as one configuration: later files add to earlier ones.

- Listeners and clusters (lists of named things) and secrets merge by name: a new name is added, for
  a known one the later file's keys are added or replace the earlier ones.
- `governance`, `rbac`, `headers`, `access_log`, `tracing` and each plugin's options merge by key in the same way.
- `rbac.providers` and `rbac.policies` merge by name as well, so an overlay cannot drop a policy by
  accident.
- Everything else is replaced whole, lists too: a later file's `routes` take the place of a listener's
  routes, because the order of routes is their meaning and two files cannot interleave it.

Marks follow the data, so that a problem is shown in the file that wrote it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.problems import ConfigProblems, Place, Problem, Severity, dotted
from hms_addons.config.yaml_marks import Document, Marks

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from hms_addons.config.problems import Path

_NAMED_LISTS: Final = frozenset(
    {("listeners",), ("clusters",), ("rbac", "providers"), ("rbac", "policies")}
)
"""Lists whose items merge by their `name`."""
_MERGED_MAPPINGS: Final = frozenset(
    {
        (),
        ("secrets",),
        ("governance",),
        ("rbac",),
        ("headers",),
        ("access_log",),
        ("tracing",),
        ("plugins",),
    }
)
"""Mappings that merge key by key; so do the items of named lists, of `secrets` and `plugins`."""
_MERGED_ITEMS: Final = frozenset({"secrets", "plugins"})


class Merged(NamedTuple):
    """Several documents as one, and what was wrong with them."""

    document: Document
    problems: tuple[Problem, ...]
    """Documents that are no mappings, and names that are twice in one."""
    twice: tuple[Path, ...]
    """Items of `document` whose name an earlier one has."""
    whole: bool
    """All could be used."""


def merge(documents: Sequence[Document]) -> Document:
    """Merge `documents`, the later over the earlier.

    Raises:
        ConfigProblems: a document is not a mapping, or names one thing twice; all such problems.
    """
    merged = merge_good(documents)
    if merged.problems:
        raise ConfigProblems(merged.problems)
    return merged.document


def merge_good(documents: Sequence[Document]) -> Merged:
    """Merge what can be merged of `documents`, the later over the earlier.

    A document that is no mapping is left out; items that have one name in one document stay apart.
    """
    problems = [problem for document in documents for problem in _check(document)]
    merged = Document({}, documents[0].marks if documents else Marks(Place("(nothing)", 1, 1)))
    whole = True
    for document in documents:
        if isinstance(document.data, dict):
            merged = _merge_mapping(merged, document, ())
        elif document.data is not None:
            whole = False
    twice: list[Path] = [
        (*path, index)
        for path in sorted(_NAMED_LISTS)
        for index, _ in _twice(_list_at(merged.data, path))
    ]
    return Merged(merged, tuple(problems), tuple(twice), whole)


def without_listeners(document: Document, names: Collection[str]) -> Document:
    """`document` less the listeners of these names."""
    if not names:
        return document
    items, old = document.data["listeners"], document.marks.children["listeners"]
    kept = [index for index, item in enumerate(items) if _name(item) not in names]
    fresh = Marks(old.place)
    fresh.children = {at: old.children[index] for at, index in enumerate(kept)}
    marks = Marks(document.marks.place)
    marks.keys = document.marks.keys
    marks.children = {**document.marks.children, "listeners": fresh}
    return Document({**document.data, "listeners": [items[index] for index in kept]}, marks)


def _check(document: Document) -> list[Problem]:
    if document.data is None:
        return []
    if not isinstance(document.data, dict):
        message = "a configuration is a mapping with keys such as 'listeners' and 'clusters'"
        return [Problem(Severity.ERROR, *document.marks.place, "", message)]
    problems: list[Problem] = []
    for path in sorted(_NAMED_LISTS):
        items = _list_at(document.data, path)
        for index, earlier in _twice(items):
            here: Path = (*path, index, "name")
            first = document.marks.place_of((*path, earlier, "name"))
            message = f"the name {_name(items[index])!r} is here twice; first in line {first.line}"
            place = document.marks.place_of(here)
            problems.append(Problem(Severity.ERROR, *place, dotted(here), message))
    return problems


def _list_at(value: Any, path: Path) -> list[Any]:
    """The list at `path`; empty if there is something else, or nothing."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else None
    return value if isinstance(value, list) else []


def _twice(items: list[Any]) -> Iterator[tuple[int, int]]:
    """Positions of items whose name an earlier one has, each with that one's."""
    seen: dict[str, int] = {}
    for index, item in enumerate(items):
        if (name := _name(item)) is not None:
            first = seen.setdefault(name, index)
            if first != index:
                yield index, first


def _name(item: Any) -> str | None:
    name = item.get("name") if isinstance(item, dict) else None
    return name if isinstance(name, str) else None


def _merge_mapping(old: Document, new: Document, path: Path) -> Document:
    data: dict[str, Any] = dict(old.data)
    marks = Marks(old.marks.place if old.data else new.marks.place)
    marks.keys = dict(old.marks.keys)
    marks.children = dict(old.marks.children)
    for key, value in new.data.items():
        child = Document(value, new.marks.children[key])
        here = (*path, key)
        if key in data:
            child = _merge_value(Document(data[key], marks.children[key]), child, here)
        data[key] = child.data
        marks.children[key] = child.marks
        marks.keys[key] = new.marks.keys[key]
    return Document(data, marks)


def _merge_value(old: Document, new: Document, path: Path) -> Document:
    if isinstance(old.data, dict) and isinstance(new.data, dict):
        if path in _MERGED_MAPPINGS or (len(path) == 2 and path[0] in _MERGED_ITEMS):  # noqa: PLR2004 - section and name
            return _merge_mapping(old, new, path)
    elif isinstance(old.data, list) and isinstance(new.data, list) and path in _NAMED_LISTS:
        return _merge_named(old, new, path)
    return new


def _merge_named(old: Document, new: Document, path: Path) -> Document:
    items: list[Any] = list(old.data)
    marks = Marks(old.marks.place)
    marks.children = dict(old.marks.children)
    known: dict[str, int] = {}
    for index, item in enumerate(items):
        if (name := _name(item)) is not None:
            known.setdefault(name, index)
    again = {index for index, _ in _twice(new.data)}
    for index, item in enumerate(new.data):
        child = Document(item, new.marks.children[index])
        name = _name(item)
        at = len(items) if name is None or index in again else known.get(name, len(items))
        if at < len(items):
            # Keys of a named item replace one another whole, whatever they are called.
            child = _merge_mapping(Document(items[at], marks.children[at]), child, (*path, at))
            items[at] = child.data
        else:
            items.append(child.data)
            if name is not None:
                known.setdefault(name, at)
        marks.children[at] = child.marks
    return Document(items, marks)
