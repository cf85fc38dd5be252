"""Regular expressions that cannot be made to run for ever.

Python's `re` backtracks: `(a+)+` against thirty letters takes minutes, and the caller chooses the
letters. A pattern is accepted only if the time of `fullmatch` grows no faster than the text, which
is decided from its parse tree, once, when the configuration is checked:

- no repeat inside a repeat, but for the harmless `(?:/[^/]+)*`, whose pieces have one separator;
- no alternatives or optional parts inside a repeat;
- two repeats that can eat the same text need something between them that the second cannot eat;
- no look-around and no back-references (RE2 and Envoy have neither).

What is refused can nearly always be written as `prefix`, or with `[^/]*` in place of `.*`.
"""

from __future__ import annotations

import re
from functools import reduce
from importlib import import_module
from typing import Any, Final, NamedTuple

# Python's own regex parser. It has no public name, and typeshed knows it or not.
op: Any = import_module("re._constants")
_parser: Any = import_module("re._parser")

MAX_LENGTH: Final = 1000
_MAX_SPELLINGS = 64
"""Alternatives of a pattern, multiplied out."""
_MAX_SMALL = 10_000
"""Ways in which short bounded repeats, `{1,3}`, may share out a text."""
_MAX_SMALL_SEARCH = 1000
"""The same for a search, which begins anew at each character of a long text."""
_UNBOUNDED = 8192
"""What `*` is counted as: the longest target."""

_ALL: Final = frozenset(range(257))
"""Characters by code; 256 stands for all beyond Latin-1."""
_ANY: Final = _ALL - {10}
_CATEGORIES: Final = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
_FOLD_FROM_AFAR: Final = frozenset("kKsSåÅµÿ")
"""Letters that equal one beyond Latin-1 when case is ignored, as the Kelvin sign is a K."""
_REPEATS: Final = frozenset({op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT})


class UnsafeRegexError(ValueError):
    """A pattern is not a regular expression, or could be made slow; the message says why."""


class _Atom(NamedTuple):
    """One character of some set, or `low` to `high` of them."""

    chars: frozenset[int]
    low: int = 1
    high: int = 1

    @property
    def variable(self) -> bool:
        return self.low != self.high


type _Sequence = tuple[_Atom, ...]


def compile_regex(pattern: str) -> re.Pattern[str]:
    """Compile `pattern`, for `fullmatch`, if it is safe.

    Raises:
        UnsafeRegexError: it is not; the message says what to write instead.
    """
    return _compile(pattern, _MAX_SMALL)


def _compile(pattern: str, most_ways: int) -> re.Pattern[str]:
    if len(pattern) > MAX_LENGTH:
        message = f"the regex has {len(pattern)} characters; at most {MAX_LENGTH} are taken"
        raise UnsafeRegexError(message)
    try:
        tree = _parser.parse(pattern)
        compiled = re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise UnsafeRegexError(f"not a regular expression: {error}") from None
    for sequence in _Expander(ignore_case=bool(compiled.flags & re.IGNORECASE)).expand(tree):
        _check(sequence, most_ways)
    return compiled


def compile_search(pattern: str, longest: int) -> re.Pattern[str]:
    """Compile `pattern`, for `search` and `sub` in long texts.

    A search begins anew at each character, so what one attempt may look at must be bounded too, and
    small: the time is at most that of the text's length times `longest`.

    Raises:
        UnsafeRegexError: it is not safe, can match nothing at all, or more than `longest` characters.
    """
    compiled = _compile(pattern, _MAX_SMALL_SEARCH)
    shortest, most = _parser.parse(pattern).getwidth()
    if shortest == 0:
        raise UnsafeRegexError("the regex matches the empty text, so it would match everywhere")
    if most > longest:
        message = (
            f"the regex can match more than {longest} characters; bound what it repeats, "
            "as {1,64} in place of +"
        )
        raise UnsafeRegexError(message)
    return compiled


