from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.operator_client.client import Answer, OperatorClient, RefusedError
from hms_addons.up.control_plane import ControlPlane, RefusedConfigError, hms
from hms_addons.up.run_state import RunState
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path

PIN = "sha256:" + "a" * 64
PROBLEM = {"file": "m.yaml", "line": 3, "column": 5, "message": "no", "severity": "error"}


@pytest.fixture
def state(tmp_path: Path) -> RunState:
    return RunState(tmp_path / "mesh.yaml")


@pytest.fixture
def plane(state: RunState) -> ControlPlane:
    return ControlPlane(state, 15010, FakeClock())


def test_the_command_is_this_pythons_own() -> None:
    assert hms("control")[-1] == "control"


def test_its_first_words_are_ours_and_never_shown(plane: ControlPlane, state: RunState) -> None:
    for line in (
        "# control plane of x",
        "export HMS_CONTROL=https://…",
        f"export HMS_CA_PIN={PIN}",
    ):
        assert plane.heard(line)
        assert not plane.ready.is_set()
    assert plane.heard("export HMS_ADMIN_TOKEN=secret    # shown this once")
    assert plane.ready.is_set()
    assert (plane.pin, state.admin_token) == (PIN, "secret")
    assert not plane.heard("WARNING something else")
    assert not plane.heard("export nothing")


def test_later_starts_show_no_token(plane: ControlPlane, state: RunState) -> None:
    state.admin_token = "secret"
    assert plane.heard(f"export HMS_CA_PIN={PIN}")
    assert plane.ready.is_set()


def test_a_lost_token_is_made_anew_and_an_old_one_forgotten(
    plane: ControlPlane, state: RunState
) -> None:
    state.admin_token = "of a control plane that is no more"
    words = plane.command("x.org", 60.0)
    assert words[words.index("--svid-lifetime") + 1] == "60s"
    assert "--reset-admin-token" not in words
    assert state.admin_token is None
    state.control.mkdir(parents=True)
    assert "--reset-admin-token" in plane.command("x.org", 60.0)
    state.admin_token = "secret"
    assert "--reset-admin-token" not in plane.command("x.org", 60.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, plane: ControlPlane, state: RunState) -> list[Any]:
    """What it asks; the first item says what is answered."""
    plane.pin, state.admin_token = PIN, "secret"
    calls: list[Any] = [b"{}"]

    async def ask(_: OperatorClient, method: str, path: str, **options: Any) -> Answer:
        calls.append((method, path, options.get("json")))
        if isinstance(calls[0], Exception):
            raise calls[0]
        return Answer(200, {}, calls[0])

    async def entered(client: OperatorClient) -> OperatorClient:
        return client

    monkeypatch.setattr(OperatorClient, "ask", ask)
    monkeypatch.setattr(OperatorClient, "__aenter__", entered)
    return calls


async def test_a_configuration_is_pushed(plane: ControlPlane, asked: list[Any]) -> None:
    asked[0] = b'{"version": 2, "changed": true}'
    assert await plane.push([("m.yaml", "zone: a")]) == 2
    body = {"files": [{"name": "m.yaml", "content": "zone: a"}]}
    assert asked[1:] == [("PUT", "/v1/config", body)]
    asked[0] = b'{"version": 2, "changed": false}'
    assert await plane.push([]) is None


async def test_a_refusal_is_told_with_its_places(plane: ControlPlane, asked: list[Any]) -> None:
    asked[0] = RefusedError("no", 422, {"problems": [PROBLEM, {"severity": "warning"}]})
    with pytest.raises(RefusedConfigError, match=r"^m\.yaml:3:5: no$"):
        await plane.push([])
    asked[0] = RefusedError("busy", 503, {})
    with pytest.raises(RefusedError, match="busy"):
        await plane.push([])


async def test_a_join_token_is_for_one_service(plane: ControlPlane, asked: list[Any]) -> None:
    asked[0] = b'{"token": "join"}'
    assert await plane.join_token("auth-svc") == "join"
    assert asked[1][2]["service"] == "auth-svc"


async def test_a_fleet_agrees_once_all_have_the_configuration_and_are_listed(
    plane: ControlPlane, asked: list[Any]
) -> None:
    fleet = [("in sync", "1.1.1.1:1"), ("in sync", ""), ("behind", "1.1.1.1:2"), ("refused", "x:3")]
    told = [{"state": state, "address": address} for state, address in fleet]
    asked[0] = json.dumps({"sidecars": told}).encode()
    assert await plane.agrees(3, 2)
    assert not await plane.agrees(4, 2), "one is behind"
    assert not await plane.agrees(3, 3), "one is not listed"
    asked[0] = RefusedError("busy", 503, {})
    assert not await plane.agrees(0, 0)
