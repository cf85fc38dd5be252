from __future__ import annotations

import json
from typing import Any

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError, field_validator
from starlette.exceptions import HTTPException

from hms_addons.control.api.problems import ApiError, of_exception, problem_response
from hms_addons.control.auth import AuthError
from hms_addons.control.store.protocol import ConflictError, StoreError

SECRET = "hmsadm1.a-secret-in-the-wrong-place"


def body(error: ApiError) -> dict[str, Any]:
    return dict(json.loads(bytes(problem_response(error, "r1").body)))


def test_an_error_is_problem_details() -> None:
    response = problem_response(ApiError(412, "version 4 is in force", headers={"ETag": '"4"'}))
    assert response.media_type == "application/problem+json"
    assert response.status_code == 412
    assert response.headers["etag"] == '"4"'
    assert json.loads(bytes(response.body)) == {
        "type": "about:blank",
        "title": "Precondition Failed",
        "status": 412,
        "detail": "version 4 is in force",
    }


def test_a_configurations_problems_are_told_as_they_are() -> None:
    problem = {"file": "a.yaml", "line": 3}
    assert body(ApiError(422, "refused", problems=[problem]))["problems"] == [problem]
    assert body(ApiError(422, "refused"))["request_id"] == "r1"


def test_what_cannot_be_said_in_utf_8_is_said_as_well_as_can_be() -> None:
    assert body(ApiError(400, "half a pair: \ud800"))["detail"] == "half a pair: ?"


@pytest.mark.parametrize(("wait", "seconds"), [(0.01, "1"), (1.0, "1"), (1.2, "2")])
def test_waits_are_told_in_whole_seconds_and_never_as_none(wait: float, seconds: str) -> None:
    assert ApiError.too_many(wait).headers == {"Retry-After": seconds}


def test_a_refused_caller_is_challenged_if_it_is_not_known() -> None:
    unknown, known = of_exception(AuthError(401, "who?")), of_exception(AuthError(403, "no"))
    assert unknown is not None
    assert known is not None
    assert unknown.headers == {"WWW-Authenticate": 'Bearer realm="hms"'}
    assert known.headers == {}


@pytest.mark.parametrize("error", [StoreError("disk full: /data"), ConflictError("admin/ab", 3)])
def test_a_store_that_fails_is_ours_to_mend_and_worth_another_try(error: Exception) -> None:
    told = of_exception(error)
    assert told is not None
    assert told.status == 503
    assert "admin" not in told.detail
    assert "/data" not in told.detail


def test_a_fault_of_ours_is_nothing_that_a_client_is_told_of() -> None:
    assert of_exception(RuntimeError(SECRET)) is None
    assert SECRET not in ApiError.fault("r1").detail


def test_other_errors_of_http_have_a_detail_of_their_own() -> None:
    told = of_exception(HTTPException(418, SECRET, {"X": "y"}))
    assert told is not None
    assert (told.status, told.headers) == (418, {"X": "y"})
    assert SECRET not in told.detail


class Asked(BaseModel):
    number: int = Field(0, ge=1)
    name: str = Field("", pattern="^[a-z]*$", max_length=5)
    kind: str = ""

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        if kind:
            raise ValueError(f"{kind} is not known")
        return kind


@pytest.mark.parametrize(
    "asked",
    [
        {"number": SECRET},
        {"number": 0},
        {"name": SECRET},
        {"name": [SECRET]},
        {"kind": SECRET},
        {"number": {SECRET: SECRET}},
    ],
)
def test_a_field_that_is_wrong_is_named_and_its_value_is_not_quoted(asked: dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        Asked.model_validate(asked)
    told = of_exception(RequestValidationError(caught.value.errors()))
    assert told is not None
    assert told.status == 422
    text = json.dumps(body(told))
    assert next(iter(asked)) in text
    assert SECRET not in text


def test_of_many_wrong_fields_some_are_told() -> None:
    errors = [{"type": "missing", "loc": ("body", n), "msg": "Field required"} for n in range(999)]
    told = of_exception(RequestValidationError(errors))
    assert told is not None
    assert told.problems is not None
    assert len(told.problems) == 20
    assert len(told.detail) < 300
