"""Every error of the API, as RFC 9457 problem details, with nothing in them that the client sent.

A client's mistake is described by where it is and what was expected there, never by quoting the
value: a value may be a token or a key that was put in the wrong place.
"""

from __future__ import annotations

import json
import logging
import math
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final

from fastapi import Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from hms_addons.control.auth import AuthError
from hms_addons.control.store.protocol import StoreError
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request

logger = logging.getLogger(__name__)

PROBLEM_JSON: Final = "application/problem+json"
CLIENT_LEFT: Final = 499
"""As nginx counts it; nobody is there to read it."""
_MAX_PROBLEMS: Final = 20
_MAX_NAME: Final = 80


class ConfigProblemModel(BaseModel):
    """One problem of a configuration, or of a request's fields (then `file` is `(request)`)."""

    severity: str = Field(examples=["error"])
    file: str = Field(examples=["routes.yaml"])
    line: int
    column: int
    path: str = Field(examples=["listeners[0].port"])
    message: str
    suggestion: str | None = None


class ProblemModel(BaseModel):
    """Problem details (RFC 9457)."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["Precondition Failed"])
    status: int
    detail: str
    request_id: str | None = None
    problems: list[ConfigProblemModel] | None = None


class ApiError(MeshError):
    """Ends a request with problem details.

    Args:
        status: the HTTP status.
        detail: what happened and what to do; never a secret, never what the client sent.
        headers: further fields of the answer.
        problems: each as `Problem.to_json` gives it.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        problems: Sequence[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.problems = problems

    @classmethod
    def too_many(cls, wait: float) -> ApiError:
        """429: the caller is to wait so many seconds."""
        seconds = max(1, math.ceil(wait))  # whole seconds (RFC 9110 section 10.2.3)
        detail = f"more requests than one caller may make: try again in {seconds} s"
        return cls(429, detail, headers={"Retry-After": str(seconds)})

    @classmethod
    def fault(cls, request_id: str | None) -> ApiError:
        """500: the fault is ours, and its reason is for our own log."""
        return cls(500, f"the control plane failed; its log says more of request {request_id}")


def problem_response(error: ApiError, request_id: str | None = None) -> Response:
    """The answer to an error."""
    content: dict[str, Any] = {
        "type": "about:blank",
        "title": _title(error.status),
        "status": error.status,
        "detail": error.detail,
    }
    if request_id is not None:
        content["request_id"] = request_id
    if error.problems is not None:
        content["problems"] = list(error.problems)
    body = json.dumps(content, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
    return Response(body, error.status, error.headers, PROBLEM_JSON)


def of_exception(error: Exception) -> ApiError | None:
    """What a client is told of an exception; None if it is a fault of ours."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, AuthError):
        headers = {"WWW-Authenticate": 'Bearer realm="hms"'} if error.status == 401 else {}  # noqa: PLR2004
        return ApiError(error.status, str(error), headers=headers)
    if isinstance(error, StoreError):
        logger.error("the store failed: %s", error)
        return ApiError(
            503, "the store failed, and nothing has changed: try again; the log says why"
        )
    if isinstance(error, RequestValidationError):
        return _of_fields(error)
    if isinstance(error, ClientDisconnect):
        return ApiError(CLIENT_LEFT, "the client left before its request was complete")
    if isinstance(error, HTTPException):
        return ApiError(
            error.status_code, _detail(error.status_code), headers=dict(error.headers or {})
        )
    return None


_KINDS: Final = (
    *(ApiError, AuthError, StoreError, RequestValidationError, ClientDisconnect, HTTPException),
    Exception,
)


def install(app: FastAPI) -> None:
    """Make an application answer with problem details whatever a client did wrong."""

    def handle(request: Request, error: Exception) -> Response:
        request_id = request.scope.get("state", {}).get("request_id")
        return problem_response(of_exception(error) or ApiError.fault(request_id), request_id)

    for kind in _KINDS:
        app.add_exception_handler(kind, handle)


def _of_fields(error: RequestValidationError) -> ApiError:
    """What is wrong with a request's fields; pydantic's own errors would quote their values."""
    problems = [
        {
            "severity": "error",
            "file": "(request)",
            "line": 1,
            "column": 1,
            "path": _path(found["loc"]),
            "message": _message(found),
            "suggestion": None,
        }
        for found in error.errors()[:_MAX_PROBLEMS]
    ]
    summary = "; ".join(f"{found['path']}: {found['message']}" for found in problems[:3])
    return ApiError(422, f"the request is not understood: {summary}", problems=problems)


def _path(location: Sequence[str | int]) -> str:
    return ".".join(str(part)[:_MAX_NAME] for part in location)


def _message(found: Mapping[str, Any]) -> str:
    """pydantic's message, unless it may quote the input."""
    kind = str(found["type"])
    if kind == "json_invalid":
        return "is not JSON"
    if kind in {"value_error", "assertion_error"} or kind.endswith("_parsing"):
        return "is not of the form that is documented"
    return str(found["msg"])


def _title(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Error"


def _detail(status: int) -> str:
    details = {
        404: "there is nothing here: /docs lists what there is",
        405: "not with this method: /docs lists what there is",
        400: "the request's body cannot be read",
        413: "a request's body may have 4 MiB",
    }
    return details.get(status, _title(status))
