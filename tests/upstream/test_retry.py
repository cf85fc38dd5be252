"""Retry decisions: what may be repeated, when, and after how long."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot import RetryPolicy
from hms_addons.upstream import retry
from hms_addons.upstream.outcome import Outcome


def on(*conditions: str, **options: object) -> RetryPolicy:
    return RetryPolicy(attempts=2, on=frozenset(conditions), **options)  # type: ignore[arg-type]


DEFAULT = RetryPolicy(attempts=2)
UPSTREAMS = set(Outcome) - {Outcome.REQUEST_BODY, Outcome.LOCAL}
"""What the upstream is to blame for; for the rest a retry is no remedy."""


@pytest.mark.parametrize(
    ("method", "head", "options", "repeatable"),
    [
        (b"GET", {}, {}, True),
        (b"HEAD", {}, {}, True),
        (b"OPTIONS", {}, {}, True),
        (b"PUT", {}, {}, True),
        (b"DELETE", {}, {}, True),
        (b"TRACE", {}, {}, True),
        (b"POST", {}, {}, False),
        (b"PATCH", {}, {}, False),
        (b"PURGE", {}, {}, False),
        (b"get", {}, {}, False),  # methods are case-sensitive
        (b"POST", {b"idempotency-key": b"8e03978e"}, {}, True),
        (b"POST", {}, {"retry_non_idempotent": True}, True),
    ],
)
def test_is_repeatable(
    method: bytes, head: dict[bytes, bytes], options: dict[str, bool], *, repeatable: bool
) -> None:
    assert retry.is_repeatable(method, head, RetryPolicy(**options)) is repeatable  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_what_may_have_been_executed_is_not_repeated_unless_repeatable(outcome: Outcome) -> None:
    everything = on(*retry.CONDITIONS)
    provably_not = outcome in {Outcome.CONNECT_FAILURE, Outcome.RESET_BEFORE_REQUEST}
    assert retry.retries_outcome(everything, outcome, repeatable=False) is provably_not
    assert retry.retries_outcome(everything, outcome, repeatable=True) is (outcome in UPSTREAMS)


@pytest.mark.parametrize(
    ("condition", "outcomes"),
    [
        ("connect-failure", {Outcome.CONNECT_FAILURE}),
        ("reset-before-request", {Outcome.CONNECT_FAILURE, Outcome.RESET_BEFORE_REQUEST}),
        (
            "reset",
            {
                Outcome.CONNECT_FAILURE,
                Outcome.RESET_BEFORE_REQUEST,
                Outcome.RESET,
                Outcome.TIMEOUT,
                Outcome.PROTOCOL_ERROR,
            },
        ),
        ("5xx", UPSTREAMS),
        ("gateway-error", UPSTREAMS),
        ("retriable-4xx", set()),
        ("retriable-status-codes", set()),
        ("refused-stream", set()),
    ],
)
def test_outcomes_by_condition(condition: str, outcomes: set[Outcome]) -> None:
    policy = on(condition)
    assert {o for o in Outcome if retry.retries_outcome(policy, o, repeatable=True)} == outcomes


@pytest.mark.parametrize(
    ("policy", "retried"),
    [
        (on("5xx"), {500, 501, 502, 503, 504, 599}),
        (on("gateway-error"), {502, 503, 504}),
        (on("retriable-4xx"), {409}),
        (on("retriable-status-codes", status_codes=frozenset({425, 500})), {425, 500}),
        (on("connect-failure", status_codes=frozenset({425})), set()),
        (on("reset"), set()),
        (DEFAULT, {502, 503, 504}),
    ],
)
def test_statuses_by_condition(policy: RetryPolicy, retried: set[int]) -> None:
    statuses = [200, 204, 301, 400, 404, 409, 425, 429, 500, 501, 502, 503, 504, 599]
    found = {s for s in statuses if retry.retries_status(policy, s, repeatable=True)}
    assert found == retried
    assert not any(retry.retries_status(policy, s, repeatable=False) for s in statuses)


@given(st.integers(1, 900), st.integers())
def test_backoff_stays_within_its_bounds(n: int, seed: int) -> None:
    wait = retry.backoff(DEFAULT, n, random.Random(seed))
    assert 0 <= wait < min((2**n - 1) * 0.025, 0.25) or wait == 0


def test_backoff_uses_its_whole_range() -> None:
    rng = random.Random(3)
    for n, bound in [(1, 0.025), (2, 0.075), (3, 0.175), (4, 0.25), (9, 0.25)]:
        waits = [retry.backoff(DEFAULT, n, rng) for _ in range(2000)]
        assert max(waits) > 0.98 * bound
        assert min(waits) < 0.02 * bound
        assert abs(sum(waits) / len(waits) - bound / 2) < 0.04 * bound


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (b"0", 0.0),
        (b"7", 7.0),
        (b"Fri, 15 Jan 2027 08:00:10 GMT", 10.0),
        (b"Fri, 15 Jan 2027 07:00:00 GMT", 0.0),
        (b"99999999999999999999", float("inf")),
        (b"-1", None),
        (b"1.5", None),
        (b"soon", None),
        (b"", None),
        (b"Fri, 99 Jan 2027 08:00:10 GMT", None),
        (b"Fri, 99999999999999999999 Nov 2026 10:00:00 GMT", None),
        (b"Fri, 27 Nov 2026 10:00:00 +9999999999999999999", None),
    ],
)
def test_retry_after(value: bytes, seconds: float | None) -> None:
    wall = 1_800_000_000.0  # 2027-01-15 08:00:00 UTC
    assert retry.retry_after(((b"Retry-After", value),), wall) == seconds


def test_no_retry_after() -> None:
    assert retry.retry_after(((b"Date", b"x"),), 0.0) is None


@given(st.binary(max_size=60))
def test_any_retry_after_is_survived(value: bytes) -> None:
    seconds = retry.retry_after(((b"retry-after", value),), 1_800_000_000.0)
    assert seconds is None or seconds >= 0


NUMBERS = st.one_of(
    st.integers(-(10**30), 10**30).map(str), st.integers(0, 9999).map("{:04}".format)
)


@given(
    st.sampled_from(["Fri, ", "", "Friday, ", ","]),
    NUMBERS,
    st.sampled_from([" Nov ", "-Nov-", " ", " Nov"]),
    NUMBERS,
    st.lists(NUMBERS, max_size=4).map(":".join),
    st.one_of(st.sampled_from(["GMT", "EST", "", "-0000"]), NUMBERS.map("+{}".format)),
)
def test_any_retry_after_that_looks_like_a_date_is_survived(
    day: str, number: str, month: str, year: str, time: str, zone: str
) -> None:
    value = f"{day}{number}{month}{year} {time} {zone}".encode()
    seconds = retry.retry_after(((b"retry-after", value),), 1_800_000_000.0)
    assert seconds is None or seconds >= 0


def test_backoff_of_an_absurd_number_of_retries() -> None:
    assert 0 <= retry.backoff(DEFAULT, 10**6, random.Random(1)) < 0.25
