from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fastapi import APIRouter

from hms_addons.control.api.guard import CallerOf, GuardedRoute
from tests.fakes.api import FramedRoutes, ask, peer_of

if TYPE_CHECKING:
    from hms_addons.control.auth import Peer


@pytest.fixture(autouse=True)
def _operations(routes: FramedRoutes) -> None:
    @routes.router.get("/v1/snapshot", operation_id="get_snapshot")
    async def snapshot(service: str, caller: CallerOf) -> list[str | None]:
        return [service, caller.service]

    @routes.router.put("/v1/services/{service}/instances/{id}", operation_id="put_instance")
    async def instance(service: str, id: str) -> str:  # noqa: A002 - the path says so
        return service + id

    @routes.router.get("/v1/bundle", operation_id="get_bundle")
    async def bundle(caller: CallerOf) -> str:
        return caller.name


@pytest.fixture
def claims(routes: FramedRoutes) -> Peer:
    return peer_of("claims-svc", routes.clock)


@pytest.mark.parametrize("operation", [None, "", "unknown_operation"])
def test_a_route_without_a_place_in_the_table_cannot_be_made(operation: str | None) -> None:
    router = APIRouter(route_class=GuardedRoute)

    async def open_to_all() -> str:
        return "secret"

    with pytest.raises(LookupError, match=r"/secret: the operation .* has no place"):
        router.get("/secret", operation_id=operation)(open_to_all)


async def test_a_sidecar_asks_for_its_own_service(routes: FramedRoutes, claims: Peer) -> None:
    answer = await ask(routes.app(), "GET", "/v1/snapshot?service=claims-svc", peer=claims)
    assert answer.json() == ["claims-svc", "claims-svc"]


@pytest.mark.parametrize(
    "path",
    [
        "/v1/snapshot?service=auth-svc",
        "/v1/snapshot?service=claims-svc&service=auth-svc",
        "/v1/snapshot?service=auth-svc&service=claims-svc",
        "/v1/snapshot?service=Claims-SVC",
        "/v1/snapshot?service=",
        "/v1/snapshot?service=claims-svc%00",
    ],
)
async def test_and_for_no_other(routes: FramedRoutes, claims: Peer, path: str) -> None:
    answer = await ask(routes.app(), "GET", path, peer=claims)
    assert answer.status_code == 403
    assert "is claims-svc, and may not use get_snapshot" in answer.json()["detail"]


@pytest.mark.parametrize(("service", "status"), [("claims-svc", 200), ("auth-svc", 403)])
async def test_a_service_in_the_path_counts_too(
    routes: FramedRoutes, claims: Peer, service: str, status: int
) -> None:
    path = f"/v1/services/{service}/instances/7"
    assert (await ask(routes.app(), "PUT", path, peer=claims)).status_code == status
    beside = f"/v1/services/claims-svc/instances/7?service={service}"
    assert (await ask(routes.app(), "PUT", beside, peer=claims)).status_code == status


async def test_the_admin_asks_for_any(routes: FramedRoutes) -> None:
    path = "/v1/snapshot?service=auth-svc"
    answer = await ask(routes.app(), "GET", path, headers=routes.admin)
    assert answer.json() == ["auth-svc", None]


async def test_a_handler_that_must_know_the_caller_takes_no_bad_credential(
    routes: FramedRoutes,
) -> None:
    bad = {"Authorization": "Bearer bad"}
    assert (await ask(routes.app(), "GET", "/v1/bundle", headers=bad)).status_code == 401
    assert (await ask(routes.app(), "GET", "/v1/bundle")).json() == "192.0.2.7"
