"""What `hms explain` is asked about: a request as a person writes it, held to the wire's rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import httptools

from hms_addons.config.request_target import TargetError
from hms_addons.http_message import SENT_ONCE

type Headers = Mapping[str, str] | Iterable[tuple[str, str]]
"""Names and values; as pairs, if a name is there more than once."""

_VERSIONS: Final = ("HTTP/1.1", "HTTP/1.0")


def split_request_line(request_line: str) -> tuple[str, str]:
    """Method and target of a request line, which may lack its method and version."""
    words = request_line.split(" ")
    if len(words) > 1 and words[-1] in _VERSIONS:
        words.pop()
    if len(words) == 1:
        return "GET", words[0]
    return words[0], " ".join(words[1:])


def pairs_of(headers: Headers) -> list[tuple[bytes, bytes]]:
    """The fields as bytes, with their names in lower case."""
    pairs: Iterable[tuple[str, str]] = headers.items() if isinstance(headers, Mapping) else headers
    return [
        (name.lower().encode("latin-1", "replace"), value.encode("latin-1", "replace"))
        for name, value in pairs
    ]


def index_headers(fields: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Fields by name; repeated ones joined as the engine joins them."""
    head: dict[bytes, bytes] = {}
    for name, value in fields:
        joint = b"; " if name == b"cookie" else b", "
        head[name] = head[name] + joint + value if name in head else value
    return head


def check_well_formed(method: str, fields: Iterable[tuple[bytes, bytes]]) -> None:
    """See to it that a listener would take the request for one, as far as these tell.

    Raises:
        TargetError: it would not; the message says why.
    """
    if not _is_method(method):
        raise TargetError("not well-formed HTTP/1.1: Invalid method encountered")
    names = [name for name, _ in fields]
    for name in names:
        if name in SENT_ONCE and names.count(name) > 1:
            raise TargetError(f"{name.decode().title()} was sent more than once")


def _is_method(method: str) -> bool:
    """Whether the parser takes it: it knows the registered ones, in capitals, and no others."""
    sent = method.encode("latin-1", "replace")
    parser = httptools.HttpRequestParser(object())
    try:
        parser.feed_data(b"%b / HTTP/1.1\r\n\r\n" % sent)
    except httptools.HttpParserUpgrade:
        pass  # CONNECT
    except httptools.HttpParserError:
        return False
    return bool(parser.get_method() == sent)
