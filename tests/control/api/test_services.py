from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import httpx

    from tests.fakes.plane import RunningPlane

PATH = "/v1/services/auth-svc/instances/i1"
INSTANCE = {"address": "10.0.0.7:15006", "version": "v1", "weight": 3, "zone": "b", "priority": 1}


async def register(control: RunningPlane, **changes: Any) -> httpx.Response:
    return await control.sidecar("auth-svc", "PUT", PATH, json={**INSTANCE, **changes})


async def listed(control: RunningPlane) -> list[dict[str, Any]]:
    return list((await control.admin("GET", "/v1/services")).json()["services"])


async def test_a_sidecar_registers_its_own_service(control: RunningPlane) -> None:
    answer = await register(control, metadata={"rack": "7"})
    assert answer.status_code == 200
    instance = {
        "id": "i1",
        "service": "auth-svc",
        "ttl": 15.0,
        "metadata": {"rack": "7"},
        **INSTANCE,
    }
    assert answer.json() == instance
    assert await listed(control) == [{"name": "auth-svc", "instances": [instance]}]


async def test_and_no_other(control: RunningPlane) -> None:
    for method in ("PUT", "DELETE"):
        answer = await control.sidecar("claims-svc", method, PATH, json=INSTANCE)
        assert answer.status_code == 403
    assert await listed(control) == []


async def test_the_admin_registers_any(control: RunningPlane) -> None:
    assert (await control.admin("PUT", PATH, json=INSTANCE)).status_code == 200


async def test_a_sidecar_too_many_is_refused_and_the_admins_is_not(
    control: RunningPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_addons.control.registry.MAX_INSTANCES", 1)
    assert (await register(control)).status_code == 200
    other = PATH.replace("i1", "i2")
    answer = await control.sidecar("auth-svc", "PUT", other, json=INSTANCE)
    assert answer.status_code == 409
    assert "auth-svc has 1 instances" in answer.json()["detail"]
    assert (await register(control)).status_code == 200
    assert (await control.admin("PUT", other, json=INSTANCE)).status_code == 200


async def test_metadata_of_more_than_four_kibibytes_is_refused(control: RunningPlane) -> None:
    answer = await register(control, metadata={f"k{n:02}": "x" * 130 for n in range(31)})
    assert answer.status_code == 422
    assert "at most 4096" in answer.json()["detail"]


async def test_any_sidecar_may_see_what_there_is(control: RunningPlane) -> None:
    await register(control)
    answer = await control.sidecar("claims-svc", "GET", "/v1/services")
    assert len(answer.json()["services"]) == 1
    assert (await control.ask("GET", "/v1/services")).status_code == 401


async def test_a_renewal_is_not_logged_and_a_change_is(
    control: RunningPlane, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "hms_addons")
    await register(control)
    assert "put_instance: 200" in caplog.text
    caplog.clear()
    await register(control)
    assert caplog.text == ""


async def test_who_is_not_renewed_is_gone(control: RunningPlane) -> None:
    await register(control, ttl=5)
    await control.clock.advance(4)
    await register(control, ttl=5)
    await control.clock.advance(4)
    assert len(await listed(control)) == 1
    await control.clock.advance(2)
    for _ in range(50):
        if not await listed(control):
            break
    assert await listed(control) == []


async def test_deregistering(control: RunningPlane) -> None:
    await register(control)
    answer = await control.sidecar("auth-svc", "DELETE", PATH)
    assert (answer.status_code, answer.content) == (204, b"")
    assert (await control.sidecar("auth-svc", "DELETE", PATH)).status_code == 404
    assert await listed(control) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"address": "nowhere"},
        {"address": "h:0"},
        {"address": "h:99999"},
        {"weight": -1},
        {"priority": 101},
        {"id": "x"},
    ],
)
async def test_what_no_sidecar_could_use_is_refused(
    control: RunningPlane, changes: dict[str, Any]
) -> None:
    assert (await register(control, **changes)).status_code == 422
    assert await listed(control) == []


@pytest.mark.parametrize("id", ["..", "a%2Fb", "%00", "a b", "x" * 200])
async def test_ids_are_one_plain_segment(control: RunningPlane, id: str) -> None:  # noqa: A002
    answer = await control.admin("PUT", f"/v1/services/auth-svc/instances/{id}", json=INSTANCE)
    assert answer.status_code in {404, 405, 422}
