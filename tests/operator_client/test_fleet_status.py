from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.operator_client import fleet_status
from hms_addons.operator_client.client import OperatorClient
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.control_server import pin_of, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOW = FakeClock().wall()

SIDECAR: dict[str, Any] = {
    "id": "a1b2",
    "service": "claims-svc",
    "state": "in sync",
    "version": 17,
    "wanted": 17,
    "reason": "",
    "problems": [],
    "ready": True,
    "address": "10.0.0.7:15006",
    "certificate": {"not_after": NOW + 7200, "serial": "ab"},
    "endpoints": {"usable": 4, "total": 5},
    "breakers_open": [],
    "hms_version": "1",
    "seen": NOW - 3,
}


def fleet(*sidecars: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"config_version": 3, "problems": [], "sidecars": list(sidecars), **more}


def lines(document: dict[str, Any], width: int | None = None) -> list[str]:
    return fleet_status.rendered(document, NOW, width).splitlines()


def test_a_healthy_fleet() -> None:
    heading, row, summary = lines(fleet(SIDECAR))
    assert heading.split() == "SERVICE SIDECAR CONFIG CERTIFICATE ENDPOINTS BREAKERS SEEN".split()
    assert row.split("  ")[0] == "claims-svc"
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        *("claims-svc", "a1b2", "17 in sync", "2 h left", "4/5", "closed", "3 s ago"),
    ]
    assert summary == "ok: 1 sidecar, 1 in sync; config version 3"


@pytest.mark.parametrize(
    "number",
    [
        *(None, "7", float("nan"), float("inf"), 1e308, -1e308),
        pytest.param(10**400, id="huge"),
        pytest.param(-(10**400), id="less than nothing"),
    ],
)
def test_a_number_that_is_none_is_a_question_mark(number: object) -> None:
    sidecar = SIDECAR | {
        "version": number,
        "certificate": {"not_after": number, "serial": "ab"},
        "endpoints": {"usable": number, "total": number},
        "seen": number,
    }
    _, row, _, summary = lines(fleet(sidecar | {"problems": ["is odd"]}))
    assert [cell.strip() for cell in row.split("  ") if cell.strip()] == [
        *("claims-svc", "a1b2", "? in sync", "?", "?/?", "closed", "? ago"),
    ]
    assert summary.startswith("wrong: 1 thing;")


def test_no_sidecar_and_nothing_pushed_is_nothing_wrong() -> None:
    assert lines(fleet(config_version=0)) == ["ok: 0 sidecars, 0 in sync; nothing pushed yet"]


def test_everything_that_is_wrong_has_a_line() -> None:
    refused = {
        **SIDECAR,
        "state": "refused",
        "problems": ["refuses version 18: routes.yaml:3:5: no such cluster"],
        "breakers_open": ["auth-svc"],
        "certificate": None,
        "endpoints": None,
    }
    found = lines(fleet(refused, SIDECAR, problems=["a backup was restored"]))
    assert found[-3:] == [
        "! a backup was restored",
        "! claims-svc/a1b2: refuses version 18: routes.yaml:3:5: no such cluster",
        "wrong: 2 things; 2 sidecars, 1 in sync; config version 3",
    ]
    assert "17 NACK" in found[1]
    assert "auth-svc" in found[1]
    assert "none" in found[1]


def test_a_long_reason_is_cut_and_its_beginning_shown() -> None:
    reason = "refuses version 18:\n" + "\n".join(f"routes.yaml:{n}:1: bad" for n in range(9))
    found = lines(fleet({**SIDECAR, "problems": [reason]}))
    assert "    routes.yaml:3:1: bad" in found
    assert "    … and 5 lines more (--json has them all)" in found


def test_an_expired_certificate_says_so() -> None:
    expired = {**SIDECAR, "certificate": {"not_after": NOW - 130, "serial": "ab"}}
    assert "expired 2 min ago" in lines(fleet(expired))[1]


def test_what_a_sidecar_tells_cannot_steer_the_terminal() -> None:
    evil = {
        **SIDECAR,
        "id": "x\x1b[2J[red]y",
        "breakers_open": ["\x07"],
        "problems": ["\x1b]0;title\x07"],
    }
    text = fleet_status.rendered(fleet(evil), NOW, None)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "[red]" in text


def test_a_terminal_gets_colours_and_a_pipe_none() -> None:
    assert "\x1b[32m" in fleet_status.rendered(fleet(SIDECAR), NOW, 100)
    assert "\x1b" not in fleet_status.rendered(fleet(SIDECAR), NOW, None)


@asynccontextmanager
async def connected(path: str, document: dict[str, Any]) -> AsyncIterator[OperatorClient]:
    async with (
        scripted({("GET", path): (200, document)}) as (url, _),
        OperatorClient(url, "hmsadm1.x", pin_of(pki.bundle()), SYSTEM_CLOCK) as client,
    ):
        yield client


@pytest.mark.parametrize("wrong", [[], ["its certificate is about to expire"]])
async def test_status_is_good_only_if_nothing_is_wrong(wrong: list[str]) -> None:
    document = fleet({**SIDECAR, "problems": wrong})
    async with connected("/v1/sidecars", document) as client:
        outcome = await fleet_status.status(client, FakeClock())
    assert outcome.ok == (not wrong)
    assert outcome.document["ok"] == (not wrong)
    assert outcome.document["wrong"] == [f"claims-svc/a1b2: {problem}" for problem in wrong]
    assert outcome.document["sidecars"] == document["sidecars"]


async def test_services_have_a_line_for_each_instance() -> None:
    instance = {
        "id": "i1",
        "address": "10.0.0.7:15006",
        "version": "v2",
        "weight": 3,
        "zone": "",
        "metadata": {},
    }
    tagged = {**instance, "id": "i2", "metadata": {"team": "blue", "build": "7\x1b[2J[red]"}}
    document = {"services": [{"name": "auth-svc", "instances": [instance, tagged]}]}
    async with connected("/v1/services", document) as client:
        outcome = await fleet_status.services(client)
    assert outcome.text.splitlines()[1].split() == [
        *("auth-svc", "i1", "10.0.0.7:15006", "v2", "3", "-", "-"),
    ]
    assert outcome.text.splitlines()[2].endswith("-     team=blue, build=7\ufffd[2J[red]")
    assert outcome.document == document


async def test_no_services_says_how_they_come() -> None:
    async with connected("/v1/services", {"services": []}) as client:
        assert "sidecars register" in (await fleet_status.services(client)).text
