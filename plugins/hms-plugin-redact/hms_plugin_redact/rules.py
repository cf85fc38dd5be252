"""Rules, applied to a text or to a JSON document.

The work is done in steps, as a generator that pauses after every `WINDOW` characters: a long body must
not keep all other requests waiting.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.safe_regex import compile_search
from hms_plugin_redact.json_path import parse_path, places
from hms_plugin_redact.options import LONGEST

if TYPE_CHECKING:
    import re
    from collections import Counter
    from collections.abc import Generator, Sequence

    from hms_plugin_redact.json_path import JsonPath
    from hms_plugin_redact.options import RuleOptions

    type Steps[T] = Generator[None, None, T]

WINDOW: Final = 16 * 1024
"""Characters looked at in one go."""


class NotJsonError(ValueError):
    """A body that calls itself JSON is none, or is nested too deep. Says nothing of its content."""


class Rule(NamedTuple):
    """A rule, ready to be used."""

    name: str
    pattern: re.Pattern[str] | None
    paths: tuple[JsonPath, ...]
    replace: str
    keep_last: int


class Rules:
    """All rules of a configuration.

    Args:
        options: theirs, in order.
        counts: replacements by rule, since the start.
    """

    def __init__(self, options: Sequence[RuleOptions], counts: Counter[str]) -> None:
        made = [
            Rule(
                rule.name,
                None if rule.regex is None else compile_search(rule.regex, LONGEST),
                tuple(map(parse_path, rule.json_paths)),
                rule.replace,
                rule.keep_last,
            )
            for rule in options
        ]
        self._patterns = [rule for rule in made if rule.pattern is not None]
        self._paths = [rule for rule in made if rule.paths]
        self._counts = counts

    def text(self, text: str) -> Steps[str]:
        """`text` without what the regexes match."""
        for rule in self._patterns:
            text = yield from self._replaced(text, rule)
        return text

    def json(self, text: str) -> Steps[str]:
        """A JSON document without what the rules name; as it is, where they name nothing.

        Raises:
            NotJsonError: it is none.
        """
        repeats = 0

        def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
            nonlocal repeats
            made = dict(found)
            repeats += len(found) - len(made)
            return made

        try:
            document = json.loads(
                text.removeprefix("\ufeff"), object_pairs_hook=pairs, parse_constant=_no_constant
            )
        except (ValueError, RecursionError):
            # Not chained: the error holds the document.
            raise NotJsonError("it is no JSON document") from None
        root = [document]
        # A repeated key hides a value that was not looked at, so the document is written anew.
        changed = repeats > 0
        for rule in self._paths:
            for path in rule.paths:
                for holder, key in places(document, path):
                    holder[key] = rule.replace
                    self._counts[rule.name] += 1
                    changed = True
        if self._patterns:
            changed = (yield from self._walk(root)) or changed
        if not changed:
            return text
        try:
            return json.dumps(root[0], ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except (ValueError, RecursionError):
            raise NotJsonError("it has a number out of range, or is nested too deep") from None

    def _walk(self, root: list[Any]) -> Steps[bool]:
        """Apply the regexes to every key, text and number in `root`; whether anything changed."""
        changed = False
        seen = 0
        left: list[Any] = [root]  # dicts and lists
        while left:
            holder = left.pop()
            items = list(holder.items() if isinstance(holder, dict) else enumerate(holder))
            if isinstance(holder, dict):
                keys = []
                for key, _ in items:
                    keys.append((yield from self.text(key)))
                    seen += len(key)
                if keys != [key for key, _ in items]:
                    changed = True
                    holder.clear()
                    items = [(key, value) for key, (_, value) in zip(keys, items, strict=True)]
                    holder.update(items)
            for key, value in items:
                if isinstance(value, dict | list):
                    left.append(value)
                elif value is not None and not isinstance(value, bool):
                    text = value if isinstance(value, str) else json.dumps(value)
                    seen += len(text)
                    new = yield from self.text(text)
                    if new != text:
                        holder[key] = new
                        changed = True
                seen += 1
                if seen > WINDOW:
                    seen = 0
                    yield
        return changed

    def _replaced(self, text: str, rule: Rule) -> Steps[str]:
        pattern = rule.pattern
        assert pattern is not None  # noqa: S101 - one of `_patterns`
        if len(text) <= WINDOW:
            new, count = pattern.subn(lambda found: _instead(found, rule), text)
            self._counts[rule.name] += count
            return new
        parts: list[str] = []
        done = start = 0
        while start < len(text):
            end = start + WINDOW
            # One match and a character more, so that no pattern takes the window's end for the text's.
            for found in pattern.finditer(text, start, end + LONGEST + 1):
                if found.start() >= end:
                    break
                parts += (text[done : found.start()], _instead(found, rule))
                done = found.end()
                self._counts[rule.name] += 1
            start = max(end, done)
            yield
        parts.append(text[done:])
        return "".join(parts)


def _instead(found: re.Match[str], rule: Rule) -> str:
    kept = found[0][-rule.keep_last :] if 0 < rule.keep_last < len(found[0]) else ""
    return rule.replace + kept


def _no_constant(name: str) -> None:
    raise ValueError(name)
