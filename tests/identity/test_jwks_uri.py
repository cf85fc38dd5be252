from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.identity import jwks_uri
from hms_addons.identity.jwks_uri import (
    FETCH_TIMEOUT,
    LIFETIME,
    LIFETIME_RANGE,
    MISS_INTERVAL,
    MISS_WAIT,
    RETRY_MAX,
    UriKeySource,
)
from hms_addons.tasks import TaskSet
from tests.fakes import pki
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URI = "https://id.example/keys?tenant=7"
OLD = pki.jwt_key("RS256")
NEW = pki.jwt_key("RS256", "new")


class Issuer:
    """Publishes keys, and a source that asks for them."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.keys: list[pki.JwtKey] = [OLD]
        self.down = False
        self.cache_control = ""
        self.asked: list[float] = []
        self.changes = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.tasks = TaskSet("test")
        self.source = UriKeySource(
            URI,
            None,
            clock=self.clock,
            rng=random.Random(1),
            tasks=self.tasks,
            changed=self._change,
            transport=httpx.MockTransport(self._answer),
        )

    def _change(self) -> None:
        self.changes += 1

    async def _answer(self, _: httpx.Request) -> httpx.Response:
        self.asked.append(self.clock.monotonic())
        await self.gate.wait()
        if self.down:
            raise httpx.ConnectError("connection refused")
        headers = {"Cache-Control": self.cache_control}
        return httpx.Response(200, content=pki.jwks(*self.keys), headers=headers)

    async def start(self) -> None:
        self.source.start()
        await self.advance(0)

    async def advance(self, seconds: float) -> None:
        await self.clock.advance(seconds)
        for _ in range(30):
            await asyncio.sleep(0)

    @property
    def ids(self) -> list[str | None]:
        return [key.key_id for key in self.source.keys.keys]


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    made = Issuer()
    yield made
    made.source.stop()
    await made.tasks.close()
    assert made.clock.pending == 0


async def test_nothing_is_asked_before_the_start_nor_twice_for_two_starts(issuer: Issuer) -> None:
    await issuer.advance(10)
    assert issuer.asked == []
    assert await issuer.source.renewal() is False
    issuer.source.start()
    await issuer.start()
    assert len(issuer.asked) == 1
    assert issuer.ids == ["key-1"]
    assert issuer.changes == 1
    assert issuer.source.problem is None


async def test_keys_are_renewed_before_their_ten_minutes_are_over(issuer: Issuer) -> None:
    await issuer.start()
    await issuer.advance(LIFETIME * 0.8 - 1)
    assert len(issuer.asked) == 1
    issuer.keys = [NEW]
    await issuer.advance(LIFETIME * 0.1 + 1)
    assert len(issuer.asked) == 2
    assert issuer.ids == ["new"]
    assert issuer.changes == 2


@pytest.mark.parametrize(
    ("cache_control", "lifetime"),
    [
        ("max-age=120", 120.0),
        ("max-age=0", LIFETIME_RANGE[0]),
        ("no-store", LIFETIME_RANGE[0]),
        ("max-age=31536000", LIFETIME_RANGE[1]),
    ],
)
async def test_the_issuer_says_how_long_within_bounds(
    issuer: Issuer, cache_control: str, lifetime: float
) -> None:
    issuer.cache_control = cache_control
    await issuer.start()
    await issuer.advance(lifetime * 0.8 - 1)
    assert len(issuer.asked) == 1
    await issuer.advance(lifetime * 0.1 + 1)
    assert len(issuer.asked) == 2


async def test_the_same_keys_again_are_no_change(issuer: Issuer) -> None:
    await issuer.start()
    before = issuer.source.keys
    await issuer.advance(LIFETIME)
    assert len(issuer.asked) == 2
    assert issuer.source.keys is before
    assert issuer.changes == 1


async def test_while_the_issuer_is_away_the_old_keys_serve(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    await issuer.start()
    issuer.down = True
    with caplog.at_level(logging.INFO):
        for _ in range(120):
            await issuer.advance(60)
        assert issuer.ids == ["key-1"]
        assert issuer.source.problem == (
            "https://id.example/keys: ConnectError: connection refused"
        )
        assert caplog.text.count("connection refused; the old keys stay in use") == 1
        assert len(issuer.asked) <= 130, "it is asked at a bounded pace"
        issuer.down = False
        await issuer.advance(RETRY_MAX)
        assert issuer.source.problem is None
        assert "it gives keys again" in caplog.text


async def test_failures_are_repeated_ever_more_slowly(issuer: Issuer) -> None:
    issuer.down = True
    await issuer.start()
    assert issuer.source.keys.keys == ()
    for _ in range(40):
        await issuer.advance(10)
    gaps = [later - sooner for sooner, later in zip(issuer.asked, issuer.asked[1:], strict=False)]
    assert gaps[0] <= 10.0
    assert gaps[-1] > RETRY_MAX / 2
    issuer.down = False
    await issuer.advance(RETRY_MAX)
    assert issuer.ids == ["key-1"]


async def test_an_answer_that_never_ends_is_given_up(issuer: Issuer) -> None:
    issuer.gate.clear()
    await issuer.start()
    await issuer.advance(FETCH_TIMEOUT)
    assert "no whole answer within 5s" in str(issuer.source.problem)
    issuer.gate.set()
    await issuer.advance(1)
    assert issuer.ids == ["key-1"]


async def test_an_unforeseen_error_is_a_failure_like_any_other(
    issuer: Issuer, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise KeyError("surprise")

    with monkeypatch.context() as patch:
        patch.setattr(jwks_uri, "fetch_jwks", broken)
        await issuer.start()
    assert "could not be fetched" in caplog.text
    await issuer.advance(1)
    assert issuer.ids == ["key-1"]


async def test_whoever_is_told_of_new_keys_cannot_end_the_asking(
    issuer: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> None:
        raise KeyError("surprise")

    issuer.source._changed = broken
    await issuer.start()
    assert issuer.ids == ["key-1"]
    assert "could not be fetched" in caplog.text
    await issuer.advance(1)
    assert len(issuer.asked) == 2
    assert issuer.source.problem is None


async def test_an_unknown_key_is_asked_for_once_whoever_waits(issuer: Issuer) -> None:
    await issuer.start()
    await issuer.advance(MISS_INTERVAL)
    issuer.keys = [OLD, NEW]
    issuer.gate.clear()
    waiting = [asyncio.ensure_future(issuer.source.renewal()) for _ in range(50)]
    await issuer.advance(0)
    assert len(issuer.asked) == 2
    issuer.gate.set()
    await issuer.advance(0)
    assert [await one for one in waiting] == [True] * 50
    assert issuer.ids == ["key-1", "new"]
    assert len(issuer.asked) == 2


async def test_invented_key_ids_have_it_asked_every_ten_seconds_at_most(issuer: Issuer) -> None:
    await issuer.start()
    for _ in range(1000):
        assert await issuer.source.renewal() is False
    for _ in range(10):
        await issuer.advance(MISS_INTERVAL)
        for _ in range(10):
            waiting = asyncio.ensure_future(issuer.source.renewal())
            await issuer.advance(0)
            await waiting
    assert len(issuer.asked) == 11


async def test_a_request_waits_no_longer_than_two_seconds(issuer: Issuer) -> None:
    issuer.gate.clear()
    await issuer.start()
    waiting = asyncio.ensure_future(issuer.source.renewal())
    await issuer.advance(MISS_WAIT - 0.1)
    assert not waiting.done()
    await issuer.advance(0.1)
    assert waiting.done()
    assert await waiting is False


async def test_requests_that_come_before_the_first_answer_wait_for_it(issuer: Issuer) -> None:
    issuer.gate.clear()
    await issuer.start()
    waiting = asyncio.ensure_future(issuer.source.renewal())
    await issuer.advance(1)
    issuer.gate.set()
    await issuer.advance(0)
    assert await waiting is True
    assert issuer.ids == ["key-1"]


async def test_a_failure_ends_the_wait_at_once(issuer: Issuer) -> None:
    issuer.gate.clear()
    issuer.down = True
    await issuer.start()
    waiting = asyncio.ensure_future(issuer.source.renewal())
    await issuer.advance(0)
    issuer.gate.set()
    await issuer.advance(0)
    assert waiting.done()
    assert await waiting is False


async def test_a_request_that_leaves_stops_waiting_alone(issuer: Issuer) -> None:
    issuer.gate.clear()
    await issuer.start()
    leaving, staying = (asyncio.ensure_future(issuer.source.renewal()) for _ in range(2))
    await issuer.advance(0)
    leaving.cancel()
    await issuer.advance(0)
    assert leaving.cancelled()
    issuer.gate.set()
    await issuer.advance(0)
    assert await staying is True
    assert len(issuer.source._waiting) == 0


async def test_no_more_wait_than_a_thousand(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jwks_uri, "MAX_WAITING", 2)
    issuer.gate.clear()
    await issuer.start()
    waiting = [asyncio.ensure_future(issuer.source.renewal()) for _ in range(2)]
    await issuer.advance(0)
    assert await issuer.source.renewal() is False
    issuer.gate.set()
    await issuer.advance(0)
    assert [await one for one in waiting] == [True, True]


async def test_to_stop_while_asking_frees_those_who_wait(issuer: Issuer) -> None:
    issuer.gate.clear()
    await issuer.start()
    waiting = asyncio.ensure_future(issuer.source.renewal())
    await issuer.advance(0)
    issuer.source.stop()
    await issuer.advance(0)
    assert await waiting is False
    assert len(issuer.tasks) == 0
    issuer.gate.set()
    await issuer.start()
    assert issuer.ids == ["key-1"]


async def test_after_a_pause_it_is_asked_when_it_would_have_been(issuer: Issuer) -> None:
    await issuer.start()
    issuer.source.stop()
    await issuer.advance(100)
    await issuer.start()
    assert len(issuer.asked) == 1
    await issuer.advance(LIFETIME)
    assert len(issuer.asked) == 2


async def test_its_state_is_shown_without_the_query(issuer: Issuer) -> None:
    assert issuer.source.status()["fetched_at"] is None
    await issuer.start()
    status = issuer.source.status()
    assert status["uri"] == "https://id.example/keys"
    assert status["fetched_at"] == "2027-01-15T08:00:00Z"
    assert 480 <= status["next_fetch_in"] <= 540
    assert status["failures"] == 0
    assert repr(issuer.source) == "<UriKeySource https://id.example/keys keys=1 problem=None>"
    assert issuer.source.refresh() is False
