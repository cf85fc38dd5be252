"""Header edits: what a rule sets, adds and removes, ready to be applied; and what no rule may touch.

Names and values are checked and made bytes once per configuration, so a request's fields stay free
of line breaks and framing whatever rule is applied to them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from hms_addons.http_message import lower_name, spellings

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.http_message import Fields

MAX_VALUE: Final = 4096
"""Bytes of one value: half of the smallest header block that common servers take."""

_FRAMING: Final = spellings(
    b"connection content-length transfer-encoding expect keep-alive proxy-connection "
    b"proxy-authenticate proxy-authorization te trailer upgrade http2-settings".split()
)
_CALLER: Final = spellings([b"x-forwarded-client-cert"])
_MARKS: Final = spellings([b"x-hms-flag", b"x-hms-fallback", b"x-hms-mirror"])
_VALUE = re.compile(r"(?:[!-~\xa0-\xff](?:[\t -~\xa0-\xff]*[!-~\xa0-\xff])?)?")
"""What a field can carry unchanged (RFC 9110 section 5.5)."""


def why_not_name(name: str, owned: Iterable[bytes] = ()) -> str | None:
    """Why no rule may touch the field `name`, and what to do instead; None if one may.

    Args:
        name: in any spelling; `-` and `_` are the same here, as they are to CGI and WSGI.
        owned: the names that only the mesh may set.
    """
    lower = name.lower().encode("latin-1", "replace")
    if lower in _FRAMING:
        return f"{name} frames the message or ends at the hop: the mesh writes it anew"
    if lower == b"host":
        return "Host says whom the request is for: use `rewrite: {host: …}`"
    if lower in _CALLER:
        return f"{name} says who the caller is: only the mesh may"
    if lower in _MARKS:
        return f"{name} marks the mesh's own answers and copies: only the mesh may set it"
    if lower in spellings(owned):
        return f"{name} is one of the headers that only the mesh may set (`headers:`)"
    return None


def why_not_value(value: str) -> str | None:
    """Why no field can carry `value`; None if one can."""
    if "\r" in value or "\n" in value:
        return "a value is one line: what follows a line break would be another field"
    if len(value) > MAX_VALUE:
        return f"the value has {len(value)} characters, more than {MAX_VALUE}"
    if value != value.strip(" \t"):
        return "a space at either end is lost on the way"
    if _VALUE.fullmatch(value) is None:
        return "a value has no control characters, and none beyond Latin-1"
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderEdits:
    """One rule. What it removes goes first, then its values are set and added, at the end."""

    set: Fields = ()
    """Replace every field of their name."""
    add: Fields = ()
    """Come after those of their name that are there."""
    remove: tuple[bytes, ...] = ()

    _gone: frozenset[bytes] = field(init=False, repr=False, compare=False)
    _new: Fields = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out once what every message would ask."""
        gone = frozenset(name.lower() for name in (*self.remove, *(name for name, _ in self.set)))
        object.__setattr__(self, "_gone", gone)
        object.__setattr__(self, "_new", (*self.set, *self.add))

    def apply(self, fields: Fields) -> Fields:
        """`fields` as this rule leaves them."""
        gone = self._gone
        if gone:
            fields = tuple([item for item in fields if lower_name(item[0]) not in gone])
        return fields + self._new
