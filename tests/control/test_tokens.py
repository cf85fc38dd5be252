from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hms_addons.control.tokens import (
    DEFAULT_TTL,
    MAX_TTL,
    REMEMBERED,
    JoinTokens,
    TokenError,
)
from tests.fakes.clock import FakeClock
from tests.fakes.faulty_store import FaultyStore, faulty_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


class Rig:
    def __init__(self, store: FaultyStore, clock: FakeClock) -> None:
        self.clock = clock
        self.store = store
        self.tokens = JoinTokens(store, clock)

    async def refused(self, text: str, service: str = "auth-svc") -> str:
        """Why a token does not let in; it changes nothing, and the token is not quoted."""
        before = await self.store.list("")
        with pytest.raises(TokenError) as caught:
            await self.tokens.spend(text, service)
        with pytest.raises(TokenError) as checked:
            await self.tokens.check(text, service)
        assert str(checked.value) == str(caught.value)
        assert await self.store.list("") == before
        secret = text.rpartition(".")[2]
        assert len(secret) < 20 or secret not in str(caught.value)
        return str(caught.value)


@pytest.fixture
async def rig(tmp_path: Path) -> AsyncIterator[Rig]:
    clock = FakeClock()
    async with faulty_store(tmp_path, clock) as store:
        yield Rig(store, clock)


async def test_a_token_is_good_for_its_service_once(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc")
    assert made.text.startswith(f"hms1.{made.token.id}.")
    assert made.token.expires == rig.clock.wall() + DEFAULT_TTL
    assert await rig.tokens.check(made.text, "auth-svc") == made.token
    spent = await rig.tokens.spend(made.text, "auth-svc")
    assert spent.token.used == rig.clock.wall()
    assert "has been used at 2027-01-15T08:00:00Z" in await rig.refused(made.text)


async def test_of_two_at_once_one_gets_it(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc")
    results = await asyncio.gather(
        *(rig.tokens.spend(made.text, "auth-svc") for _ in range(8)), return_exceptions=True
    )
    lost = [result for result in results if isinstance(result, TokenError)]
    assert len(lost) == 7
    assert all("has been used" in str(error) for error in lost)


async def test_an_expired_token_is_told_so(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc", 60)
    rig.clock.step(60)
    await rig.tokens.check(made.text, "auth-svc")
    rig.clock.step(1)
    message = await rig.refused(made.text)
    assert "expired at 2027-01-15T08:01:00Z" in message
    assert "hms token create --service auth-svc" in message


async def test_a_token_for_another_service_is_told_so_and_stays_good(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc")
    assert "is for 'auth-svc', not 'payments-svc'" in await rig.refused(made.text, "payments-svc")
    with pytest.raises(TokenError) as caught:
        await rig.tokens.check(made.text, "payments-svc")
    assert caught.value.known
    await rig.tokens.spend(made.text, "auth-svc")


async def test_a_token_that_is_none_of_ours(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc")
    other = await rig.tokens.create("auth-svc")
    await rig.tokens.revoke(other.token.id)
    assert "not known here" in await rig.refused(other.text)
    swapped = f"hms1.{other.token.id}.{made.text.rpartition('.')[2]}"
    assert "not known here" in await rig.refused(swapped)
    for junk in ("", "hms1", made.text[:-1], made.text + "\n", f" {made.text}", "x" * 100_000):
        assert "is no join token" in await rig.refused(junk)


async def test_a_token_can_be_given_back(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc")
    spent = await rig.tokens.spend(made.text, "auth-svc")
    await rig.tokens.give_back(spent)
    again = await rig.tokens.spend(made.text, "auth-svc")
    await rig.tokens.revoke(made.token.id)
    await rig.tokens.give_back(again)
    assert "not known here" in await rig.refused(made.text)


async def test_a_revoked_token_lets_nobody_in(rig: Rig) -> None:
    made, kept = await rig.tokens.create("auth-svc"), await rig.tokens.create("auth-svc")
    assert await rig.tokens.revoke(made.token.id) == made.token
    assert await rig.tokens.revoke(made.token.id) is None
    assert "not known here" in await rig.refused(made.text)
    await rig.tokens.spend(kept.text, "auth-svc")


async def test_the_list_has_all_with_their_states_and_no_secret(rig: Rig) -> None:
    used = await rig.tokens.create("auth-svc")
    await rig.tokens.spend(used.text, "auth-svc")
    rig.clock.step(1)
    expired = await rig.tokens.create("claims-svc", 10)
    rig.clock.step(11)
    valid = await rig.tokens.create("payments-svc")
    listed = await rig.tokens.list()
    assert [token.id for token in listed] == [valid.token.id, expired.token.id, used.token.id]
    now = rig.clock.wall()
    assert [token.state(now) for token in listed] == ["valid", "expired", "used"]


async def test_old_ones_are_forgotten(rig: Rig) -> None:
    await rig.tokens.create("auth-svc", 60)
    rig.clock.step(60 + REMEMBERED)
    fresh = await rig.tokens.create("auth-svc")
    assert await rig.tokens.forget_old() == 0
    rig.clock.step(1)
    assert await rig.tokens.forget_old() == 1
    assert [token.id for token in await rig.tokens.list()] == [fresh.token.id]


@pytest.mark.parametrize("service", ["", "a/b", "..", "ä", "auth svc", "hms/control"])
async def test_bad_services(rig: Rig, service: str) -> None:
    with pytest.raises(TokenError):
        await rig.tokens.create(service)
    assert not await rig.store.list("")


@pytest.mark.parametrize("ttl", [0, -1, MAX_TTL + 1, float("nan"), float("inf")])
async def test_bad_times(rig: Rig, ttl: float) -> None:
    with pytest.raises(TokenError, match="30 days"):
        await rig.tokens.create("auth-svc", ttl)


async def test_secrets_are_neither_stored_nor_logged_nor_shown(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await rig.tokens.create("auth-svc")
    spent = await rig.tokens.spend(made.text, "auth-svc")
    await rig.tokens.revoke(made.token.id)
    await rig.tokens.create("auth-svc")
    secret = made.text.rpartition(".")[2]
    shown = (
        repr(made) + repr(spent) + repr(rig.tokens) + caplog.text + repr(await rig.store.list(""))
    )
    assert secret not in shown
    assert made.token.id in caplog.text
    other = await rig.tokens.create("auth-svc")
    assert other.text != made.text


async def test_a_damaged_entry_is_an_error_that_names_it(rig: Rig) -> None:
    made = await rig.tokens.create("auth-svc")
    (key,) = [entry.key for entry in await rig.store.list("")]
    for junk in (b"", b"{}", b"[]", b'{"id": "a", "service": "b", "created": "x"}'):
        await rig.store.put(key, junk)
        with pytest.raises(TokenError, match=f"{key} is damaged"):
            await rig.tokens.spend(made.text, "auth-svc")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # one store for all texts
@given(text=st.text(max_size=80) | st.from_regex(r"hms1\.[a-z0-9]{12}\.[A-Za-z0-9_-]{43}"))
async def test_no_text_lets_in_by_chance(rig: Rig, text: str) -> None:
    if not await rig.tokens.list():
        await rig.tokens.create("auth-svc")
    with pytest.raises(TokenError):
        await rig.tokens.spend(text, "auth-svc")
