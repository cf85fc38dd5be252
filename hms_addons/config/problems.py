"""What is wrong with a configuration, and where: every problem at once, each with its place.

Printed as `file:line:column: path: message (did you mean …?)`, the form that editors and CI
systems turn into links.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hms_addons.config.part import Part

type Path = tuple[str | int, ...]
"""Where in a configuration: keys and list positions from the top."""

_COMPARED = 500
"""Most names that a suggestion is looked for among: the search is slow and only a courtesy."""
_COMPARED_LENGTH = 100


class Place(NamedTuple):
    """A place in a file; line and column count from 1."""

    file: str
    line: int
    column: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


class Severity(StrEnum):
    """Whether a configuration can be used in spite of it."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong, where, and what was probably meant."""

    severity: Severity
    file: str
    line: int
    column: int
    path: str
    """Dotted, as `listeners[0].routes[1].action.cluster`; empty for the document as a whole."""
    message: str
    suggestion: str | None = None

    def __str__(self) -> str:
        kind = "warning: " if self.severity is Severity.WARNING else ""
        path = f"{self.path}: " if self.path else ""
        guess = f" (did you mean {self.suggestion}?)" if self.suggestion else ""
        return f"{self.file}:{self.line}:{self.column}: {kind}{path}{self.message}{guess}"

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-ready types."""
        return {
            "severity": str(self.severity),
            "file": self.file,
            "line": self.line,
            "column": self.column,
            "path": self.path,
            "message": self.message,
            "suggestion": self.suggestion,
        }


class ConfigProblems(ConfigError):  # noqa: N818 - it is the problems that it is about
    """A configuration is refused; holds every problem that was found, warnings included."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        errors = [problem for problem in self.problems if problem.severity is Severity.ERROR]
        super().__init__("\n".join(map(str, errors)))


@dataclass(slots=True)
class Report:
    """Collects problems while a configuration is checked.

    Args:
        place_of: finds where the value (or with True: the key) at a path was written.
    """

    place_of: Callable[[Path, bool], Place]
    problems: dict[Problem, None] = field(default_factory=dict)
    """What was found, each thing once, in the order it was found."""
    part: Part | None = None
    """Of what the paths are that this report is told of; None: of all that was written."""

    def error(
        self, path: Path, message: str, suggestion: str | None = None, *, at_key: bool = False
    ) -> None:
        """Record something that makes the configuration unusable."""
        self._add(Severity.ERROR, path, message, suggestion, at_key=at_key)

    def warning(
        self, path: Path, message: str, suggestion: str | None = None, *, at_key: bool = False
    ) -> None:
        """Record something that works but was hardly meant."""
        self._add(Severity.WARNING, path, message, suggestion, at_key=at_key)

    def _add(
        self, severity: Severity, path: Path, message: str, suggestion: str | None, *, at_key: bool
    ) -> None:
        if self.part is not None:
            path = self.part.original(path)
        place = self.place_of(path, at_key)
        self.problems[Problem(severity, *place, dotted(path), message, suggestion)] = None

    def on(self, part: Part) -> Report:
        """The same report, told of the good `part`."""
        return Report(self.place_of, self.problems, part)

    def known(self, *path: str | int) -> bool:
        """Whether what is (or is not) at `path` is as it was meant: see `Part.known`."""
        return self.part is None or self.part.known(self.part.original(path))

    @property
    def whole(self) -> bool:
        """Whether all that was written could be read."""
        return self.part is None or self.part.whole

    def place(self, path: Path) -> Place:
        """Where the value at `path` was written."""
        return self.place_of(path if self.part is None else self.part.original(path), False)  # noqa: FBT003 - a callback

    @property
    def failed(self) -> bool:
        """Whether there is any error."""
        return any(problem.severity is Severity.ERROR for problem in self.problems)

    def sorted(self, first: Iterable[str] = ()) -> tuple[Problem, ...]:
        """The problems by file, those in `first` first, others as they were met, then by place."""
        names = dict.fromkeys((*first, *(p.file for p in self.problems)))
        files = {file: n for n, file in enumerate(names)}
        return tuple(sorted(self.problems, key=lambda p: (files[p.file], p.line, p.column)))

    def raise_errors(self) -> None:
        """Raise `ConfigProblems` if there is any error."""
        if self.failed:
            raise ConfigProblems(self.sorted())


def dotted(path: Sequence[str | int]) -> str:
    """Print a path: `('listeners', 0, 'port')` as `listeners[0].port`."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += f".{part}" if text else part
    return text


def closest(name: object, known: Iterable[str]) -> str | None:
    """The known name that `name` is probably a misspelling of, or None.

    At most a third of its letters may be wrong, left out, added, or in the wrong order.
    """
    names = list(known)
    if not isinstance(name, str) or len(name) > _COMPARED_LENGTH or len(names) > _COMPARED:
        return None
    wanted = _fold(name)
    best, fewest = None, max(1, len(wanted) // 3)
    for candidate in names:
        other = _fold(candidate)
        if abs(len(other) - len(wanted)) > fewest:
            continue
        edits = _edits(wanted, other)
        if edits < fewest or (edits == fewest and best is None):
            best, fewest = candidate, edits
    return best


def _edits(one: str, other: str) -> int:
    """How many slips of the keyboard lie between two words (optimal string alignment)."""
    before: list[int] = []
    last = list(range(len(other) + 1))
    for i, a in enumerate(one):
        row = [i + 1]
        for j, b in enumerate(other):
            row.append(min(last[j + 1] + 1, row[j] + 1, last[j] + (a != b)))
            if i and j and a == other[j - 1] and b == one[i - 1]:
                row[-1] = min(row[-1], before[j - 1] + 1)
        before, last = last, row
    return last[-1]


def _fold(name: str) -> str:
    """Letters alone: `maxConnections` and `max-connections` are `max_connections` misspelt."""
    return "".join(c for c in name.lower() if c.isalnum()) or name


def listing(names: Iterable[str], limit: int = 12) -> str:
    """Some names for a message: `a, b and 3 more`; `none` when there are none."""
    found = sorted(names)
    if not found:
        return "none"
    shown = ", ".join(found[:limit])
    return shown if len(found) <= limit else f"{shown} and {len(found) - limit} more"
