"""The good part of a bad configuration, so that one fault does not hide the next.

What is wrong is cut out (a bad value alone, not the cluster around it), a misspelt key is read as the
one that was meant, and what is needed but not there is filled in. The rest is then looked at like any
other configuration. What was cut, filled in or left unread is *unknown*: no check may conclude
anything from it, else one fault would be told of as several.

The result is for finding faults only: a configuration with any error never becomes a snapshot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.config.problems import Path

ANY: Final = -1
"""Stands for every position of a list in the paths that `known` is asked for."""
_FILLED: Final[tuple[tuple[Path, Any], ...]] = (
    (("listeners", ANY, "name"), "unknown-{}"),
    (("listeners", ANY, "port"), 0),
    (("listeners", ANY, "app"), "127.0.0.1:1"),
    (("listeners", ANY, "routes", ANY, "action"), {"cluster": "(unknown)"}),
    (("listeners", ANY, "routes", ANY, "action", "cluster"), "(unknown)"),
    (("listeners", ANY, "routes", ANY, "action", "clusters", ANY, "name"), "(unknown {})"),
    (("listeners", ANY, "routes", ANY, "action", "retries", "attempts"), 1),
    (("clusters", ANY, "name"), "unknown-{}"),
    (("rbac", "providers", ANY, "name"), "unknown-{}"),
    (("rbac", "providers", ANY, "public_key_file"), "/unknown"),
    (("rbac", "policies", ANY, "name"), "unknown-{}"),
    (("rbac", "policies", ANY, "action"), "DENY"),
    (("rbac", "policies", ANY, "when", ANY, "claim"), "unknown"),
    (("rbac", "policies", ANY, "when", ANY, "values"), ["unknown"]),
)
"""What stands in for a value that is needed, by where it belongs; `{}` is its item's position."""


