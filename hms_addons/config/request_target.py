"""Where a request says it wants to go: the request target, normalised once.

What is matched and authorised must be what is sent, so a path has one spelling here:

- dot segments are resolved (RFC 3986 section 5.2.4), never above the root; `//` becomes `/`;
- an escape of a character that may stand in a path as itself is decoded (`%61` is `a`, `%3A` is
  `:`), so that no policy is passed by spelling a path differently. `%3B` and `%2B` stay: servers
  are known to read a bare `;` (a parameter) and a bare `+` (a space) as something else;
- any other escape is kept, in capitals; a printable character that may not stand in a path is
  escaped;
- `%2F`, `%5C`, `%00`, a backslash, a bad escape, a control character, a space, a byte beyond ASCII,
  `#`, and a dot segment with a parameter (`..;x`, which Tomcat resolves as `..`) are refused.

Queries pass as they are, but for the characters that no target may have.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote_plus

from hms_addons.errors import MeshError

SERVICE_SUFFIX: Final = ".svc"
"""What the name of a service ends in, as the host of a URL."""

_SHOWN = 80
"""Characters of a bad target that an error quotes."""

_PATH_BYTES: Final = (
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,;=:@/"
)
"""What a path without escapes is made of; still to be looked at: `//` and `/.`."""
_QUERY_BYTES: Final = bytes(code for code in range(0x21, 0x7F) if code != ord("#"))
_ABSOLUTE = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)(.*)", re.DOTALL)
_AUTHORITY = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{0,5})?")
_UNSENDABLE = re.compile(r"[^!-~]|#")
_ESCAPE_OR_ODD = re.compile(r"%(..?)?|[\"<>\[\]^`{|}]", re.DOTALL)
_HEX_PAIR = re.compile(r"[0-9A-Fa-f]{2}")
_DECODED = frozenset(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*,=:@"
)
_REFUSED_ESCAPES: Final = {"2F": "/", "5C": "\\", "00": "NUL"}
_CACHED_LENGTH = 256
"""Longest path that is remembered: `_CACHED` of them take less than a megabyte."""
_CACHED: Final = 1024


class TargetError(MeshError):
    """A request target that is refused with 400; the message says what is wrong with it."""


class Target(NamedTuple):
    """A request target, taken apart."""

    path: str
    """Normalised, begins with `/`; or `*` for `OPTIONS *`."""
    query: str
    """As sent, without `?`; empty when there is none."""
    authority: str | None
    """`host[:port]` of an absolute-form target, which counts instead of `Host`; else None."""


def parse_target(target: bytes, method: bytes | str) -> Target:
    """Take apart and normalise the target of a request line (RFC 9112 section 3.2).

    Origin form, absolute form (`http` or `https`), and `*` with OPTIONS. The authority form belongs
    to CONNECT, which the mesh does not speak.

    Raises:
        TargetError: the target is refused; the message says why.
    """
    return Target(*take_apart(target, method))


def take_apart(target: bytes, method: bytes | str) -> tuple[str, str, str | None]:
    """`parse_target` as a plain tuple, which compiled code need not build."""
    raw, _, rest = target.partition(b"?")
    path = _known.get(raw)
    if path is None:
        path = _plain_path(raw)
    if path is not None and (not rest or not rest.translate(None, _QUERY_BYTES)):
        return path, str(rest, "ascii") if rest else "", None
    try:
        text = str(target, "ascii")
    except UnicodeDecodeError:
        raise TargetError(_saying(target, "bytes beyond ASCII must be percent-encoded")) from None
    return _parse_unusual(text, method)


_known: Final[dict[bytes, str]] = {}
"""Paths that were seen lately, as sent, and normalised. A service has few, and most come again."""


def _plain_path(raw: bytes) -> str | None:
    """The normalised path, if it begins with `/` and has no escapes; else None."""
    # Nothing is left when all that it may hold is taken out: a third of a regex's time.
    if not raw.startswith(b"/") or raw.translate(None, _PATH_BYTES):
        return None
    path = str(raw, "ascii")
    if "/." in path or "//" in path:
        path = normalise_path(path)
    if len(raw) <= _CACHED_LENGTH:
        if len(_known) >= _CACHED:
            _known.clear()
        _known[raw] = path
    return path


def _parse_unusual(text: str, method: bytes | str) -> tuple[str, str, str | None]:
    if text == "*":
        if method in {b"OPTIONS", "OPTIONS"}:
            return "*", "", None
        raise TargetError("the request target '*' is for OPTIONS only (RFC 9112 section 3.2.4)")
    authority = None
    rest = text
    if not text.startswith("/"):
        authority, rest = _split_absolute(text)
        if not rest and method in {b"OPTIONS", "OPTIONS"}:
            return "*", "", authority
        if not rest.startswith("/"):
            rest = "/" + rest
    bad = _UNSENDABLE.search(rest)
    if bad is not None:
        raise TargetError(_saying(text, _UNSENDABLE_REASONS.get(bad[0], "a control character")))
    path, _, query = rest.partition("?")
    return normalise_path(path), query, authority


_UNSENDABLE_REASONS: Final = {
    " ": "a space must be sent as %20",
    "#": "a fragment ('#') is never sent to a server",
}


def _split_absolute(text: str) -> tuple[str, str]:
    """Authority (lower case) and the rest of an absolute-form target."""
    absolute = _ABSOLUTE.fullmatch(text)
    if absolute is None:
        why = "it is neither a path that begins with '/' nor an absolute http:// URL"
        raise TargetError(_saying(text, why))
    scheme, authority, rest = absolute.groups()
    if scheme.lower() not in {"http", "https"}:
        raise TargetError(_saying(text, f"the scheme {scheme!r} is not http"))
    if "@" in authority:
        # RFC 9110 section 4.2.4: user information in a target is likely an attempt to mislead.
        raise TargetError("the request target holds user information ('@' before the host)")
    if not _AUTHORITY.fullmatch(authority):
        raise TargetError(_saying(text, f"{authority!r} is not a host with an optional port"))
    return authority.lower(), rest


def normalise_path(path: str) -> str:
    """Bring `path` (begins with `/`, no query) to the one spelling described above. Idempotent.

    Raises:
        TargetError: the path is refused; the message says why.
    """
    if len(path) > _CACHED_LENGTH:
        return _normalise(path)
    return _normalise_cached(path)


def _normalise(path: str) -> str:
    if "\\" in path:
        raise TargetError(_saying(path, "a backslash is refused in a path: servers read it as '/'"))
    spelled = _ESCAPE_OR_ODD.sub(_respell, path)
    if "/." not in spelled and "//" not in spelled:
        return spelled
    kept: list[str] = []
    segments = spelled.split("/")
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment.startswith((".;", "..;", ".%3B", "..%3B")):
            raise TargetError(_saying(path, "a dot segment with a parameter is refused"))
        elif segment not in {"", "."}:
            kept.append(segment)
    # A path that ended in a slash or a dot segment names a folder and goes on doing so.
    folder = "/" if kept and segments[-1] in {"", ".", ".."} else ""
    return "/" + "/".join(kept) + folder


_normalise_cached = lru_cache(maxsize=_CACHED)(_normalise)


def _respell(match: re.Match[str]) -> str:
    """One escape, or one character that needs escaping, in its normal spelling."""
    whole = match[0]
    if whole[0] != "%":
        return f"%{ord(whole):02X}"
    if not _HEX_PAIR.fullmatch(whole, 1):
        message = f"the path has the bad escape {whole!r}: '%' must be followed by two hex digits"
        raise TargetError(message)
    code = whole[1:].upper()
    meaning = _REFUSED_ESCAPES.get(code)
    if meaning is not None:
        raise TargetError(f"the path has the escape {whole} ({meaning}), which is refused")
    character = chr(int(code, 16))
    return character if character in _DECODED else f"%{code}"


def _saying(target: bytes | str, why: str) -> str:
    text = target.decode("ascii", "backslashreplace") if isinstance(target, bytes) else target
    shown, question, _ = text.partition("?")
    if question:
        shown += "?…"  # a query may hold secrets, and this is logged
    if len(shown) > _SHOWN:
        shown = shown[:_SHOWN] + "…"
    return f"bad request target {shown!r}: {why}"


def named_service(query: str, host: bytes | None) -> tuple[str | None, str]:
    """Which service an outbound request names, and the query that is left to send.

    A `host` parameter whose value ends in `.svc` names it, however either is percent-encoded, and is
    taken out of the query, as often as it is there; else the `Host` field (or the authority of an
    absolute target), with or without a port. `Host=` is another parameter, and the app's.

    Returns:
        The service in lower case and without `.svc`, or None; and the remaining query.

    Raises:
        TargetError: two parameters name different services. Whichever were taken, somebody on the way
            (a policy, a log, the app) might go by the other.
    """
    if "host=" in query or "%" in query:
        service, rest = _from_query(query)
        if service is not None:
            return service, rest
    # `find`: on bytes, `in` takes ten times as long.
    if host is not None and (lower := host.lower()).find(b".svc") >= 0:
        name = lower.partition(b":")[0]
        if name.endswith(b".svc"):
            return name[:-4].decode("latin-1"), query
    return None, query


def _from_query(query: str) -> tuple[str | None, str]:
    named: str | None = None
    others = []
    for part in query.split("&"):
        service = _service_of(part)
        if service is None:
            others.append(part)
        elif named is not None and service != named:
            raise TargetError(
                f"the query names two services, {_shown(named)} and {_shown(service)}: leave one "
                "`host` parameter that ends in .svc"
            )
        else:
            named = service
    return named, query if named is None else "&".join(others)


def _service_of(parameter: str) -> str | None:
    """The service that one `name=value` of a query names, or None."""
    name, equals, value = parameter.partition("=")
    if not equals or (name != "host" and ("%" not in name or unquote_plus(name) != "host")):
        return None
    if "%" in value or "+" in value:
        value = unquote_plus(value)
    value = value.lower()
    return value[: -len(SERVICE_SUFFIX)] if value.endswith(SERVICE_SUFFIX) else None


def _shown(service: str) -> str:
    return repr(service if len(service) <= _SHOWN else service[:_SHOWN] + "…")
