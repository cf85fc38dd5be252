from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.tasks import TaskSet
from tests.fakes.cli import GOOD

if TYPE_CHECKING:
    import httpx

    from tests.fakes.plane import RunningPlane

SNAPSHOT = "/v1/snapshot?service=auth-svc"
YAML = {"Content-Type": "application/yaml"}


async def push(control: RunningPlane, text: str = GOOD) -> None:
    answer = await control.admin("PUT", "/v1/config", content=text, headers=YAML)
    assert answer.status_code == 200
    version = answer.json()["version"]
    # It is read anew in a thread; what is published at most every so often needs the clock to go on.
    async with asyncio.timeout(30):
        while control.plane.snapshots.get("auth-svc").config_version != version:
            await control.clock.advance(0.1)


async def snapshot(
    control: RunningPlane, etag: str | None = None, wait: str = ""
) -> httpx.Response:
    headers = {} if etag is None else {"If-None-Match": etag}
    path = f"{SNAPSHOT}&wait={wait}" if wait else SNAPSHOT
    return await control.sidecar("auth-svc", "GET", path, headers=headers)


def report_of(snapshot: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        "service": "auth-svc",
        "version": snapshot["version"],
        "digest": snapshot["digest"],
        "state": "ack",
        "ready": True,
        **changes,
    }


async def report(control: RunningPlane, body: dict[str, Any], id_: str = "s1") -> httpx.Response:
    return await control.sidecar("auth-svc", "POST", f"/v1/sidecars/{id_}/report", json=body)


async def fleet(control: RunningPlane) -> dict[str, Any]:
    answer = await control.admin("GET", "/v1/sidecars")
    assert answer.status_code == 200
    return dict(answer.json())


# -- snapshots -------------------------------------------------------------------------------------


async def test_a_sidecar_gets_its_configuration(control: RunningPlane) -> None:
    await push(control)
    answer = await snapshot(control)
    assert answer.status_code == 200
    found = answer.json()
    assert found["service"] == "auth-svc"
    assert found["document"]["service"] == "auth-svc"
    assert found["config_version"] == 1
    assert answer.headers["etag"] == f'"{found["version"]}.{found["digest"]}.{found["history"]}"'


async def test_what_it_has_is_not_sent_again(control: RunningPlane) -> None:
    etag = (await snapshot(control)).headers["etag"]
    again = await snapshot(control, etag)
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    same_content = '"1.' + etag.partition(".")[2]
    assert (await snapshot(control, same_content)).status_code == 304
    assert (await snapshot(control, '"1.000000000000"')).status_code == 200
    assert (await snapshot(control, "nonsense")).status_code == 200


async def test_what_is_new_is_sent_at_once_also_to_one_that_waits(control: RunningPlane) -> None:
    assert (await snapshot(control, wait="30s")).status_code == 200
    assert (await snapshot(control, '"1.000000000000"', wait="30s")).status_code == 200


class Waiting:
    """A sidecar that waits for a change."""

    def __init__(self, control: RunningPlane, etag: str) -> None:
        self.tasks = TaskSet("test")
        self.answer = self.tasks.start(snapshot(control, etag, "30s"), "wait")


async def waiting(control: RunningPlane) -> Waiting:
    made = Waiting(control, (await snapshot(control)).headers["etag"])
    async with asyncio.timeout(10):
        while "hms_control_watchers 1.0" not in control.plane.metrics.text().decode():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
    return made


async def test_one_that_waits_is_told_when_something_changes(control: RunningPlane) -> None:
    waiter = await waiting(control)
    await push(control)
    answer = await asyncio.wait_for(waiter.answer, 10)
    assert answer.status_code == 200
    assert answer.json()["config_version"] == 1


async def test_or_that_nothing_has_when_its_time_is_up(control: RunningPlane) -> None:
    waiter = await waiting(control)
    await control.clock.advance(31)
    assert (await asyncio.wait_for(waiter.answer, 10)).status_code == 304


async def test_or_when_the_control_plane_stops(control: RunningPlane) -> None:
    waiter = await waiting(control)
    control.plane.stopping.set()
    assert (await asyncio.wait_for(waiter.answer, 10)).status_code == 304


@pytest.mark.parametrize("wait", ["forever", "-1s", "1h", "1e9s", "9999999s", "s"])
async def test_waits_that_are_none_are_refused(control: RunningPlane, wait: str) -> None:
    assert (await snapshot(control, wait=wait)).status_code == 422


@pytest.mark.parametrize("wait", ["0", "0s", "5", "250ms", "1.5s", "1m", "999999s"])
async def test_waits_that_are_some_are_taken(control: RunningPlane, wait: str) -> None:
    assert (await snapshot(control, wait=wait)).status_code == 200


@pytest.mark.parametrize(("service", "status"), [("claims-svc", 403), ("auth-svc", 200), ("", 403)])
async def test_it_gets_its_own_services_and_no_other(
    control: RunningPlane, service: str, status: int
) -> None:
    path = f"/v1/snapshot?service={service}"
    assert (await control.sidecar("auth-svc", "GET", path)).status_code == status
    assert (await control.ask("GET", path)).status_code == 401


async def test_the_admin_may_look_at_any(control: RunningPlane) -> None:
    assert (await control.admin("GET", SNAPSHOT)).json()["service"] == "auth-svc"


# -- reports and the fleet -------------------------------------------------------------------------


