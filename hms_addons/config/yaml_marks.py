"""YAML as a configuration needs it: plain data, and for every key and value where it was written.

Read through libyaml's events, not through a constructor: no tag makes an object. Scalars follow
YAML 1.2's core schema, so `on:` is the key "on" and `no` is a text; only `true` and `false` are
booleans. Refused with their place: duplicate keys, keys that are not text, several documents,
unknown tags, and documents meant to exhaust memory (size, depth, nodes, expanded aliases). A merge
key (`<<: *defaults`) is understood; keys written beside it win.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import yaml

from hms_addons.config.problems import ConfigProblems, Place, Problem, Severity

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hms_addons.config.problems import Path

MAX_BYTES: Final = 10 * 1024 * 1024
MAX_DEPTH: Final = 64
MAX_NODES: Final = 100_000
"""Of all files of a configuration together; 20,000 routes, and some seconds of work."""
MAX_ALIASED_NODES: Final = 100_000
"""Nodes that aliases may stand for, all together: a "billion laughs" is stopped here."""

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_BOOLS: Final = {
    "true": True, "True": True, "TRUE": True,
    "false": False, "False": False, "FALSE": False,
}  # fmt: skip
_INT = re.compile(r"[-+]?[0-9]{1,18}")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]{1,18}|[0-9]{1,18}(?:\.[0-9]{0,18})?)(?:[eE][-+]?[0-9]{1,2})?")
_STANDARD = "tag:yaml.org,2002:"
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Marks:
    """Where a value was written, and where each of its keys and children was."""

    __slots__ = ("children", "keys", "place")

    def __init__(self, place: Place) -> None:
        self.place = place
        self.keys: dict[str, Place] = {}
        """Of a mapping: where each key was written."""
        self.children: dict[str | int, Marks] = {}

    def place_of(self, path: Path, at_key: bool = False) -> Place:  # noqa: FBT001, FBT002 - a callback
        """Where the value (or key) at `path` was written; for a missing one, where it belongs."""
        marks = self
        for depth, part in enumerate(path):
            last = depth == len(path) - 1
            if last and isinstance(part, str) and part in marks.keys:
                child = marks.children.get(part)
                return marks.keys[part] if at_key or child is None else child.place
            found = marks.children.get(part)
            if found is None:
                return marks.place
            marks = found
        return marks.place


class Document(NamedTuple):
    """One file's content."""

    data: Any
    marks: Marks
    nodes: int = 0
    """Values that were read for it, of a file."""


class _Node(NamedTuple):
    data: Any
    marks: Marks
    size: int
    """Nodes in it, itself included, aliases expanded."""


def load_yaml(content: bytes, file: str) -> Document:
    """Read one YAML document. An empty one gives None as its data.

    Args:
        content: the file's bytes, in UTF-8 (or UTF-16 with a byte order mark, as YAML allows).
        file: its name, for places.

    Raises:
        ConfigProblems: it is not such a document; one problem, with its place.
    """
    if len(content) > MAX_BYTES:
        message = f"the file has {len(content)} bytes; at most {MAX_BYTES} are read"
        raise _refusal(Place(file, 1, 1), message)
    try:
        return _Reader(content, file).read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(file, mark.line + 1, mark.column + 1) if mark else Place(file, 1, 1)
        raise _refusal(place, _explained(error, content)) from None
    except yaml.reader.ReaderError as error:
        raise _refusal(*_unreadable(error, content, file)) from None


def unmarked(data: Any, source: str) -> Document:
    """A document of plain data that was written in no file; every place in it is `source`."""
    place = Place(source, 1, 1)
    marks = Marks(place)
    if isinstance(data, dict):
        marks.keys = dict.fromkeys(data, place)
        marks.children = {key: unmarked(item, source).marks for key, item in data.items()}
    elif isinstance(data, list):
        marks.children = {n: unmarked(item, source).marks for n, item in enumerate(data)}
    return Document(data, marks)


def _refusal(place: Place, message: str) -> ConfigProblems:
    return ConfigProblems([Problem(Severity.ERROR, *place, "", message)])


def _explained(error: yaml.MarkedYAMLError, content: bytes) -> str:
    """libyaml's message, and the remedy for the mistakes that everybody makes."""
    what = " ".join(filter(None, (error.problem, error.context))) or "not valid YAML"
    mark = error.problem_mark
    lines = content.decode("utf-8", "replace").splitlines()
    line = lines[mark.line] if mark is not None and mark.line < len(lines) else ""
    indent = line[: len(line) - len(line.lstrip())]
    if "\t" in indent or (mark is not None and line[mark.column : mark.column + 1] == "\t"):
        return f"{what}: YAML is indented with spaces, and this line begins with a tab"
    return f"not valid YAML: {what}"


def _unreadable(error: yaml.reader.ReaderError, content: bytes, file: str) -> tuple[Place, str]:
    before = content[: error.position] if isinstance(error.position, int) else b""
    line = before.count(b"\n") + 1
    column = len(before) - (before.rfind(b"\n") + 1) + 1
    return Place(file, line, column), f"not readable as UTF-8 text: {error.reason}"


