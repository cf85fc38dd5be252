"""Whether, when and how fast an attempt is repeated: pure decisions (SEMANTICS, Retries)."""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from hms_addons.http_message import get_field
from hms_addons.upstream.outcome import NOT_DELIVERED, Outcome

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping

    from hms_addons.config.snapshot import RetryPolicy
    from hms_addons.http_message import Fields

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be repeated although they may have been executed (RFC 9110 section 9.2.2)."""

CONDITIONS: Final = frozenset(
    {
        "connect-failure",
        "refused-stream",
        "reset",
        "reset-before-request",
        "gateway-error",
        "5xx",
        "retriable-4xx",
        "retriable-status-codes",
    }
)
"""What a retry policy's `on` may hold. HTTP/1.1 has no streams to refuse: `refused-stream` is for
HTTP/2 upstreams and never applies here."""

_GATEWAY_ERRORS: Final = frozenset({502, 503, 504})
_CONFLICT: Final = 409
_SERVER_ERROR: Final = 500

# As Envoy's: `5xx` and `gateway-error` cover an upstream that does not answer at all, and `reset` and
# `reset-before-request` one that could not even be reached.
_APPLIES: Final = {
    Outcome.CONNECT_FAILURE: frozenset(
        {"connect-failure", "reset", "reset-before-request", "5xx", "gateway-error"}
    ),
    Outcome.RESET_BEFORE_REQUEST: frozenset(
        {"reset-before-request", "reset", "5xx", "gateway-error"}
    ),
    Outcome.RESET: frozenset({"reset", "5xx", "gateway-error"}),
    Outcome.TIMEOUT: frozenset({"reset", "5xx", "gateway-error"}),
    Outcome.PROTOCOL_ERROR: frozenset({"reset", "5xx", "gateway-error"}),
    Outcome.REQUEST_BODY: frozenset[str](),
    # A retry would want the very thing that is short.
    Outcome.LOCAL: frozenset[str](),
}


def is_repeatable(method: bytes, head: Mapping[bytes, bytes], policy: RetryPolicy) -> bool:
    """True if a request that may have been executed may be sent again.

    Args:
        method: as sent.
        head: the request's fields by lower-cased name.
        policy: the route's.
    """
    return method in IDEMPOTENT or policy.retry_non_idempotent or b"idempotency-key" in head


def retries_outcome(policy: RetryPolicy, outcome: Outcome, *, repeatable: bool) -> bool:
    """True if the policy repeats an attempt that was lost in this way."""
    if not repeatable and outcome not in NOT_DELIVERED:
        return False
    return not policy.on.isdisjoint(_APPLIES[outcome])


def retries_status(policy: RetryPolicy, status: int, *, repeatable: bool) -> bool:
    """True if the policy repeats an attempt that was answered with this status."""
    if not repeatable:
        return False
    on = policy.on
    if status >= _SERVER_ERROR and (
        "5xx" in on or ("gateway-error" in on and status in _GATEWAY_ERRORS)
    ):
        return True
    if status == _CONFLICT and "retriable-4xx" in on:
        return True
    return "retriable-status-codes" in on and status in policy.status_codes


def backoff(policy: RetryPolicy, retry: int, rng: random.Random) -> float:
    """Seconds to wait before the `retry`-th retry (from 1).

    Uniform in [0, (2^N - 1) · base), the bound capped: Envoy's fully jittered exponential backoff.
    """
    growth: int = (1 << min(retry, 30)) - 1
    bound = min(growth * policy.backoff_base, policy.backoff_max)
    return rng.random() * bound


def retry_after(fields: Fields, wall: float) -> float | None:
    """Seconds that a response asks to wait (RFC 9110 section 10.2.3); None if it does not say.

    What cannot be read counts as nothing.

    Args:
        fields: of the response.
        wall: seconds since the epoch, now; for the form that is a date.
    """
    value = get_field(fields, b"retry-after")
    if value is None:
        return None
    if value.isdigit():
        return float(value) if len(value) <= 9 else float("inf")  # noqa: PLR2004 - 31 years
    try:
        return max(0.0, parsedate_to_datetime(value.decode("latin-1")).timestamp() - wall)
    except (ValueError, OverflowError, OSError):  # a year or a zone that no C integer holds, too
        return None
