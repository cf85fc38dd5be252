from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.operator_client import trust_commands as commands
from hms_addons.operator_client.client import OperatorClient, OperatorError
from tests.fakes import pki
from tests.fakes.ca_document import CA, ROOT, ROTATING
from tests.fakes.clock import FakeClock
from tests.fakes.control_server import Answers, Scripted, pin_of, scripted

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

CLOCK = FakeClock()
NOW = CLOCK.wall()

TOKEN = {"id": "1f2e3d4c5b6a", "service": "auth-svc", "created": NOW - 60, "used": None}


@asynccontextmanager
async def connected(answers: Answers) -> AsyncIterator[tuple[OperatorClient, Scripted]]:
    async with scripted(answers) as (url, app):
        client = OperatorClient(url, "hmsadm1.token", pin_of(pki.bundle()), SYSTEM_CLOCK)
        async with client:
            yield client, app


async def test_a_new_token_is_the_whole_text() -> None:
    made = {"token": "hms1.1f2e3d4c5b6a.secret", "id": TOKEN["id"], "expires": NOW + 600}
    async with connected({("POST", "/v1/tokens"): (201, made)}) as (client, app):
        outcome = await commands.create_token(client, "auth-svc", 600.0)
    assert outcome.text == "hms1.1f2e3d4c5b6a.secret"
    assert outcome.document == made
    assert json.loads(app.asked[-1][3]) == {"service": "auth-svc", "ttl": 600.0}


async def test_tokens_are_listed_with_their_states() -> None:
    listed = [
        {**TOKEN, "state": "valid", "expires": NOW + 540},
        {**TOKEN, "state": "used", "expires": NOW + 540, "used": NOW - 30},
        {**TOKEN, "state": "expired", "expires": NOW - 7200},
    ]
    async with connected({("GET", "/v1/tokens"): (200, {"tokens": listed})}) as (client, _):
        outcome = await commands.list_tokens(client, CLOCK)
    assert outcome.text.splitlines() == [
        "1f2e3d4c5b6a  auth-svc  valid for 9 min",
        "1f2e3d4c5b6a  auth-svc  used 30 s ago",
        "1f2e3d4c5b6a  auth-svc  expired 2 h ago",
    ]


async def test_no_token_is_said() -> None:
    async with connected({("GET", "/v1/tokens"): (200, {"tokens": []})}) as (client, _):
        assert "hms token create" in (await commands.list_tokens(client, CLOCK)).text


async def test_a_token_is_revoked_by_its_id_and_nothing_else() -> None:
    answers: Answers = {("DELETE", "/v1/tokens/1f2e3d4c5b6a"): (204, b"")}
    async with connected(answers) as (client, _):
        outcome = await commands.revoke_token(client, "1f2e3d4c5b6a")
    assert outcome.text == "ok: the token 1f2e3d4c5b6a is revoked"
    answers = {("DELETE", "/v1/tokens/a/../b"): (404, {"detail": "there is no token"})}
    async with connected(answers) as (client, app):
        with pytest.raises(OperatorError, match="there is no token"):
            await commands.revoke_token(client, "a/../b")
    assert app.asked[-1][1] == "/v1/tokens/a/../b", "as one segment, which the server has decoded"


async def test_the_ca_at_rest() -> None:
    async with connected({("GET", "/v1/ca"): (200, CA)}) as (client, _):
        outcome = await commands.show_ca(client, CLOCK)
    assert outcome.document == CA
    assert outcome.text.splitlines() == [
        "trust domain  mpsa.mil",
        f"pin           {ROOT['pin']}",
        "phase         steady: no rotation is under way",
        "SVIDs live    24 h",
        (
            "root          sha256:abababababababab… signs, 3650 d left; its intermediate "
            "cdcdcdcdcdcd…, 365 d left"
        ),
    ]


async def test_a_rotation_under_way_says_what_it_waits_for() -> None:
    async with connected({("POST", "/v1/ca/rotate-root"): (202, ROTATING)}) as (client, app):
        outcome = await commands.rotate_root(client, CLOCK, now=False, overlap=60.0)
    assert json.loads(app.asked[-1][3]) == {"now": False, "overlap": 60.0}
    text = outcome.text
    assert f"next pin      sha256:{'ef' * 32}  (once the old root is retired)" in text
    assert "phase         announced: the new root is announced and signs nothing yet" in text
    assert "at most until 2027-01-16T08:00:00Z (24 h)" in text
    assert "waiting for   a1b2, c3d4" in text
    assert "efefefefefefefef… is trusted" in text
