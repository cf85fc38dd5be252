from __future__ import annotations

import json
import re
from http import HTTPStatus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.errors import (
    ConfigError,
    ExchangeFailed,
    Failure,
    Fault,
    Flag,
    MeshError,
    problem,
    reason_phrase,
)

CLIENT_CLOSED_REQUEST = 499
"""nginx's code: it is logged, and never sent, for nobody is there to read it."""


def fields_of(failure: Failure) -> dict[bytes, bytes]:
    _, fields, _ = problem(failure, "7f3c")
    names = [name for name, _ in fields]
    assert len(set(names)) == len(names)
    return dict(fields)


@pytest.mark.parametrize("fault", Fault)
def test_every_fault_is_an_error_that_http_knows(fault: Fault) -> None:
    status, flag, title = fault.value
    assert isinstance(flag, Flag)
    assert status >= 400
    if status != CLIENT_CLOSED_REQUEST:
        assert HTTPStatus(status)
    assert re.fullmatch(r"[A-Z][A-Za-z -]{3,38}[a-z]|HTTP version not supported", title)


def test_no_two_faults_are_one() -> None:
    """Equal values would make the later an alias of the earlier, and lose it from logs."""
    assert len(Fault.__members__) == len(list(Fault))
    titles = [fault.value.title for fault in Fault]
    assert len(set(titles)) == len(titles)


def test_every_flag_has_a_use_and_is_its_own_name() -> None:
    used = {fault.value.flag for fault in Fault}
    # These are said of an answer that is no failure of the mesh: it was the last of the attempts, it
    # was delayed on purpose, or it is a fallback's.
    assert set(Flag) - used == {Flag.URX, Flag.DI, Flag.FB}
    assert all(flag.name == flag.value for flag in Flag)


def test_a_failure_takes_its_verdict_from_the_table() -> None:
    failure = Failure.of(Fault.RATE_LIMITED, "too many", retry_after=2.0, close=True)
    assert (failure.status, failure.flag, failure.title) == (429, Flag.RL, "Rate limited")
    assert failure.detail == "too many"
    assert failure.close
    with pytest.raises(AttributeError):
        failure.status = 200  # type: ignore[misc]


def test_errors_on_purpose_have_one_base() -> None:
    failure = Failure.of(Fault.NO_ROUTE, "nothing takes /x")
    error = ExchangeFailed(failure)
    assert str(error) == "nothing takes /x"
    assert error.failure is failure
    assert isinstance(error, MeshError)
    assert issubclass(ConfigError, MeshError)


@pytest.mark.parametrize("fault", Fault)
def test_problem_details_say_what_the_status_line_says(fault: Fault) -> None:
    reason, fields, body = problem(Failure.of(fault, "why"), "7f3c")
    assert json.loads(body) == {
        "type": f"urn:hms:problem:{fault.value.flag}",
        "title": fault.value.title,
        "status": fault.value.status,
        "detail": "why",
        "flag": fault.value.flag.value,
        "request_id": "7f3c",
    }
    assert reason == reason_phrase(fault.value.status) != b""
    assert fields == (
        (b"Content-Type", b"application/problem+json"),
        (b"X-HMS-Flag", fault.value.flag.encode()),
    )


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0, b"1"),
        (-3.0, b"1"),
        (0.001, b"1"),
        (1.0, b"1"),
        (1.01, b"2"),
        (2.0, b"2"),
        (2.5, b"3"),
        (3.0, b"3"),
        (59.9, b"60"),
        (3600.0, b"3600"),
    ],
)
def test_retry_after_is_rounded_up_and_never_0(seconds: float, said: bytes) -> None:
    failure = Failure.of(Fault.RATE_LIMITED, "", retry_after=seconds)
    assert fields_of(failure)[b"Retry-After"] == said


@given(st.floats(min_value=0, max_value=1e9))
def test_who_waits_for_retry_after_has_waited_enough_and_not_a_second_more(seconds: float) -> None:
    said = int(fields_of(Failure.of(Fault.OVERFLOW, "", retry_after=seconds))[b"Retry-After"])
    assert said >= seconds
    assert said == 1 or said < seconds + 1


def test_further_fields_come_last_in_their_order() -> None:
    headers = ((b"WWW-Authenticate", b'Bearer error="invalid_token"'), (b"X-Policy", b"p1"))
    _, fields, _ = problem(Failure.of(Fault.TOKEN_INVALID, "", headers=headers), "")
    assert fields[-2:] == headers


@given(detail=st.text(), request_id=st.text(max_size=20))
def test_any_detail_comes_back_whole_and_stays_out_of_the_head(
    detail: str, request_id: str
) -> None:
    reason, fields, body = problem(Failure.of(Fault.BAD_REQUEST, detail), request_id)
    assert json.loads(body)["detail"] == detail
    assert json.loads(body)["request_id"] == request_id
    assert body.endswith(b"}\n")
    assert b"\r" not in body
    assert body.count(b"\n") == 1
    for part in (reason, *(part for field in fields for part in field)):
        assert b"\r" not in part
        assert b"\n" not in part


def test_what_no_encoding_can_say_does_not_break_the_answer() -> None:
    """A lone surrogate, as `os.fsdecode` makes of a file name that is not UTF-8."""
    _, _, body = problem(Failure.of(Fault.PLUGIN_ERROR, "cannot read \udcff"), "")
    assert json.loads(body)["detail"] == "cannot read ?"


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(404, b"Not Found"), (499, b"Client Closed Request"), (299, b""), (999, b"")],
)
def test_reason_phrase(status: int, phrase: bytes) -> None:
    assert reason_phrase(status) == phrase
