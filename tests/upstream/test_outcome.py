"""The words for failures, and what each means to the caller."""

from __future__ import annotations

from hms_addons.errors import Flag
from hms_addons.upstream.outcome import (
    FAULTS,
    NOT_DELIVERED,
    STATUS_EQUIVALENT,
    Outcome,
    UpstreamError,
)


def test_every_outcome_has_its_fault() -> None:
    flags = {outcome: FAULTS[outcome].value.flag for outcome in Outcome}
    assert flags == {
        Outcome.CONNECT_FAILURE: Flag.UF,
        Outcome.RESET_BEFORE_REQUEST: Flag.UC,
        Outcome.RESET: Flag.UC,
        Outcome.TIMEOUT: Flag.UT,
        Outcome.PROTOCOL_ERROR: Flag.UPE,
        Outcome.REQUEST_BODY: Flag.DC,
        Outcome.LOCAL: Flag.UF,
    }


def test_outlier_detection_hears_of_all_but_the_callers_own_and_ours() -> None:
    assert set(STATUS_EQUIVALENT) == set(Outcome) - {Outcome.REQUEST_BODY, Outcome.LOCAL}
    for outcome, status in STATUS_EQUIVALENT.items():
        assert FAULTS[outcome].value.status == status


def test_only_what_was_never_written_counts_as_not_delivered() -> None:
    never = {Outcome.CONNECT_FAILURE, Outcome.RESET_BEFORE_REQUEST, Outcome.LOCAL}
    assert never == NOT_DELIVERED


def test_the_error_says_what_and_how() -> None:
    error = UpstreamError(Outcome.RESET, "closed the connection", stale=True)
    assert (str(error), error.outcome, error.stale) == ("closed the connection", "reset", True)
