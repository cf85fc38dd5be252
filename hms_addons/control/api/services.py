"""`/v1/services`: which instances there are; sidecars register their own."""

from __future__ import annotations

from fastapi import APIRouter, Request

from hms_addons.control.api.access import PlaneOf
from hms_addons.control.api.guard import CallerOf, GuardedRoute
from hms_addons.control.api.models import (
    Identifier,
    Instance,
    InstanceInput,
    ServiceList,
    ServiceName,
)
from hms_addons.control.api.problems import ApiError
from hms_addons.control.auth import Kind
from hms_addons.control.registry import Instance as RegisteredInstance
from hms_addons.control.registry import InstanceError, TooManyInstancesError

router = APIRouter(route_class=GuardedRoute, tags=["services"])


@router.put(
    "/v1/services/{service}/instances/{id}",
    operation_id="put_instance",
    summary="Register an instance",
    responses={409: {"description": "The service has as many as its sidecars may register."}},
)
async def put_instance(
    plane: PlaneOf,
    request: Request,
    caller: CallerOf,
    service: ServiceName,
    id: Identifier,  # noqa: A002 - the path says so
    body: InstanceInput,
) -> Instance:
    """Register an instance for its TTL, or renew it by saying the same again."""
    instance = RegisteredInstance(id=id, service=service, **body.model_dump())
    try:
        changed = await plane.registry.register(instance, bounded=caller.kind is not Kind.ADMIN)
    except InstanceError as error:
        raise ApiError(422, str(error)) from error
    except TooManyInstancesError as error:
        raise ApiError(409, str(error)) from error
    request.scope["state"]["routine"] = not changed
    return Instance.model_validate(instance.to_json())


@router.delete(
    "/v1/services/{service}/instances/{id}",
    operation_id="delete_instance",
    status_code=204,
    summary="Deregister an instance",
    responses={404: {"description": "There is no such instance."}},
)
async def delete_instance(
    plane: PlaneOf,
    service: ServiceName,
    id: Identifier,  # noqa: A002 - the path says so
) -> None:
    """Take an instance out: nobody is sent to it any more."""
    if not await plane.registry.deregister(service, id):
        raise ApiError(404, "there is no such instance: it may have run out")


@router.get("/v1/services", operation_id="list_services", summary="All services")
async def list_services(plane: PlaneOf) -> ServiceList:
    """The services that have an instance, by name."""
    return ServiceList.model_validate(
        {
            "services": [
                {"name": name, "instances": [instance.to_json() for instance in instances]}
                for name, instances in plane.registry.services().items()
            ]
        }
    )
