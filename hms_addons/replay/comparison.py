"""Compares a recorded answer with a new one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hms_addons.http_message import get_field
from hms_addons.redaction import HIDDEN, REDACTED, redact_fields
from hms_addons.replay.body_difference import (
    ABSENT,
    Difference,
    Path,
    body_differences,
    printable,
)
from hms_addons.replay.content_coding import TooLongError, decoded

if TYPE_CHECKING:
    from hms_addons.http_message import Fields
    from hms_addons.replay.message import Answered, Recorded

VOLATILE: Final = frozenset(
    """age connection content-length date keep-alive server-timing traceparent tracestate
    transfer-encoding via x-correlation-id x-request-id x-response-time x-runtime""".split()
)
"""Headers that differ from one answer to the next, or that the body's comparison covers."""


@dataclass(frozen=True, slots=True)
class Rules:
    """What may differ.

    Attributes:
        headers: names of response headers, in lower case, besides `VOLATILE`.
        paths: into JSON bodies.
    """

    headers: frozenset[str] = frozenset()
    paths: tuple[Path, ...] = ()


def compare(recorded: Recorded, new: Answered, rules: Rules) -> list[Difference]:
    """What is not as it was recorded. A body that was not recorded as a whole is not compared."""
    old = recorded.answer
    assert old is not None  # noqa: S101 - `selection` has seen to it
    found: list[Difference] = []
    if old.status != new.status:
        found.append(Difference("status", "", str(old.status), str(new.status)))
    skipped = VOLATILE | rules.headers
    if recorded.method == "HEAD":
        skipped -= {"content-length"} - rules.headers  # it is all that is told of the body
    found += _header_differences(old.fields, new.fields, skipped)
    if old.body is not None and new.body is not None:
        found += _body_differences(old.fields, old.body, new.fields, new.body, rules)
    return found


def _body_differences(
    old_fields: Fields, old: bytes, new_fields: Fields, new: bytes, rules: Rules
) -> list[Difference]:
    try:
        before, after = decoded(old_fields, old), decoded(new_fields, new)
    except TooLongError as error:
        if old == new:
            return []
        told = [f"{len(body)} bytes as they came" for body in (old, new)]
        return [Difference("body", f"not decoded, as it is {error}", *told)]
    kind = get_field(new_fields, b"content-type") or b""
    return body_differences(before, after, kind=kind.decode("latin-1").lower(), ignored=rules.paths)


def _header_differences(old: Fields, new: Fields, skipped: frozenset[str]) -> list[Difference]:
    # Recordings have no secrets, and they are nobody's to be shown.
    before, after = _by_name(redact_fields(old)), _by_name(redact_fields(new))
    found = []
    for name in dict.fromkeys((*before, *after)):
        if name in skipped:
            continue
        a, b = before.get(name, []), after.get(name, [])
        if a != b:
            found.append(Difference("header", printable(name), _shown(a), _shown(b)))
    return found


def _by_name(fields: Fields) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in fields:
        shown = HIDDEN.sub(REDACTED.encode(), value).decode("latin-1").strip()  # also the window's
        found.setdefault(name.decode("latin-1").lower(), []).append(shown)
    return found


def _shown(values: list[str]) -> str:
    return " | ".join(printable(value) for value in values) if values else ABSENT
