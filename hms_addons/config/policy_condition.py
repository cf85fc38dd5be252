"""A policy's `when`: conditions on the token's claims and on the request's headers.

Istio's rules (AuthorizationPolicy, `when`): every condition must hold; one value of a condition suffices;
`not_values` is the exact opposite of `values`. So what is missing meets no `values` and every
`not_values`: a DENY of `mfa` `not_values: ["true"]` refuses tokens that do not speak of it.

Headers are the caller's own words, and may be there twice. A DENY is met by any one of a field's
lines, an ALLOW only if all of its lines agree: whatever line the app reads, it was judged.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Sequence

    from hms_addons.http_message import Fields

MAX_ITEMS: Final = 1000
"""Entries of a list claim that are looked at; a token is not longer than a header line anyway."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One condition of a `when`. Exactly one of `claim` and `header` is set.

    Several of the kinds below may be set; then each must hold.
    """

    claim: str | None = None
    """Dotted path below the token's payload."""
    header: str | None = None
    """A field's name in lower case."""
    values: tuple[str, ...] = ()
    """Exact, or with a `*` at either end; `*` alone is any value."""
    not_values: tuple[str, ...] = ()
    regex: re.Pattern[str] | None = None
    """Of the whole value."""
    present: bool | None = None
    """True: it must be there, whatever its value. False: it must not."""

    def __str__(self) -> str:
        """The condition in words, as `hms explain` and a refusal say it: never what was sent."""
        name = f"the claim {self.claim}" if self.claim is not None else f"the header {self.header}"
        words = []
        if self.present is not None:
            words.append("to be there" if self.present else "not to be there")
        if self.values:
            words.append(f"to be {_listed(self.values)}")
        if self.not_values:
            words.append(f"not to be {_listed(self.not_values)}")
        if self.regex is not None:
            words.append(f"to match {self.regex.pattern}")
        return f"{name} {' and '.join(words)}"


class _Values:
    """The texts that one list of patterns takes."""

    __slots__ = ("_any", "_exact", "_prefixes", "_suffixes")

    def __init__(self, patterns: Sequence[str]) -> None:
        self._any = "*" in patterns
        rest = [pattern for pattern in patterns if pattern != "*"]
        self._exact = frozenset(p for p in rest if p[:1] != "*" and p[-1:] != "*")
        self._prefixes = tuple(p[:-1] for p in rest if p[-1:] == "*")
        self._suffixes = tuple(p[1:] for p in rest if p[:1] == "*")

    def __repr__(self) -> str:
        return f"<_Values exact={len(self._exact)} any={self._any}>"

    def take(self, value: str) -> bool:
        return (
            self._any
            or value in self._exact
            or value.startswith(self._prefixes)
            or value.endswith(self._suffixes)
        )


class Check:
    """One condition, ready to be asked.

    Args:
        condition: what it asks.
        deny: it is a DENY policy's: what is in doubt meets it.
    """

    __slots__ = ("_deny", "_header", "_not_values", "_path", "_values", "condition")

    def __init__(self, condition: Condition, *, deny: bool) -> None:
        self.condition = condition
        self._deny = deny
        self._path = None if condition.claim is None else tuple(condition.claim.split("."))
        self._header = None if condition.header is None else condition.header.encode("latin-1")
        self._values = _Values(condition.values) if condition.values else None
        self._not_values = _Values(condition.not_values) if condition.not_values else None

    def __repr__(self) -> str:
        return f"<Check {self.condition}>"

    def holds(self, claims: Mapping[str, Any], fields: Fields) -> bool:
        """Whether a request with these claims and header fields meets the condition."""
        if self._path is not None:
            return self._met(claim_texts(claims, self._path))
        name = self._header
        assert name is not None  # noqa: S101 - one of the two is there
        # CGI and WSGI turn `-` into `_`: an app takes `X_Env` for `X-Env`.
        lines = [
            (field, value.decode("latin-1"))
            for field, value in fields
            if _folded(field) == _folded(name)
        ]
        if self._deny:
            # Apps that strip text strip U+00A0 and U+0085, too, which HTTP takes for letters.
            texts = {text for _, value in lines for text in (value, value.strip())}
            return any(self._met((text,)) for text in texts) if lines else self._met(())
        if not any(field.lower() == name for field, _ in lines):
            return self._met(()) and not lines
        return all(self._met((value,)) for _, value in lines)

    def _met(self, texts: Sequence[str]) -> bool:
        """Whether the texts of one claim, or of one line of a field, are what is asked for."""
        condition = self.condition
        if condition.present is not None and bool(texts) is not condition.present:
            return False
        values, not_values, regex = self._values, self._not_values, condition.regex
        if values is not None and not any(map(values.take, texts)):
            return False
        if not_values is not None and any(map(not_values.take, texts)):
            return False
        return regex is None or any(regex.fullmatch(text) is not None for text in texts)


def claim_texts(claims: Mapping[str, Any], path: Iterable[str]) -> tuple[str, ...]:
    """What a claim says, as the texts that a policy compares; empty if it is missing or null.

    A list is each of its entries; `true` and numbers are what they are in JSON. A claim whose name has
    dots in it, as `https://mpsa.mil/unit`, is found by its whole name first.
    """
    names = tuple(path)
    value: Any = claims.get(".".join(names))
    if value is None:
        value = claims
        for name in names:
            if not isinstance(value, Mapping):
                return ()
            value = value.get(name)
    items = value[:MAX_ITEMS] if isinstance(value, list | tuple) else (value,)
    return tuple(text for item in items if (text := _text(item)) is not None)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, int | float) else None


def _folded(name: bytes) -> bytes:
    return name.lower().replace(b"_", b"-")


def _listed(values: Sequence[str]) -> str:
    shown = [value if len(value) <= 60 else f"{value[:57]}…" for value in values[:5]]  # noqa: PLR2004 - a line's worth
    more = f" or {len(values) - len(shown)} more" if len(values) > len(shown) else ""
    return " or ".join(shown) + more
