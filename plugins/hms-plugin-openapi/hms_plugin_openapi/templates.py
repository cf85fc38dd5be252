"""Which operation a path belongs to: `/claims/{id}` and the like (OpenAPI 4.8.8.1)."""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote

_VARIABLE = re.compile(r"\{([^{}]+)\}")


class Template(NamedTuple):
    """A path with variables, ready to be compared."""

    path: str
    segments: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...]
    """Of each segment the literal texts around its variables, and their names."""

    def values(self, segments: list[str]) -> dict[str, str] | None:
        """The variables' values, decoded; None if a path is another one."""
        found: dict[str, str] = {}
        for (literals, names), segment in zip(self.segments, segments, strict=True):
            if not names:
                if unquote(segment) != unquote(literals[0]):
                    return None
                continue
            values = _between(literals, segment)
            if values is None:
                return None
            found.update(zip(names, map(unquote, values), strict=True))
        return found


def parse_template(path: str) -> Template:
    """A path of a document."""
    segments = []
    for segment in path.split("/"):
        parts = _VARIABLE.split(segment)
        segments.append((tuple(parts[::2]), tuple(parts[1::2])))
    return Template(path, tuple(segments))


def _between(literals: tuple[str, ...], segment: str) -> list[str] | None:
    """What is between the literals: each time as little as will do, and never nothing."""
    first, *others = literals
    if not segment.startswith(first):
        return None
    values = []
    position = len(first)
    for number, literal in enumerate(others):
        if number == len(others) - 1:
            end = len(segment) - len(literal)
            if not segment.endswith(literal):
                return None
        else:
            end = segment.find(literal, position + 1)
        if end <= position:
            return None
        values.append(segment[position:end])
        position = end + len(literal)
    return values


class PathTable[T]:
    """Paths and what belongs to them; concrete ones before those with variables."""

    def __init__(self, paths: dict[str, T]) -> None:
        self._by_length: dict[int, list[tuple[Template, T]]] = {}
        for path, what in paths.items():
            template = parse_template(path)
            row = self._by_length.setdefault(len(template.segments), [])
            row.append((template, what))
        for row in self._by_length.values():
            # Segment by segment: a literal before a mixture before a lone variable.
            row.sort(key=lambda item: [_looseness(*segment) for segment in item[0].segments])

    def find(self, path: str) -> tuple[T, dict[str, str]] | None:
        """What belongs to a request's path, and its variables' values."""
        segments = path.split("/")
        for template, what in self._by_length.get(len(segments), ()):
            values = template.values(segments)
            if values is not None:
                return what, values
        return None


def _looseness(literals: tuple[str, ...], names: tuple[str, ...]) -> int:
    if not names:
        return 0
    return 1 if any(literals) else 2
