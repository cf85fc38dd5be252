"""Routes that ask the table of permissions before anything of a request is parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Depends, Request
from fastapi.routing import APIRoute

from hms_addons.control.api.problems import ApiError
from hms_addons.control.auth import (
    PERMISSIONS,
    AuthError,
    Caller,
    Kind,
    authorize,
    authorize_service,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from fastapi import Response

NAMES_SERVICE: Final = "service"
"""Name of the path or query parameter that says for which service a request is."""


class GuardedRoute(APIRoute):
    """A route of an operation in `auth.PERMISSIONS`; without a place there it cannot be made."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See FastAPI: its handler, which reads the body first, after a check that does not."""
        handle = super().get_route_handler()
        operation = self.operation_id
        if operation not in PERMISSIONS:
            message = f"{self.path}: the operation {operation!r} has no place in auth.PERMISSIONS"
            raise LookupError(message)

        async def guarded(request: Request) -> Response:
            state = request.scope["state"]
            state["operation"] = operation
            caller = state["caller"]
            if isinstance(caller, AuthError):
                if Kind.ANYONE in PERMISSIONS[operation].kinds:
                    return await handle(request)
                raise caller
            authorize(operation, caller)
            for values in (request.path_params.get(NAMES_SERVICE), *_queried(request)):
                if values is not None:
                    authorize_service(operation, caller, values)
            if self.body_field is not None:
                _check_type(request)
            return await handle(request)

        return guarded


def _check_type(request: Request) -> None:
    """FastAPI would take another type for a JSON text and complain of its content."""
    headers = request.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        detail = "send the body as application/json"
        raise ApiError(415, detail, headers={"Accept": "application/json"})


def _queried(request: Request) -> list[str]:
    return request.query_params.getlist(NAMES_SERVICE)


def _caller(request: Request) -> Caller:
    caller = request.scope["state"]["caller"]
    if isinstance(caller, AuthError):
        raise caller
    found: Caller = caller
    return found


CallerOf = Annotated[Caller, Depends(_caller)]
"""The caller, for a handler that must know."""