class _Expander:
    """Multiplies a parse tree out into plain sequences of atoms."""

    def __init__(self, *, ignore_case: bool) -> None:
        self._ignore_case = ignore_case

    def expand(self, tree: Any) -> list[_Sequence]:
        """Every sequence that `tree` stands for."""
        sequences: list[_Sequence] = [()]
        for operation, argument in tree:
            choices = self._choices(operation, argument)
            sequences = [head + tail for head in sequences for tail in choices]
            if len(sequences) > _MAX_SPELLINGS:
                message = (
                    f"the regex has more than {_MAX_SPELLINGS} alternatives; use several routes"
                )
                raise UnsafeRegexError(message)
        return sequences

    def _choices(self, operation: Any, argument: Any) -> list[_Sequence]:
        if operation in {op.LITERAL, op.NOT_LITERAL, op.ANY, op.IN}:
            return [(_Atom(self._chars(operation, argument)),)]
        if operation is op.AT:
            return [()]
        if operation is op.SUBPATTERN:
            return self.expand(argument[-1])
        if operation is op.ATOMIC_GROUP:
            return self.expand(argument)
        if operation is op.BRANCH:
            return [sequence for branch in argument[1] for sequence in self.expand(branch)]
        if operation in _REPEATS:
            return self._repeat(*argument)
        message = "the regex has a look-around or a back-reference; neither is supported"
        raise UnsafeRegexError(message)

    def _repeat(self, low: int, high: int, body: Any) -> list[_Sequence]:
        sequences = self.expand(body)
        if high <= 1:
            return [*([()] if low == 0 else []), *sequences]
        if len(sequences) > 1:
            message = (
                "the regex repeats alternatives or an optional part, which can take for ever; "
                "repeat one set of characters, as [a-z-]+, or use several routes"
            )
            raise UnsafeRegexError(message)
        return [_repeated(sequences[0], int(low), int(high))]

    def _chars(self, operation: Any, argument: Any) -> frozenset[int]:
        if operation is op.ANY:
            # (?s) is not looked at: one character more does no harm in an upper bound.
            return _ALL
        if operation is op.LITERAL:
            return self._folded({min(argument, 256)})
        if operation is op.NOT_LITERAL:
            return _ALL - (self._folded({argument}) if argument < 256 else frozenset())  # noqa: PLR2004 - see _ALL
        negated = argument[0][0] is op.NEGATE
        members: set[int] = set()
        for kind, value in argument[1:] if negated else argument:
            if kind is op.LITERAL:
                members.add(min(value, 256))
            elif kind is op.RANGE:
                members.update(range(min(value[0], 256), min(value[1], 256) + 1))
            else:
                wanted = re.compile(_CATEGORIES[value])
                members.update(code for code in range(256) if wanted.match(chr(code)))
                members.add(256)
        folded = self._folded(members)
        # A negated set holds characters beyond Latin-1 whether or not it names some of them.
        return (_ALL - folded) | {256} if negated else folded

    def _folded(self, codes: set[int]) -> frozenset[int]:
        if not self._ignore_case:
            return frozenset(codes)
        texts = [chr(code) for code in codes if code < 256]  # noqa: PLR2004 - see _ALL
        both = {min(ord(c), 256) for text in texts for c in text.upper() + text.lower()}
        return frozenset(codes | both | ({256} if set(texts) & _FOLD_FROM_AFAR else set()))


def _repeated(body: _Sequence, low: int, high: int) -> _Sequence:
    """`body{low,high}` as one atom, if its pieces cannot be told apart in two ways."""
    if not body:
        return ()
    chars = reduce(frozenset.union, (atom.chars for atom in body))
    inner = [atom for atom in body if atom.variable]
    if not inner:
        return (_Atom(chars, low, high * len(body)),)
    separator, *rest = body
    separated = not separator.variable and len(rest) == 1 and not separator.chars & rest[0].chars
    if separated and rest[0].low > 0:
        return (_Atom(chars, low, _UNBOUNDED),)
    message = (
        "the regex has a repeat inside a repeat, which can take for ever; "
        "for any number of path segments use `prefix`, or (?:/[^/]+)*"
    )
    raise UnsafeRegexError(message)


def _check(sequence: _Sequence, most_ways: int) -> None:
    """Refuse a sequence in which two repeats can share out one text in many ways."""
    small = 1
    for i, first in enumerate(sequence):
        if not first.variable or not first.chars & _following(sequence, i):
            continue
        for j in range(i + 1, len(sequence)):
            second = sequence[j]
            if not second.variable:
                continue
            between = sequence[i + 1 : j]
            if any(atom.low > 0 and not atom.chars & second.chars for atom in between):
                continue
            ways = min(first.high - first.low, _UNBOUNDED) * min(
                second.high - second.low, _UNBOUNDED
            )
            small *= ways + 1
            if small > most_ways:
                message = (
                    "the regex has two repeats that can match the same text with nothing between "
                    "them that tells them apart; write [^/]* in place of .*, or use `prefix`"
                )
                raise UnsafeRegexError(message)


def _following(sequence: _Sequence, index: int) -> frozenset[int]:
    """The characters that may come right after `sequence[index]`."""
    chars: frozenset[int] = frozenset()
    for atom in sequence[index + 1 :]:
        chars |= atom.chars
        if atom.low > 0:
            break
    return chars
