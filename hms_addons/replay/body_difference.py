"""How two bodies differ: JSON by its structure, text by its lines, anything else by its size.

Pure functions. What is shown is bounded, and holds nothing that a terminal would obey.
"""

from __future__ import annotations

import difflib
import itertools
import json
import re
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ABSENT: Final = "(none)"
SHOWN: Final = 120
"""Characters of a value that are shown."""
_TEXT: Final = 256 * 1024
"""Bytes of a text that is compared line by line; difflib takes its time."""
_LINES: Final = 4000
_PATH_STEP: Final = re.compile(r"\.?([^.\[\]]+)|\[(\d+|\*)\]")
_UNPRINTABLE: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


class Difference(NamedTuple):
    """One thing that is not as it was.

    Attributes:
        part: `status`, `header`, `body`, or `error`.
        where: a header's name, a path into a JSON document, or nothing.
        before, after: as text; `(none)` for what is not there.
    """

    part: str
    where: str
    before: str
    after: str


type Path = tuple[str | int, ...]
"""The way to a value in a JSON document: keys and indices."""


class _Absent:
    """No value at all; None is JSON's null."""


_NOTHING: Final = _Absent()


def body_differences(
    before: bytes, after: bytes, *, kind: str = "", ignored: Sequence[Path] = ()
) -> list[Difference]:
    """How `after` differs from `before`.

    Args:
        before, after: decoded bodies.
        kind: the media type, as `text/html`; JSON is recognised without it.
        ignored: paths of JSON values that may differ; `*` stands for any one step.
    """
    if before == after:
        return []
    try:
        old, new = _json(before), _json(after)
        return [
            Difference("body", _shown_path(path), _value(a), _value(b))
            for path, a, b in _json_differences(old, new, ())
            if not any(_covers(pattern, path) for pattern in ignored)
        ]
    except (ValueError, RecursionError):
        pass  # not JSON, or nested to exhaustion
    old_text, new_text = _text(before, kind), _text(after, kind)
    if old_text is None or new_text is None:
        return [Difference("body", "", _size(before), _size(after))]
    return _text_differences(old_text, new_text)


def parse_path(text: str) -> Path:
    """A path as people write it: `$.items[*].at`, `items[0]`, `id`.

    Raises:
        ValueError: it is none.
    """
    rest = text.removeprefix("$")
    steps: list[str | int] = []
    position = 0
    while position < len(rest):
        found = _PATH_STEP.match(rest, position)
        if found is None:
            message = f"{text!r} is no path such as $.items[*].id"
            raise ValueError(message)
        name, index = found.groups()
        steps.append(name if index is None else "*" if index == "*" else int(index))
        position = found.end()
    if not steps:
        message = f"{text!r} names nothing within a body"
        raise ValueError(message)
    return tuple(steps)


def printable(text: str, most: int = SHOWN) -> str:
    """Text that is safe on a terminal, and not too long."""
    safe = _UNPRINTABLE.sub(lambda found: f"\\x{ord(found[0]):02x}", text)
    return safe if len(safe) <= most else f"{safe[:most]}… ({len(text)} characters)"


# -- JSON ---------------------------------------------------------------------------------------


def _json(body: bytes) -> Any:
    return json.loads(body.decode("utf-8-sig"))


def _json_differences(old: Any, new: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in dict.fromkeys((*old, *new)):
            yield from _json_differences(
                old.get(key, _NOTHING), new.get(key, _NOTHING), (*path, key)
            )
    elif isinstance(old, list) and isinstance(new, list):
        pairs = itertools.zip_longest(old, new, fillvalue=_NOTHING)
        for index, (a, b) in enumerate(pairs):
            yield from _json_differences(a, b, (*path, index))
    elif isinstance(old, bool) != isinstance(new, bool) or old != new:
        yield path, old, new


def _covers(pattern: Path, path: Path) -> bool:
    """Whether a value, or something that it is within, is named by `pattern`."""
    return len(pattern) <= len(path) and all(
        wanted in {"*", step} for wanted, step in zip(pattern, path, strict=False)
    )


def _shown_path(path: Path) -> str:
    return "$" + "".join(
        f"[{step}]" if isinstance(step, int) else f".{printable(step)}" for step in path
    )


def _value(value: Any) -> str:
    if isinstance(value, _Absent):
        return ABSENT
    return printable(json.dumps(value, ensure_ascii=False))


# -- text and the rest --------------------------------------------------------------------------


def _text(body: bytes, kind: str) -> str | None:
    if b"\0" in body or kind.startswith(("image/", "audio/", "video/", "application/octet-stream")):
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _size(body: bytes) -> str:
    return f"{len(body)} bytes"


def _text_differences(old: str, new: str) -> list[Difference]:
    before, after = old.splitlines(), new.splitlines()
    if max(len(old), len(new)) > _TEXT or max(len(before), len(after)) > _LINES:
        pairs = itertools.zip_longest(before, after, fillvalue=None)
        first = next((n for n, (a, b) in enumerate(pairs) if a != b), 0)
        told = [f"{len(text)} characters; first other line: {first + 1}" for text in (old, new)]
        return [Difference("body", "", *told)]
    lines = itertools.islice(difflib.unified_diff(before, after, lineterm="", n=1), 2, None)
    found = [Difference("body", "", "", printable(line)) for line in lines]
    # The same lines: only how they end differs.
    return found or [Difference("body", "line ends", repr(old[-2:]), repr(new[-2:]))]