async def test_a_sidecar_in_sync(control: RunningPlane) -> None:
    await push(control)
    body = report_of(
        (await snapshot(control)).json(),
        certificate={"not_after": control.clock.wall() + 3600, "serial": "ab"},
        endpoints={"usable": 2, "total": 3},
        bundle_sequence=1,
    )
    answer = await report(control, body)
    assert answer.json() == {"bundle_sequence": 1}
    found = await fleet(control)
    assert found["config_version"] == 1
    assert found["problems"] == []
    (row,) = found["sidecars"]
    assert (row["id"], row["service"], row["state"]) == ("s1", "auth-svc", "in sync")
    assert row["problems"] == []
    assert row["endpoints"] == {"usable": 2, "total": 3}


async def test_one_that_refuses(control: RunningPlane) -> None:
    body = report_of((await snapshot(control)).json(), state="nack", reason="a.yaml:3:1: bad")
    await report(control, body)
    (row,) = (await fleet(control))["sidecars"]
    assert row["state"] == "refused"
    assert "a.yaml:3:1: bad" in row["problems"][0]


async def test_one_whose_certificate_is_about_to_expire(control: RunningPlane) -> None:
    certificate = {"not_after": control.clock.wall() + 100, "serial": "ab"}
    body = report_of((await snapshot(control)).json(), certificate=certificate)
    await report(control, body)
    assert (await fleet(control))["sidecars"][0]["problems"] == []
    for _ in range(9):
        await control.clock.advance(9)
        await report(control, body)
    (problem,) = (await fleet(control))["sidecars"][0]["problems"]
    assert "expires in 19 s" in problem


async def test_one_that_is_gone_and_one_that_said_goodbye(control: RunningPlane) -> None:
    body = report_of((await snapshot(control)).json())
    await report(control, body, "crashed")
    await report(control, body, "drained")
    path = "/v1/sidecars/drained?service=auth-svc"
    assert (await control.sidecar("auth-svc", "DELETE", path)).status_code == 204
    await control.clock.advance(31)
    async with asyncio.timeout(10):
        while (found := (await fleet(control))["sidecars"])[0]["state"] != "gone":  # noqa: ASYNC110
            await asyncio.sleep(0)
    assert [row["id"] for row in found] == ["crashed"]
    assert "is gone" in found[0]["problems"][0]


async def test_a_sidecar_reports_for_itself_only(control: RunningPlane) -> None:
    body = report_of((await snapshot(control)).json())
    await report(control, body)
    foreign = {**body, "service": "claims-svc"}
    assert (await report(control, foreign)).status_code == 403
    path = "/v1/sidecars/s1/report"
    taken = await control.sidecar("claims-svc", "POST", path, json=foreign)
    assert taken.status_code == 200
    assert (await control.admin("POST", path, json=body)).status_code == 403
    bye = "/v1/sidecars/s1?service=auth-svc"
    assert (await control.sidecar("claims-svc", "DELETE", bye)).status_code == 403
    other = "/v1/sidecars/s1?service=claims-svc"
    rows = (await fleet(control))["sidecars"]
    assert [(row["service"], row["id"]) for row in rows] == [
        ("auth-svc", "s1"),
        ("claims-svc", "s1"),
    ]
    assert (await control.sidecar("claims-svc", "DELETE", other)).status_code == 204
    assert [row["service"] for row in (await fleet(control))["sidecars"]] == ["auth-svc"]


async def test_more_sidecars_than_a_service_may_have_are_refused(
    control: RunningPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hms_addons.control.fleet.MAX_SIDECARS", 1)
    body = report_of((await snapshot(control)).json())
    assert (await report(control, body, "s1")).status_code == 200
    answer = await report(control, body, "s2")
    assert answer.status_code == 409
    assert "sidecars of auth-svc report, and no more" in answer.json()["detail"]
    assert (await report(control, body, "s1")).status_code == 200


async def test_reports_are_not_logged(
    control: RunningPlane, caplog: pytest.LogCaptureFixture
) -> None:
    body = report_of((await snapshot(control)).json())
    caplog.set_level(logging.INFO, "hms_addons.control.api")
    await report(control, body)
    assert caplog.text == ""


@pytest.mark.parametrize(
    "change",
    [{"version": 2**60}, {"version": -1}, {"state": "?"}, {"more": 1}, {"reason": "x" * 20_000}],
)
async def test_what_cannot_be_reported_is_refused(
    control: RunningPlane, change: dict[str, Any]
) -> None:
    body = report_of((await snapshot(control)).json(), **change)
    assert (await report(control, body)).status_code in {409, 422}
    assert (await fleet(control))["sidecars"] == []


@pytest.mark.parametrize("when", ["NaN", "Infinity", "-Infinity", "1e999", "1e308"])
async def test_a_time_that_is_none_is_refused_and_spoils_nobodys_view_of_the_fleet(
    control: RunningPlane, when: str
) -> None:
    body = report_of((await snapshot(control)).json(), certificate={"not_after": 7, "serial": "a"})
    content = json.dumps(body).replace("7", when)
    headers = {"Content-Type": "application/json"}
    path = "/v1/sidecars/s1/report"
    answer = await control.sidecar("auth-svc", "POST", path, content=content, headers=headers)
    assert answer.status_code == 422
    assert (await fleet(control))["sidecars"] == []
