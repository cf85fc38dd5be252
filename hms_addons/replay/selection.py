"""Which recorded requests are replayed, as what, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote_plus

from hms_addons.redaction import HIDDEN

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.http_message import Fields
    from hms_addons.replay.message import Recorded

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change nothing (RFC 9110 section 9.2.1)."""
_FRAMING: Final = frozenset(
    {b"connection", b"keep-alive", b"transfer-encoding", b"content-length", b"te", b"trailer"}
)


@dataclass(frozen=True, slots=True)
class Wishes:
    """What its user wants.

    Attributes:
        all_methods: also those that change something.
        headers: set on every request, by name in lower case.
        query: values of parameters, in place of those that were redacted.
    """

    all_methods: bool = False
    headers: Mapping[str, tuple[bytes, bytes]] | None = None
    query: Mapping[str, str] | None = None


def why_not(recorded: Recorded, wishes: Wishes) -> str | None:
    """Why it is not replayed; None if it is. The reasons are few, to be counted."""
    if recorded.upgraded:
        return "they became tunnels (WebSocket, CONNECT)"
    if recorded.answer is None:
        return "they had no answer"
    if recorded.by_mesh is not None:
        return "the mesh itself answered them, not the service"
    if recorded.body is None:
        return "their bodies were not recorded as a whole (streamed, or too long)"
    if recorded.method not in SAFE and not wishes.all_methods:
        return "their methods may change something (--all-methods replays them, too)"
    if HIDDEN.search(_filled(recorded.target, wishes)):
        return "their queries had a secret, which is not in the file (--query NAME=VALUE gives it)"
    return None


def prepare(recorded: Recorded, wishes: Wishes) -> tuple[Recorded, list[str]]:
    """The request as it is sent, and the names of secret headers that are missing in it.

    Framing is written anew; what was redacted is left out, unless `wishes` has it.
    """
    given = wishes.headers or {}
    fields: list[tuple[bytes, bytes]] = []
    missing = []
    for name, value in recorded.fields:
        lower = name.lower()
        if lower in _FRAMING or lower.decode("latin-1") in given:
            continue
        if HIDDEN.search(value):
            missing.append(name.decode("latin-1"))
            continue
        fields.append((name, value))
    sent: Fields = (*fields, *given.values())
    return replace(recorded, fields=sent, target=_filled(recorded.target, wishes)), missing


def _filled(target: bytes, wishes: Wishes) -> bytes:
    """A target with the parameters' values that its user has given."""
    path, question, query = target.partition(b"?")
    if not question or not wishes.query:
        return target
    parts = []
    for part in query.split(b"&"):
        name, equals, _ = part.partition(b"=")
        value = wishes.query.get(unquote_plus(name.decode("latin-1")))
        parts.append(part if value is None or not equals else name + b"=" + value.encode())
    return path + question + b"&".join(parts)
