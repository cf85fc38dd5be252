"""The plugin `rbac` where keys are fetched, or tokens end here."""

from __future__ import annotations

import asyncio
import dataclasses
import random
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.addons.rbac import Rbac
from hms_addons.config.snapshot import JwtProvider
from hms_addons.errors import Flag
from hms_addons.exchange import ANONYMOUS
from tests.addons.test_rbac import (
    CLAIMS,
    PROVIDER,
    ask,
    challenge,
    config,
    plugin_for,
    refusal,
    token,
)
from tests.fakes import pki
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, sent
from tests.fakes.mesh import FakeMesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from hms_addons.exchange import Exchange

FETCHED = JwtProvider(name="id", jwks_uri="http://id.example/keys")
OLD = pki.jwt_key("RS256")
NEW = pki.jwt_key("RS256", "new")


class Issuer:
    """Publishes keys; a plugin that verifies by them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.keys = [OLD]
        self.down = False
        self.asked = 0
        self.mesh = FakeMesh()
        self.plugin = Rbac(
            clock=self.clock,
            environ={},
            rng=random.Random(1),
            transport=httpx.MockTransport(self._answer),
        )

    async def _answer(self, _: httpx.Request) -> httpx.Response:
        self.asked += 1
        if self.down:
            raise httpx.ConnectError("connection refused by 10.1.2.3")
        return httpx.Response(200, content=pki.jwks(*self.keys))

    async def start(self, *providers: JwtProvider) -> None:
        self.plugin.hms_configure(config(providers=providers or (FETCHED,)))
        self.plugin.hms_startup(self.mesh.mesh)
        await self.settle()

    async def settle(self, seconds: float = 0) -> None:
        for _ in range(4):
            await self.clock.advance(seconds)
            seconds = 0

    async def ask(self, key: pki.JwtKey) -> Exchange:
        claims = CLAIMS | {"exp": self.clock.wall() + 86400}
        exchange = make_exchange(headers=[("Authorization", f"Bearer {key.sign(claims)}")])
        waiting = self.plugin.hms_identify(exchange)
        if waiting is not None:
            task = asyncio.ensure_future(waiting)
            await self.settle()
            await task
        return exchange


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    yield made
    await made.plugin.hms_shutdown()
    assert made.clock.pending == 0


async def test_a_token_is_verified_with_fetched_keys(issuer: Issuer) -> None:
    await issuer.start()
    assert (await issuer.ask(OLD)).principal.subject == "sgt-doe"
    assert issuer.asked == 1
    (shown,) = issuer.mesh.shown("rbac")["providers"]
    assert (shown["name"], shown["keys"], shown["problem"]) == ("id", ["key-1"], None)


async def test_a_key_that_the_issuer_has_just_begun_to_use_is_found(issuer: Issuer) -> None:
    await issuer.start()
    issuer.keys = [OLD, NEW]
    await issuer.settle(10)
    assert (await issuer.ask(NEW)).principal.subject == "sgt-doe"
    assert issuer.asked == 2


async def test_an_invented_key_id_is_401(issuer: Issuer) -> None:
    await issuer.start()
    await issuer.settle(10)
    exchange = await issuer.ask(NEW)
    assert refusal(exchange)[:2] == (401, Flag.JWT)
    assert "no key of the issuer fits" in refusal(exchange)[2]
    assert 'error="invalid_token"' in challenge(exchange)


async def test_what_a_withdrawn_key_has_verified_is_forgotten_at_once(issuer: Issuer) -> None:
    await issuer.start()
    assert (await issuer.ask(OLD)).failure is None
    issuer.keys = [NEW]
    await issuer.settle(10)
    assert (await issuer.ask(NEW)).failure is None
    assert refusal(await issuer.ask(OLD))[0] == 401


async def test_while_there_are_no_keys_tokens_are_401_and_the_cause_stays_here(
    issuer: Issuer,
) -> None:
    issuer.down = True
    await issuer.start()
    exchange = await issuer.ask(OLD)
    status, flag, detail = refusal(exchange)
    assert (status, flag) == (401, Flag.JWT)
    assert "the keys of its issuer (provider 'id') are not known yet" in detail
    assert "10.1.2.3" not in detail + challenge(exchange)
    (shown,) = issuer.mesh.shown("rbac")["providers"]
    assert "10.1.2.3" in shown["problem"]
    issuer.down = False
    await issuer.settle(10)
    assert (await issuer.ask(OLD)).failure is None


async def test_a_request_that_waits_for_keys_can_leave(issuer: Issuer) -> None:
    await issuer.start()
    await issuer.settle(10)
    exchange = make_exchange(headers=[("Authorization", NEW.sign(CLAIMS))])
    waiting = issuer.plugin.hms_identify(exchange)
    assert waiting is not None
    task = asyncio.ensure_future(waiting)
    await asyncio.sleep(0)
    task.cancel()
    await issuer.settle()
    assert task.cancelled()
    assert exchange.principal is ANONYMOUS


async def test_keys_outlive_a_change_of_the_configuration(issuer: Issuer) -> None:
    await issuer.start()
    issuer.down = True
    issuer.plugin.hms_configure(config(providers=(FETCHED,), role_order=("A",)))
    await issuer.settle()
    assert (await issuer.ask(OLD)).failure is None
    issuer.plugin.hms_configure(config(providers=(PROVIDER,)))
    issuer.plugin.hms_configure(config(providers=(PROVIDER,)))
    await issuer.settle(3600)
    assert issuer.asked == 1, "nobody asks for what no configuration names"


@pytest.mark.parametrize("form", ["{}", "Bearer {}"])
def test_a_token_of_a_provider_that_does_not_forward_ends_here(form: str) -> None:
    plugin = plugin_for(config(providers=(dataclasses.replace(PROVIDER, forward=False),)))
    given_headers = [("authorization", form.format(token())), ("X-Other", "stays")]
    exchange = ask(plugin, headers=given_headers)
    assert exchange.failure is None
    assert sent(exchange, "Authorization") == []
    assert sent(exchange, "X-Other") == ["stays"]
    assert sent(exchange, "X-Caller-Role") == ["PROGRAM_MANAGER"]


def test_what_is_no_token_goes_on_whatever_the_provider_says() -> None:
    plugin = plugin_for(config(providers=(dataclasses.replace(PROVIDER, forward=False),)))
    assert sent(ask(plugin, "Basic c2d0OmRvZQ=="), "Authorization") == ["Basic c2d0OmRvZQ=="]
