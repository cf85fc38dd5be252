"""`/v1/snapshot` and `/v1/sidecars`: what sidecars are told, and what they tell."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Header, Query, Request, Response

from hms_addons.config.schema_base import parse_duration
from hms_addons.control.api.access import PlaneOf
from hms_addons.control.api.guard import CallerOf, GuardedRoute
from hms_addons.control.api.models import (
    FleetStatus,
    Identifier,
    ReportAnswer,
    ServiceName,
    SidecarReport,
    Snapshot,
)
from hms_addons.control.api.problems import ApiError
from hms_addons.control.api.waiting import wait_for
from hms_addons.control.auth import authorize_service
from hms_addons.control.fleet import FleetError

router = APIRouter(route_class=GuardedRoute, tags=["sidecars"])

MAX_WAIT: Final = 60.0
"""Seconds; whoever wants to wait longer asks again."""

HELD: Final = (
    "this control plane was restored from a backup and knows nothing of the snapshot that you have: "
    "keep it; the next configuration that is pushed is sent to you"
)
_ETAG: Final = {"ETag": {"description": "Of the snapshot.", "schema": {"type": "string"}}}

Wait = Annotated[
    str,
    Query(
        pattern=r"^[0-9]{1,6}(\.[0-9]{1,3})?(ms|s|m)?$",
        description=f"How long to wait for a change, at most {MAX_WAIT:g} s: as `30s`.",
        examples=["30s"],
    ),
]
IfNoneMatch = Annotated[
    str | None,
    Header(alias="If-None-Match", description="The ETag of the one you have.", max_length=200),
]


@router.get(
    "/v1/snapshot",
    operation_id="get_snapshot",
    summary="A service's configuration",
    response_model=Snapshot,
    responses={
        200: {"headers": _ETAG},
        304: {"description": "It is the one that you have; nothing has changed in the time."},
        409: {
            "description": "You have one that this control plane knows nothing of: a backup was "
            "restored. Keep it; the next configuration that is pushed is sent to you."
        },
    },
)
async def get_snapshot(
    plane: PlaneOf,
    request: Request,
    service: Annotated[ServiceName, Query()],
    wait: Wait = "0s",
    if_none_match: IfNoneMatch = None,
) -> Response:
    """The configuration of one service's sidecars, scoped to it and complete.

    With `If-None-Match`, it is answered at once if that is not the newest; else when it changes,
    or with 304 when the time is up.
    """
    seconds = _seconds(wait)
    news = plane.snapshots.news(service, if_none_match)
    if news is None and seconds > 0:
        news = await wait_for(plane, request, plane.snapshots.wait(service, if_none_match), seconds)
    if news is None and plane.snapshots.holds(service, if_none_match):
        raise ApiError(409, HELD)
    headers = {"ETag": (news or plane.snapshots.get(service)).etag}
    if news is None:
        return Response(status_code=304, headers=headers)
    return Response(news.body, headers=headers, media_type="application/json")


def _seconds(wait: str) -> float:
    try:
        return min(MAX_WAIT, parse_duration(wait if wait[-1:].isalpha() else f"{wait}s"))
    except ValueError:
        return 0.0  # `0s`, which is no duration elsewhere


@router.post(
    "/v1/sidecars/{id}/report",
    operation_id="report_sidecar",
    summary="A sidecar says how it is",
    responses={409: {"description": "The service has as many sidecars as are listened to."}},
)
async def report_sidecar(
    plane: PlaneOf,
    request: Request,
    caller: CallerOf,
    id: Identifier,  # noqa: A002 - the path says so
    body: SidecarReport,
) -> ReportAnswer:
    """Acknowledge or refuse a snapshot, and tell of certificate, endpoints and breakers.

    A report lives for 30 s: report on every change, and every 10 s.
    """
    authorize_service("report_sidecar", caller, body.service)
    request.scope["state"]["routine"] = True
    try:
        await plane.fleet.report(id, body.service, body.model_dump())
    except FleetError as error:
        raise ApiError(409, str(error)) from error
    return ReportAnswer(bundle_sequence=plane.authority.bundle.sequence or 0)


@router.delete(
    "/v1/sidecars/{id}",
    operation_id="remove_sidecar",
    status_code=204,
    summary="A sidecar says goodbye",
)
async def remove_sidecar(
    plane: PlaneOf,
    id: Identifier,  # noqa: A002 - the path says so
    service: Annotated[ServiceName, Query()],
) -> None:
    """Forget a sidecar that leaves in order; without it, it is shown as gone for an hour."""
    await plane.fleet.leave(id, service)


@router.get("/v1/sidecars", operation_id="list_sidecars", summary="The fleet")
async def list_sidecars(plane: PlaneOf) -> FleetStatus:
    """Every sidecar, whether it has what it should, and all that is wrong."""
    return FleetStatus.model_validate(plane.fleet.status())
