"""What may be kept and given: hishel's state machine decides, after what it does not look at.

hishel (1.4) knows RFC 9111's rules of storing, freshness and validation. Here is what comes on top:
a request's `no-store`, `max-age`, `min-fresh` and `only-if-cached`; the field `Age`; `Vary` before an answer is
even considered; answers with `Set-Cookie`, which are somebody's; and no freshness that is only guessed.
"""

from __future__ import annotations

import time
import uuid
from email.utils import formatdate, parsedate_to_datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import hishel
from hishel import CacheMiss, CacheOptions, FromCache, Headers, IdleClient, Request, Response

from hms_addons.http_message import get_field

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.http_message import Fields
    from hms_plugin_cache.store import Entry, Selected

_OPTIONS: Final = CacheOptions(shared=True, supported_methods=["GET"], allow_stale=False)
_URL: Final = "http://the.same/"
"""Entries are found by our own key: of these, all are of one URI."""
_CONDITIONS: Final = (b"if-match", b"if-unmodified-since", b"if-range")
MOST_VARIANTS: Final = 16
_LONGEST: Final = 2**31
"""Seconds: RFC 9111 section 1.2.2."""


class Wish(NamedTuple):
    """What a request says about caches."""

    store: bool = True
    no_cache: bool = False
    max_age: float | None = None
    min_fresh: float = 0.0
    only_if_cached: bool = False


class Use(Enum):
    """What becomes of a request."""

    HIT = "hit"
    VALIDATE = "stale"
    MISS = "miss"


class Freshness(NamedTuple):
    """How an answer may be kept, and how old it is."""

    cache_control: str
    age: float


def values_of(fields: Fields, name: bytes) -> str | None:
    """All values of a field, as one list."""
    found = [value for key, value in fields if key.lower() == name]
    return b", ".join(found).decode("latin-1") if found else None


def directives(value: str | None) -> dict[str, str | None]:
    """`Cache-Control`, by lower-case name; the first of each counts.

    Commas in quotes do not part directives.
    """
    found: dict[str, str | None] = {}
    quoted, start = False, 0
    text = f"{value or ''},"
    for position, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == "," and not quoted:
            name, equals, argument = text[start:position].partition("=")
            key = name.strip().lower()
            if key:
                found.setdefault(key, argument.strip().strip('"') if equals else None)
            start = position + 1
    return found


def wish_of(fields: Fields) -> Wish:
    """What a request's `Cache-Control`, or else its `Pragma`, says."""
    value = values_of(fields, b"cache-control")
    if value is None:
        return Wish(no_cache="no-cache" in (values_of(fields, b"pragma") or "").lower())
    found = directives(value)
    max_age = _seconds(found["max-age"]) if "max-age" in found else None
    return Wish(
        "no-store" not in found,
        "no-cache" in found,
        max_age,
        _seconds(found["min-fresh"], invalid=_LONGEST) if "min-fresh" in found else 0,
        "only-if-cached" in found,
    )


def may_look(fields: Fields, wish: Wish) -> bool:
    """Whether a GET may be answered from what is kept at all."""
    return wish.store and not any(get_field(fields, name) is not None for name in _CONDITIONS)


def selected_by(fields: Fields, vary: str | None) -> Selected | None:
    """The request fields that an answer depends on; None if on more than those."""
    names = sorted({name.strip().lower() for name in (vary or "").split(",")} - {""})
    if "*" in names:
        return None
    found = []
    for name in names:
        value = values_of(fields, name.encode("latin-1"))
        found.append((name.encode("latin-1"), None if value is None else value.encode("latin-1")))
    return tuple(found)


def matching(entries: Sequence[Entry], fields: Fields) -> Entry | None:
    """The newest entry that is for such a request (RFC 9111 section 4.1)."""
    fitting = [
        entry
        for entry in entries
        if all(
            (values_of(fields, name) or None)
            == (None if value is None else value.decode("latin-1") or None)
            for name, value in entry.selected
        )
    ]
    return max(fitting, key=lambda entry: entry.stored, default=None)


def use_of(entry: Entry, wish: Wish, ranged: bool, now: float) -> Use:  # noqa: FBT001 - a fact of the request
    """What becomes of a request for which `entry` is there."""
    if ranged:
        return Use.MISS
    age = entry.age_at(now)
    too_old = wish.max_age is not None and age >= wish.max_age
    if too_old or lifetime(entry.cache_control) - age < wish.min_fresh:
        return Use.VALIDATE
    asked = {"cache-control": "no-cache"} if wish.no_cache else {}
    state = IdleClient(options=_OPTIONS).next(
        Request("GET", _URL, Headers(asked)), [_for_hishel(entry, age)]
    )
    if isinstance(state, FromCache):
        return Use.HIT
    return Use.MISS if isinstance(state, CacheMiss) else Use.VALIDATE