class Part:
    """A configuration as written, and what of it is good.

    Paths are those of what was written, unless they are said to be of the part: positions in lists
    and keys may differ there.

    Args:
        written: the merged configuration.
        whole: every file could be read; otherwise what is not here may be there.
    """

    def __init__(self, written: Any, *, whole: bool = True) -> None:
        self.whole = whole
        self.named: frozenset[str] = frozenset()
        """Clusters that anything written names."""
        self._written = written
        self._cut: set[Path] = set()
        self._filled: dict[Path, dict[str | int, Any]] = {}
        """By the path of a mapping: the keys that were filled in."""
        self._renamed: dict[Path, dict[str | int, str]] = {}
        """By the path of a mapping: its misspelt keys, and what was meant."""
        self.unknown: set[Path] = set()
        """What no check may conclude anything from."""
        self._above: set[Path] = set()
        """All that has something unknown at it or below."""
        self._kept: dict[Path, list[int]] = {}
        """By a list's path in the part: which items of the list are there."""
        self.changes = 0
        """How many things were cut, filled in or renamed."""

    def __repr__(self) -> str:
        return f"<Part changes={self.changes} unknown={len(self.unknown)} whole={self.whole}>"

    # -- taking out -----------------------------------------------------------------------------

    def cut(self, path: Path, about: Iterable[Path] = ()) -> None:
        """Leave out what is at `path`; where a short form stands for it, that.

        Args:
            path: where.
            about: what the fault may be a fault of as well.
        """
        for other in about:
            self.doubt(other)
        path = self._there(path)
        if path not in self._cut:
            self._cut.add(path)
            self.changes += 1
        self.doubt(path)

    def leave_out(self, paths: Iterable[Path]) -> None:
        """Cut what is there once more under the same name: nothing else follows from it."""
        for path in paths:
            self._cut.add(path)
            self.changes += 1

    def fill(self, path: Path, here: Path) -> None:
        """Put something in where a value is needed; without a stand-in, cut what needs it.

        Args:
            path: where it would be written.
            here: the same in the part.
        """
        value = _stand_in(here)
        filled = self._filled.setdefault(path[:-1], {})
        if value is None or path[-1] in filled:
            self.cut(path[:-1])
            return
        filled[path[-1]] = value
        self.changes += 1
        self.doubt(path)

    def rename(self, path: Path, meant: str) -> bool:
        """Read the key at the end of `path` as `meant`; False if that is there already."""
        parent, key = path[:-1], path[-1]
        names = self._renamed.setdefault(parent, {})
        there = _value_at(self._written, parent)
        if meant in there or meant in names.values():
            return False
        names[key] = meant
        self.changes += 1
        return True

    def is_renamed(self, path: Path) -> bool:
        """Whether the key at the end of `path` is read as another one."""
        return bool(path) and path[-1] in self._renamed.get(path[:-1], ())

    def is_meant(self, path: Path) -> bool:
        """Whether a misspelt key is read as the one at the end of `path`."""
        return bool(path) and path[-1] in self._renamed.get(path[:-1], {}).values()

    def doubt(self, path: Path) -> None:
        """Conclude nothing from what is at `path`."""
        self.unknown.add(path)
        self._above.update(path[:length] for length in range(len(path) + 1))

    # -- asking ---------------------------------------------------------------------------------

    def _there(self, path: Path) -> Path:
        value = self._written
        for depth, step in enumerate(path):
            if step in self._filled.get(path[:depth], ()):
                return path
            try:
                value = value[step]
            except (KeyError, IndexError, TypeError):
                return path[:depth]
            if not isinstance(value, dict | list):
                return path[: depth + 1]
        return path

    def known(self, path: Path) -> bool:
        """Whether nothing at, above or below `path` is unknown."""
        if not self.unknown:
            return True
        if ANY in path:
            return not any(_meet(path, unknown) for unknown in self.unknown)
        return path not in self._above and not any(
            path[:length] in self.unknown for length in range(len(path))
        )

    def good(self) -> Any:
        """The part: plain data, a copy."""
        self._kept = {}
        return self._copy(self._written, (), (), good=True)

    def corrected(self) -> Any:
        """All that was written, bad values too, with keys as they were meant; a copy."""
        return self._copy(self._written, (), (), good=False)

    def _copy(self, value: Any, path: Path, here: Path, *, good: bool) -> Any:
        """A copy of the value at `path`, which is at `here` in the copy."""
        if isinstance(value, dict):
            renamed = self._renamed.get(path, {})
            copy: dict[Any, Any] = {}
            for key, item in value.items():
                name: Any = renamed.get(key, key)
                if not good or (*path, key) not in self._cut:
                    copy[name] = self._copy(item, (*path, key), (*here, name), good=good)
            if good:
                copy |= self._filled.get(path, {})
            return copy
        if isinstance(value, list):
            kept = [n for n in range(len(value)) if not good or (*path, n) not in self._cut]
            if len(kept) != len(value):
                self._kept[here] = kept
            return [
                self._copy(value[n], (*path, n), (*here, at), good=good)
                for at, n in enumerate(kept)
            ]
        return value

    def original(self, path: Path) -> Path:
        """Where what is at `path` in the last `good()` was written."""
        return self._original(path, self._kept)

    def original_of_corrected(self, path: Path) -> Path:
        """Where what is at `path` in `corrected()` was written."""
        return self._original(path, {})

    def _original(self, path: Path, kept: dict[Path, list[int]]) -> Path:
        if not kept and not self._renamed:
            return path
        found: Path = ()
        for depth, step in enumerate(path):
            if isinstance(step, int):
                positions = kept.get(path[:depth])
                found = (*found, positions[step] if positions and step >= 0 else step)
            else:
                names = self._renamed.get(found, {})
                found = (*found, next((old for old, new in names.items() if new == step), step))
        return found


def _stand_in(path: Path) -> Any:
    for pattern, value in _FILLED:
        if len(pattern) == len(path) and _meet(pattern, path):
            if isinstance(value, str):
                return value.format(next((n for n in reversed(path) if isinstance(n, int)), 0))
            return value
    return None


def _meet(pattern: Path, path: Path) -> bool:
    """Whether one leads to the other, `ANY` being every position."""
    return all(
        one == other or (one == ANY and isinstance(other, int))
        for one, other in zip(pattern, path, strict=False)
    )


def _value_at(value: Any, path: Path) -> Any:
    for step in path:
        value = value[step]
    return value
