"""Marks: what mitmweb and mitmproxy show beside a flow that did not simply succeed.

They are mitmproxy's own markers, so `~marker :x:` finds them, `~marked` any of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange

DENIED: Final = ":no_entry:"
"""Refused by a policy, a rate limit or the service itself: 401, 403 or 429."""
FAILED: Final = ":x:"
"""Answered by the mesh, as nobody else did, or with 5xx, or not at all."""
RETRIED: Final = ":repeat:"
"""All went well in the end: by another attempt than the first, or by a fallback."""

MARKS: Final = {
    DENIED: "denied: 401, 403 or 429",
    FAILED: "failed: a flag of the mesh, 5xx, or no answer",
    RETRIED: "retried: a later attempt, or a fallback, has answered",
}

_DENIALS: Final = frozenset({401, 403, 429})
_SERVER_ERROR: Final = 500


def mark_of(exchange: Exchange) -> str:
    """The mark of an exchange as it stands; "" while there is nothing to say."""
    failure, answer = exchange.failure, exchange.answer
    status = answer.status if answer is not None else failure.status if failure is not None else 0
    if status in _DENIALS:
        return DENIED
    if failure is not None or status >= _SERVER_ERROR:
        return FAILED
    # What a hedge has overtaken is no retry.
    tries = sum(attempt.outcome != "cancelled" for attempt in exchange.attempts)
    return RETRIED if tries > 1 or "fallback" in exchange.notes else ""