def _for_hishel(entry: Entry, age: float) -> hishel.Entry:
    # It takes an answer's age from `Date` alone.
    headers = {
        "cache-control": entry.cache_control,
        "date": formatdate(time.time() - age, usegmt=True),
    }
    return hishel.Entry(
        id=uuid.UUID(int=0),
        request=Request("GET", _URL),
        meta=hishel.EntryMeta(created_at=0.0),
        response=Response(entry.status, Headers(headers)),
        cache_key=b"",
    )


def freshness_of(
    status: int, fields: Fields, wall: float, *, authenticated: bool
) -> Freshness | None:
    """How an answer to a GET may be kept; None if it may not.

    Args:
        status, fields: the answer's.
        wall: seconds since the epoch, now.
        authenticated: the request came with a credential, and others may be given the answer.
    """
    if get_field(fields, b"set-cookie") is not None:
        return None
    value = values_of(fields, b"cache-control")
    found = directives(value)
    if "private" in found or "no-store" in found:
        return None  # also with field names: RFC 9111 section 5.2.2.7 lets them be left out
    date = _date(get_field(fields, b"date"))
    if "max-age" not in found and "s-maxage" not in found:
        expires = get_field(fields, b"expires")
        if expires is not None:
            until = _date(expires)
            since = wall if date is None else date
            left = 0 if until is None else max(0, int(until - since))
            value = f"{value}, max-age={left}" if value else f"max-age={left}"
    headers = {} if value is None else {"cache-control": value}
    request = Request("GET", _URL, Headers({"authorization": "x"} if authenticated else {}))
    try:
        state = CacheMiss(options=_OPTIONS, request=request).next(
            Response(status, Headers(headers))
        )
    except (ValueError, IndexError):
        return None  # what it does not understand
    if not isinstance(state, hishel.StoreAndUse):
        return None
    if found.get("no-cache") is not None:
        # With field names it may be read as if it had none: RFC 9111 section 5.2.2.4.
        value = f"no-cache, max-age={int(lifetime(value))}"
    validators = (b"etag", b"last-modified")
    if lifetime(value) <= 0 and all(get_field(fields, name) is None for name in validators):
        return None
    given = _seconds((get_field(fields, b"age") or b"0").decode("latin-1"))
    apparent = 0.0 if date is None else max(0.0, wall - date)
    return Freshness(value or "", max(apparent, given))


def lifetime(cache_control: str | None) -> float:
    """Seconds for which an answer is fresh; 0 where it says nothing."""
    found = directives(cache_control)
    for name in ("s-maxage", "max-age"):
        if name in found:
            return _seconds(found[name])
    return 0.0


def conditions_of(entry: Entry) -> Fields:
    """The fields that ask whether an entry is still right; none if that cannot be asked."""
    etag = get_field(entry.fields, b"etag")
    modified = get_field(entry.fields, b"last-modified")
    found: list[tuple[bytes, bytes]] = []
    if etag is not None:
        found.append((b"If-None-Match", etag))
    if modified is not None:
        found.append((b"If-Modified-Since", modified))
    return tuple(found)


def is_unchanged(asked: Fields, answer: Fields) -> bool:
    """Whether a client that asks so has this answer already (RFC 9110 section 13.2.2)."""
    tags = values_of(asked, b"if-none-match")
    if tags is not None:
        etag = get_field(answer, b"etag")
        if etag is None:
            return False
        mine = etag.decode("latin-1").removeprefix("W/")
        return tags.strip() == "*" or mine in {
            tag.strip().removeprefix("W/") for tag in tags.split(",")
        }
    since = _date(get_field(asked, b"if-modified-since"))
    modified = _date(get_field(answer, b"last-modified"))
    return since is not None and modified is not None and modified <= since


_KEPT: Final = frozenset(
    {b"content-encoding", b"content-type", b"content-range", b"content-length", b"age"}
)


def freshened(old: Fields, new: Fields) -> Fields:
    """The stored fields, with those of a 304 in their place (RFC 9111 section 3.2)."""
    taken = tuple(field for field in new if field[0].lower() not in _KEPT)
    names = {name.lower() for name, _ in taken} | {b"date"}  # the old one says nothing any more
    return (*(field for field in old if field[0].lower() not in names), *taken)


def _seconds(text: str | None, *, invalid: int = 0) -> float:
    """A number of seconds; `invalid` where it is none."""
    if text is None or not (text.isascii() and text.isdecimal()):
        return invalid
    return min(int(text[:12]), _LONGEST)


def _date(value: bytes | None) -> float | None:
    if value is None:
        return None
    try:
        return parsedate_to_datetime(value.decode("latin-1")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def with_date(fields: Fields, wall: float) -> Fields:
    """`fields` without `Age`, and with a `Date`."""
    kept: Any = tuple(field for field in fields if field[0].lower() != b"age")
    if get_field(kept, b"date") is None:
        kept = (*kept, (b"Date", formatdate(wall, usegmt=True).encode()))
    result: Fields = kept
    return result
