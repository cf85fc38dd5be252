from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Request  # noqa: TC002 - FastAPI reads annotations
from pydantic import BaseModel, ConfigDict

from hms_addons.control.api.frame import MAX_BODY
from hms_addons.control.auth import Kind, Peer
from hms_addons.control.rate_limit import Rate
from tests.fakes.api import FramedRoutes, ask, peer_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SECRET = "hms1.0123456789ab.this-is-the-secret-of-a-token-and-nobody-sees-it"


class Wish(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int


@pytest.fixture(autouse=True)
def _operations(routes: FramedRoutes) -> None:
    @routes.router.get("/v1/bundle", operation_id="get_bundle")
    async def bundle() -> dict[str, str]:
        return {"is": "public"}

    @routes.router.get("/v1/config", operation_id="get_config")
    async def config() -> dict[str, str]:
        return {"is": "secret"}

    @routes.router.post("/v1/tokens", operation_id="create_token")
    async def create(wish: Wish) -> int:
        return wish.count

    @routes.router.put("/v1/config", operation_id="put_config")
    async def put(request: Request) -> int:
        return len(await request.body())

    @routes.router.get("/v1/ca", operation_id="get_ca")
    async def broken() -> None:
        raise RuntimeError(SECRET)


async def test_who_may_is_answered(routes: FramedRoutes) -> None:
    answer = await ask(routes.app(), "GET", "/v1/config", headers=routes.admin)
    assert (answer.status_code, answer.json()) == (200, {"is": "secret"})
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert len(answer.headers["x-request-id"]) == 16


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 401),
        ({"Authorization": "Bearer wrong"}, 401),
        ({"Authorization": f"Bearer {SECRET}"}, 403),
    ],
)
async def test_who_may_not_is_told_so_and_no_more(
    routes: FramedRoutes, headers: dict[str, str], status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    answer = await ask(routes.app(), "GET", "/v1/config", headers=headers)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["request_id"] == answer.headers["x-request-id"]
    assert ("www-authenticate" in answer.headers) == (status == 401)
    assert SECRET not in answer.text + caplog.text
    assert f"{status}, request {problem['request_id']}" in caplog.text


async def test_a_sidecar_is_known_by_its_connection(routes: FramedRoutes) -> None:
    peer = peer_of("claims-svc", routes.clock)
    answer = await ask(routes.app(), "GET", "/v1/config", peer=peer)
    assert answer.status_code == 403
    assert "spiffe://mpsa.mil/svc/claims-svc may not use get_config" in answer.json()["detail"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer stale"}])
async def test_what_is_public_is_answered_whatever_is_shown(
    routes: FramedRoutes, headers: dict[str, str]
) -> None:
    answer = await ask(routes.app(), "GET", "/v1/bundle", headers=headers)
    assert answer.status_code == 200
    bad = Peer(problem="no SVID")
    assert (await ask(routes.app(), "GET", "/v1/bundle", peer=bad)).status_code == 200
    assert (await ask(routes.app(), "GET", "/v1/config", peer=bad)).status_code == 401


async def test_two_authorizations_are_none(routes: FramedRoutes) -> None:
    both = [("Authorization", f"Bearer {routes.token}")] * 2
    assert (await ask(routes.app(), "GET", "/v1/config", headers=both)).status_code == 401


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/no", 404), ("PATCH", "/v1/ca", 405)]
)
async def test_what_is_not_there_is_a_problem_too(
    routes: FramedRoutes, method: str, path: str, status: int
) -> None:
    answer = await ask(routes.app(), method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"


async def test_a_fault_of_ours_is_logged_and_not_told(
    routes: FramedRoutes, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask(routes.app(), "GET", "/v1/ca", headers=routes.admin)
    assert answer.status_code == 500
    assert answer.json()["request_id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert "RuntimeError" not in answer.text
    assert SECRET not in answer.text


# -- bodies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"count": SECRET},
        {"count": 1, "more": SECRET},
        [SECRET],
        SECRET,
        None,
    ],
)
async def test_a_body_that_is_not_understood_is_not_quoted(
    routes: FramedRoutes, body: Any, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await ask(routes.app(), "POST", "/v1/tokens", headers=routes.admin, json=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["problems"][0]["file"] == "(request)"
    assert problem["problems"][0]["path"].startswith("body")
    assert SECRET not in answer.text + caplog.text


async def test_what_is_no_json_is_not_quoted(routes: FramedRoutes) -> None:
    headers = {**routes.admin, "Content-Type": "application/json"}
    answer = await ask(routes.app(), "POST", "/v1/tokens", headers=headers, content=f"{{{SECRET}")
    assert answer.status_code == 422
    assert SECRET not in answer.text


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
async def test_json_must_say_that_it_is(routes: FramedRoutes, kind: str | None) -> None:
    headers = {**routes.admin, **({"Content-Type": kind} if kind else {})}
    answer = await ask(routes.app(), "POST", "/v1/tokens", headers=headers, content='{"count": 1}')
    assert answer.status_code == 415
    assert answer.headers["accept"] == "application/json"


async def test_a_body_of_the_largest_size_is_taken(routes: FramedRoutes) -> None:
    body = b"x" * MAX_BODY
    answer = await ask(routes.app(), "PUT", "/v1/config", headers=routes.admin, content=body)
    assert (answer.status_code, answer.json()) == (200, MAX_BODY)


async def test_a_larger_one_is_refused_unread(routes: FramedRoutes) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1024 * 1024

    headers = {**routes.admin, "Content-Length": str(100 * 1024 * 1024)}
    answer = await ask(routes.app(), "PUT", "/v1/config", headers=headers, content=body())
    assert answer.status_code == 413
    assert "4 MiB" in answer.json()["detail"]
    assert answer.headers["connection"] == "close"
    assert read == 0


async def test_and_one_that_does_not_say_its_size_once_it_is_too_large(
    routes: FramedRoutes,
) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b"x" * 1024 * 1024

    answer = await ask(routes.app(), "PUT", "/v1/config", headers=routes.admin, content=body())
    assert answer.status_code == 413
    assert answer.headers["connection"] == "close"
    assert read == 5


async def test_who_may_not_is_refused_before_the_body_is_read(routes: FramedRoutes) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        read += 1
        yield b"x"

    answer = await ask(routes.app(), "PUT", "/v1/config", content=body())
    assert answer.status_code == 401
    assert answer.headers["connection"] == "close"
    assert read == 0


# -- how often -------------------------------------------------------------------------------------


async def test_a_caller_that_is_too_fast_is_told_when_to_come_again(routes: FramedRoutes) -> None:
    app = routes.app({kind: Rate(0.5, 2) for kind in (None, *Kind)})
    statuses = [(await ask(app, "GET", "/v1/bundle")).status_code for _ in range(3)]
    assert statuses == [200, 200, 429]
    answer = await ask(app, "GET", "/v1/bundle")
    assert answer.headers["retry-after"] == "2"
    assert answer.json()["detail"].endswith("try again in 2 s")
    assert (await ask(app, "GET", "/v1/config", headers=routes.admin)).status_code == 200
    routes.clock.tick(2)
    assert (await ask(app, "GET", "/v1/bundle")).status_code == 200


async def test_guessing_tokens_has_a_bucket_of_its_own(routes: FramedRoutes) -> None:
    rates = {kind: Rate(100, 100) for kind in Kind} | {None: Rate(1, 2)}
    app = routes.app(rates)
    guess = {"Authorization": "Bearer guess"}
    statuses = [(await ask(app, "GET", "/v1/config", headers=guess)).status_code for _ in range(4)]
    assert statuses == [401, 401, 429, 429]
    assert (await ask(app, "GET", "/v1/config", headers=routes.admin)).status_code == 200


async def test_each_service_has_a_bucket_of_its_own(routes: FramedRoutes) -> None:
    app = routes.app({kind: Rate(1, 1) for kind in (None, *Kind)})
    for service, status in (("a-svc", 200), ("a-svc", 429), ("b-svc", 200)):
        peer = peer_of(service, routes.clock)
        assert (await ask(app, "GET", "/v1/bundle", peer=peer)).status_code == status


# -- what is counted and logged --------------------------------------------------------------------


async def test_requests_are_counted_by_operation_and_code(routes: FramedRoutes) -> None:
    app = routes.app()
    await ask(app, "GET", "/v1/config", headers=routes.admin)
    await ask(app, "GET", "/v1/config")
    await ask(app, "GET", "/anything/at/all")
    text = routes.metrics.text().decode()
    assert 'hms_control_requests_total{code="200",operation="get_config"} 1.0' in text
    assert 'hms_control_requests_total{code="401",operation="get_config"} 1.0' in text
    assert 'hms_control_requests_total{code="404",operation="other"} 1.0' in text
    assert "anything" not in text


async def test_who_changed_what_is_logged_and_reading_is_not(
    routes: FramedRoutes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hms_addons")
    app = routes.app()
    await ask(app, "GET", "/v1/config", headers=routes.admin)
    assert caplog.text == ""
    await ask(app, "PUT", f"/v1/config?token={SECRET}", headers=routes.admin, content=b"x")
    assert "admin (192.0.2.7) put_config: 200, request " in caplog.text
    assert SECRET not in caplog.text


async def test_other_scopes_are_passed_on(routes: FramedRoutes) -> None:
    seen: list[str] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["type"])

    app = routes.app()
    app._app = inner
    await app({"type": "lifespan"}, None, None)  # type: ignore[arg-type] # not called
    assert seen == ["lifespan"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/v1/config"), ("POST", "/v1/tokens")])
async def test_a_client_that_leaves_within_its_body_is_no_fault_of_ours(
    routes: FramedRoutes, caplog: pytest.LogCaptureFixture, method: str, path: str
) -> None:
    messages = iter(
        [
            {"type": "http.request", "body": b"half of ", "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> Any:
        return next(messages)

    async def send(message: Any) -> None:
        """Nobody is there."""

    fields = {**routes.admin, "Content-Type": "application/json", "Content-Length": "100"}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "query_string": b"",
        "headers": [(n.lower().encode(), v.encode()) for n, v in fields.items()],
        "state": {},
    }
    await routes.app()(scope, receive, send)
    assert "hms_control_requests_total" in (told := routes.metrics.text().decode())
    assert 'code="5' not in told
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert not [record for record in caplog.records if record.exc_info]