class _Reader:
    """Composes one document from parser events."""

    def __init__(self, content: bytes, file: str) -> None:
        self._file = file
        self._events: Iterator[Any] = iter(yaml.parse(content, Loader=_LOADER))
        self._anchors: dict[str, _Node | None] = {}
        """By name; None while the anchored value is still being read."""
        self._nodes = 0
        self._aliased = 0

    def read(self) -> Document:
        next(self._events)  # the stream's start
        event = next(self._events)
        if isinstance(event, yaml.StreamEndEvent):
            return Document(None, Marks(Place(self._file, 1, 1)))
        node = self._node(next(self._events), 0)
        next(self._events)  # the document's end
        event = next(self._events)
        if not isinstance(event, yaml.StreamEndEvent):
            raise self._error(event, "a second document ('---') begins here; write one per file")
        return Document(node.data, node.marks, self._nodes)

    def _place(self, event: Any) -> Place:
        return Place(self._file, event.start_mark.line + 1, event.start_mark.column + 1)

    def _error(self, event: Any, message: str) -> ConfigProblems:
        return _refusal(self._place(event), message)

    def _node(self, event: Any, depth: int) -> _Node:
        if depth > MAX_DEPTH:
            raise self._error(event, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event)
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._error(event, f"more than {MAX_NODES} values in one file")
        anchor = event.anchor
        if anchor is not None:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            node = _Node(self._scalar(event), Marks(self._place(event)), 1)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._refuse_tag(event, "seq")
            node = self._sequence(event, depth)
        else:
            self._refuse_tag(event, "map")
            node = self._mapping(event, depth)
        if anchor is not None:
            self._anchors[anchor] = node
        return node

    def _alias(self, event: Any) -> _Node:
        if event.anchor not in self._anchors:
            raise self._error(event, f"the alias *{event.anchor} has no anchor before it")
        node = self._anchors[event.anchor]
        if node is None:
            raise self._error(event, f"the alias *{event.anchor} is inside of what it stands for")
        self._aliased += node.size
        if self._aliased > MAX_ALIASED_NODES:
            message = f"the aliases stand for more than {MAX_ALIASED_NODES} values"
            raise self._error(event, message)
        return node

    def _refuse_tag(self, event: Any, *allowed: str) -> None:
        tag = event.tag
        if tag not in {None, "!"} and tag not in {_STANDARD + name for name in allowed}:
            raise self._error(event, f"the tag {tag} is not understood; leave it out")

    def _scalar(self, event: Any) -> Any:
        self._refuse_tag(event, "str", "int", "float", "bool", "null")
        text: str = event.value
        if event.tag is None and not event.implicit[0]:
            return text  # in quotes
        if event.tag in {"!", f"{_STANDARD}str"}:
            return text
        if text in _NULL:
            return None
        if text in _BOOLS:
            return _BOOLS[text]
        if _INT.fullmatch(text):
            return int(text)
        if _FLOAT.fullmatch(text):
            return float(text)
        return text

    def _sequence(self, start: Any, depth: int) -> _Node:
        data: list[Any] = []
        marks = Marks(self._place(start))
        size = 1
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            node = self._node(event, depth + 1)
            marks.children[len(data)] = node.marks
            data.append(node.data)
            size += node.size
        return _Node(data, marks, size)

    def _mapping(self, start: Any, depth: int) -> _Node:
        data: dict[str, Any] = {}
        marks = Marks(self._place(start))
        merged: list[tuple[Any, _Node]] = []
        size = 1
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            key = self._key(event)
            merge = key == "<<" and event.implicit[0]
            value_event = next(self._events)
            node = self._node(value_event, depth + 1)
            size += node.size + 1
            if merge:
                merged.append((value_event, node))
                continue
            if key in data:
                first = marks.keys[key].line
                raise self._error(event, f"the key {key!r} is here twice; first in line {first}")
            data[key] = node.data
            marks.keys[key] = self._place(event)
            marks.children[key] = node.marks
        for value_event, node in merged:
            self._merge(value_event, node, data, marks)
        return _Node(data, marks, size)

    def _key(self, event: Any) -> str:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._error(event, "a key must be a text, not a list, a mapping or an alias")
        if isinstance(key := self._scalar(event), str):
            return key
        raise self._error(event, f"the key {event.value!r} is not a text; put it in quotes")

    def _merge(self, event: Any, node: _Node, data: dict[str, Any], marks: Marks) -> None:
        """`<<`: take over the keys that `data` does not have."""
        sources = [(node.data, node.marks)]
        if isinstance(node.data, list):
            sources = [(item, node.marks.children[n]) for n, item in enumerate(node.data)]
        for source, source_marks in sources:
            if not isinstance(source, dict):
                raise self._error(event, "'<<' needs a mapping, or a list of mappings")
            for key, value in source.items():
                if key not in data:
                    data[key] = value
                    marks.keys[key] = source_marks.keys[key]
                    marks.children[key] = source_marks.children[key]
