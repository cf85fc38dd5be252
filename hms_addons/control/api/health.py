"""What says how the control plane is, and what its API is: open to anyone."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse

from hms_addons.control.api import openapi
from hms_addons.control.api.access import PlaneOf
from hms_addons.control.api.guard import GuardedRoute
from hms_addons.control.api.models import Health
from hms_addons.control.api.problems import ApiError
from hms_addons.control.metrics import CONTENT_TYPE

router = APIRouter(route_class=GuardedRoute, tags=["health"])

_PAGE_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"}


@router.get("/healthz", operation_id="get_health", summary="Whether it lives")
async def get_health() -> Health:
    """It answers, so it lives."""
    return Health(status="ok")


@router.get(
    "/readyz",
    operation_id="get_readiness",
    summary="Whether it serves",
    responses={503: {"description": "It does not, and `detail` says why."}},
)
async def get_readiness(plane: PlaneOf) -> Health:
    """Whether the store answers and the process is not about to end."""
    if plane.stopping.is_set():
        raise ApiError(503, "the control plane is about to stop")
    if not await plane.readiness.look():
        raise ApiError(503, "the store does not answer; the log says why")
    return Health(status="ok")


@router.get(
    "/metrics",
    operation_id="get_metrics",
    summary="Metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
async def get_metrics(plane: PlaneOf) -> Response:
    """The control plane's own metrics, in Prometheus' text format."""
    return Response(plane.metrics.text(), media_type=CONTENT_TYPE)


@router.get(
    "/openapi.json",
    operation_id="get_openapi",
    summary="This document",
    responses={200: {"content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def get_openapi(request: Request) -> JSONResponse:
    """The API as an OpenAPI document."""
    return JSONResponse(request.app.openapi())


@router.get(
    "/docs",
    operation_id="get_documentation",
    summary="The API for people",
    response_class=HTMLResponse,
)
async def get_documentation(request: Request) -> HTMLResponse:
    """The same as a page, which loads nothing from elsewhere."""
    return HTMLResponse(openapi.page(request.app.openapi()), headers=_PAGE_HEADERS)
