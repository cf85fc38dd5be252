"""The bytes of a body, made into text and back: charset and gzip, both bounded."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.http_message import get_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.http_message import Fields

_CHARSET: Final = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)
_CHARSETS: Final = {
    "utf-8": "utf-8",
    "utf8": "utf-8",
    "us-ascii": "ascii",
    "ascii": "ascii",
    "iso-8859-1": "latin-1",
    "latin1": "latin-1",
}
MOST_MEMBERS: Final = 16
"""Of a gzip file: each costs a copy of all that comes after it."""
_GZIP: Final = 31
"""zlib's word for: with gzip's head and tail."""


class UnreadableError(Exception):
    """A body cannot be looked at. The message says why, and nothing of its content.

    Args:
        status: what a request with it is answered with.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class Kind(NamedTuple):
    """What a body calls itself."""

    type: str
    """In lower case, without parameters; empty where it names none."""
    charset: str
    gzipped: bool

    @property
    def is_json(self) -> bool:
        """It is to be read as JSON."""
        return self.type == "application/json" or self.type.endswith("+json")


def type_of(fields: Fields) -> str:
    """The content type, in lower case, without parameters."""
    value = (get_field(fields, b"content-type") or b"").decode("latin-1")
    return value.partition(";")[0].strip().lower()


def types_of(fields: Fields) -> set[str]:
    """Each content type that a message names, as `type_of`: readers differ in which of several counts."""
    found = {type_of((field,)) for field in fields if field[0].lower() == b"content-type"}
    return found or {""}


def is_one_of(kind: str, wanted: Sequence[str]) -> bool:
    """Whether a content type is one of those; one that is not named is."""
    if not kind:
        return True
    for pattern in wanted:
        if pattern.startswith("*"):
            if kind.endswith(pattern[1:]):
                return True
        elif pattern.endswith("*"):
            if kind.startswith(pattern[:-1]):
                return True
        elif kind == pattern:
            return True
    return False


def kind_of(fields: Fields, *, decode: bool) -> Kind:
    """What a body calls itself.

    Args:
        fields: of its message.
        decode: gzip may be unpacked.

    Raises:
        UnreadableError: it has a coding or a charset that is not read here.
    """
    codings = [
        part.strip().lower()
        for name, value in fields
        if name.lower() == b"content-encoding"
        for part in value.decode("latin-1").split(",")
    ]
    codings = [coding for coding in codings if coding not in {"", "identity"}]
    gzipped = codings in (["gzip"], ["x-gzip"])
    if codings and not (gzipped and decode):
        raise UnreadableError(415, "its Content-Encoding is not one that can be looked into")
    types = types_of(fields)
    if len(types) > 1:
        raise UnreadableError(415, "it has several content types")
    value = (get_field(fields, b"content-type") or b"").decode("latin-1")
    charsets = {_CHARSETS.get(found.lower()) for found in _CHARSET.findall(value)} or {"utf-8"}
    charset = charsets.pop()
    if charset is None or charsets:
        raise UnreadableError(415, "its charset is not one that can be looked into")
    return Kind(type_of(fields), charset, gzipped)


def to_text(data: bytes, kind: Kind, limit: int) -> str:
    """The text of a body.

    Raises:
        UnreadableError: it is longer than `limit` bytes, or not what it says that it is.
    """
    if kind.gzipped:
        data = _unpacked(data, limit)
    if len(data) > limit:
        raise UnreadableError(413, "it is too long to be looked at")
    try:
        text = data.decode(kind.charset)
    except UnicodeDecodeError:
        raise UnreadableError(400, "it is not in the charset that it says") from None
    if "\0" in text:  # UTF-16, most likely, in which no rule would find anything
        raise UnreadableError(400, "it holds NUL, and is no text")
    return text


def to_bytes(text: str, kind: Kind) -> bytes:
    """The body of a text, as `kind` was.

    Raises:
        UnreadableError: what a rule puts in is not in its charset.
    """
    try:
        data = text.encode(kind.charset)
    except UnicodeEncodeError:
        raise UnreadableError(415, "what replaces it is not in its charset") from None
    return gzip.compress(data, 6, mtime=0) if kind.gzipped else data


def _unpacked(data: bytes, limit: int) -> bytes:
    """Every member of a gzip file, at most `limit` bytes."""
    out = b""
    try:
        for _ in range(MOST_MEMBERS):
            if not data:
                return out
            member = zlib.decompressobj(_GZIP)
            out += member.decompress(data, limit + 1 - len(out))
            if len(out) > limit:
                raise UnreadableError(413, "it is too long to be looked at")
            if not member.eof:
                raise UnreadableError(400, "its gzip is cut short")
            data = member.unused_data
    except zlib.error:
        raise UnreadableError(400, "it is no gzip") from None
    if data:
        raise UnreadableError(415, "its gzip has too many members")
    return out
