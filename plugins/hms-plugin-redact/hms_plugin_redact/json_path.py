"""JSON paths: the part of RFC 9535 that names members and elements.

    $.user.email    $['e-mail']    $.items[*].card    $.items[0]    $..ssn    $.*

`..` looks at every depth. Filters, slices and negative indices are not taken: refused, not ignored.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_STEP: Final = re.compile(
    r"(?P<deep>\.\.)?(?:"
    r"(?P<dot>(?<!\.)\.)?(?P<name>[^\W\d][\w-]*|\*)"
    r"|\[(?:(?P<index>0|[1-9][0-9]{0,8})|(?P<any>\*)"
    r"|'(?P<single>[^'\\]*)'|\"(?P<double>[^\"\\]*)\")\])"
)


class JsonPathError(ValueError):
    """A text is no path that is taken; the message says what is."""


class Step(NamedTuple):
    """One step down: to the member `key` or the element at `key`; to all, where it is None."""

    key: str | int | None
    deep: bool
    """At this depth and every one below."""


type JsonPath = tuple[Step, ...]


def parse_path(text: str) -> JsonPath:
    """The steps of a path.

    Raises:
        JsonPathError: it is none.
    """
    hint = "write it as $.user.email, $.items[*].card, $['e-mail'] or $..ssn"
    if not text.startswith("$") or text == "$":
        raise JsonPathError(f"a JSON path begins with $ and names something in it; {hint}")
    steps = []
    position = 1
    while position < len(text):
        found = _STEP.match(text, position)
        named = found is not None and found["name"] is not None
        if found is None or (named and not found["dot"] and not found["deep"]):
            raise JsonPathError(f"not understood from {text[position:][:20]!r} on; {hint}")
        steps.append(Step(_key(found), found["deep"] is not None))
        position = found.end()
    return tuple(steps)


def _key(found: re.Match[str]) -> str | int | None:
    if found["index"] is not None:
        return int(found["index"])
    if found["any"] is not None or found["name"] == "*":
        return None
    names = (found["name"], found["single"], found["double"])
    return next(name for name in names if name is not None)


def places(document: Any, path: JsonPath) -> Iterator[tuple[Any, Any]]:
    """Where the values that `path` names are: what they are in, and their key there.

    Yielded one may be written to; none twice, but for those that `..` finds below one another.
    """
    last = len(path) - 1
    left: list[tuple[Any, int]] = [(document, 0)]
    while left:
        node, at = left.pop()
        step = path[at]
        for key in _keys(node, step.key):
            if at == last:
                yield node, key
            else:
                left.append((node[key], at + 1))
        if step.deep and isinstance(node, dict | list):
            below = node.values() if isinstance(node, dict) else node
            left.extend((inner, at) for inner in below if isinstance(inner, dict | list))


def _keys(node: Any, wanted: str | int | None) -> list[Any]:
    """The keys of `node` that a step leads to."""
    if isinstance(node, dict):
        if wanted is None:
            return list(node)
        return [wanted] if isinstance(wanted, str) and wanted in node else []
    if isinstance(node, list):
        if wanted is None:
            return list(range(len(node)))
        return [wanted] if isinstance(wanted, int) and wanted < len(node) else []
    return []
