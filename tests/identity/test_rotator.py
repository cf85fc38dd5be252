from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.ca.authority import CertificateAuthority
from hms_addons.identity.identity_holder import IdentityHolder, SecretError, SecretMaterial
from hms_addons.identity.rotator import (
    FETCH_LIMIT,
    FIRST_BACKOFF,
    LOOK_INTERVAL,
    MAX_BACKOFF,
    REFRESH_INTERVAL,
    Pace,
    Rotator,
    backoff_delay,
    refresh_delay,
)
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.svid import iso_time
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

AUTH = SpiffeId.for_service("mpsa.mil", "auth-svc")
LONG_LIVED = CertificateAuthority.create("mpsa.mil", FakeClock()).issue(AUTH)


class FakeSource:
    """Issues a new SVID at each fetch, unless told to fail."""

    def __init__(self, clock: FakeClock, lifetime: float = 24 * 3600.0) -> None:
        self.clock = clock
        self.authority = CertificateAuthority.create("mpsa.mil", clock)
        self.lifetime = lifetime
        self.fetched: list[float] = []
        self.failure: Exception | None = None

    async def fetch(self) -> SecretMaterial:
        self.fetched.append(self.clock.monotonic())
        if self.failure is not None:
            raise self.failure
        return SecretMaterial(self.authority.issue(AUTH, self.lifetime), self.authority.bundle)

    def pauses(self) -> list[float]:
        return [
            later - earlier for earlier, later in zip(self.fetched, self.fetched[1:], strict=False)
        ]


async def never_answers() -> SecretMaterial:
    await asyncio.Event().wait()
    raise AssertionError


class Rig:
    def __init__(self, lifetime: float = 24 * 3600.0) -> None:
        self.clock = FakeClock()
        self.source = FakeSource(self.clock, lifetime)
        self.holder = IdentityHolder("mesh_certs")
        self.rotator = Rotator(self.source, self.holder, self.clock, random.Random(7))

    @property
    def generation(self) -> int:
        return self.holder.current.generation if self.holder.current else 0

    async def pass_time(self, seconds: float, step: float) -> None:
        for _ in range(round(seconds / step)):
            await self.clock.advance(step)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.ensure_future(self.rotator.run())
        await asyncio.sleep(0)
        try:
            yield
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert self.clock.pending == 0


async def test_a_long_lived_svid_is_renewed_hourly() -> None:
    rig = Rig()
    async with rig.running():
        assert rig.generation == 1
        await rig.pass_time(5 * 3600, 30)
    assert rig.generation in {5, 6}
    assert all(0.99 * 3600 <= pause <= 1.01 * 3600 + 30 for pause in rig.source.pauses())
    assert len(set(rig.source.pauses())) > 1


async def test_a_short_lived_svid_is_renewed_at_half_life() -> None:
    rig = Rig(lifetime=600)
    async with rig.running():
        await rig.pass_time(900, 1)
    # It is backdated by a minute, which is no part of the life that it had when it came.
    assert rig.source.pauses()
    assert all(297 <= pause <= 304 for pause in rig.source.pauses())


@pytest.mark.parametrize("lifetime", [2.0, 5.0, 30.0])
async def test_a_life_of_seconds_is_never_let_run_out(lifetime: float) -> None:
    rig = Rig(lifetime=lifetime)
    async with rig.running():
        for _ in range(400):
            await rig.clock.advance(lifetime / 40)
            current = rig.holder.current
            assert current is not None
            assert rig.clock.wall() <= current.svid.not_after
    # Ten lives: about two renewals each, the first one and some late by what the clock rounds.
    assert 15 <= len(rig.source.fetched) <= 25


async def test_a_short_failure_of_the_source_costs_a_short_life_nothing() -> None:
    rig = Rig(lifetime=4)
    async with rig.running():
        rig.source.failure = SecretError("away")
        await rig.pass_time(3, 0.1)
        assert 4 <= len(rig.source.fetched) <= 12
        rig.source.failure = None
        await rig.pass_time(0.9, 0.1)
        assert rig.generation >= 2
        assert rig.rotator.problem is None


async def test_a_source_that_never_answers_is_given_up_and_asked_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    answer = rig.source.fetch
    hanging = 0

    async def hangs() -> SecretMaterial:
        nonlocal hanging
        hanging += 1
        return await never_answers()

    rig.source.fetch = hangs  # type: ignore[method-assign]
    async with rig.running():
        await rig.pass_time(3 * FETCH_LIMIT, 1)
        assert 2 <= hanging <= 3
        assert "no answer within 30s" in caplog.text
        assert rig.rotator.problem == "no answer within 30s"
        rig.source.fetch = answer  # type: ignore[method-assign]
        await rig.pass_time(2 * FETCH_LIMIT, 1)
        assert rig.generation == 1


async def test_a_refresh_that_hangs_ends_and_its_task_goes_on() -> None:
    rig = Rig()

    rig.source.fetch = never_answers  # type: ignore[method-assign]
    task = asyncio.ensure_future(rig.rotator.refresh())
    await rig.clock.advance(FETCH_LIMIT)
    with pytest.raises(SecretError, match="no answer"):
        await task
    assert task.cancelling() == 0


async def test_cancelled_in_the_moment_it_is_given_up_it_is_cancelled() -> None:
    rig = Rig()

    rig.source.fetch = never_answers  # type: ignore[method-assign]
    task = asyncio.ensure_future(rig.rotator.refresh())
    await asyncio.sleep(0)
    rig.clock.tick(FETCH_LIMIT)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_after_a_long_sleep_of_the_machine_it_renews_within_half_a_minute() -> None:
    rig = Rig()
    async with rig.running():
        await rig.pass_time(60, 1)
        rig.clock.step(20 * 3600)  # the wall clock went on, the monotonic one stood still
        await rig.pass_time(LOOK_INTERVAL, 1)
        assert rig.generation == 2


@pytest.mark.parametrize("step", [-30 * 86400.0, -3000.0, 3000.0, 23 * 3600.0])
async def test_a_stepped_wall_clock_delays_no_renewal(step: float) -> None:
    rig = Rig(lifetime=600)
    async with rig.running():
        rig.clock.step(step)
        rig.source.authority = CertificateAuthority.create("mpsa.mil", rig.clock)
        for _ in range(12):
            before = len(rig.source.fetched)
            await rig.pass_time(304, 1)
            assert len(rig.source.fetched) > before


async def test_renew_soon_does_not_wait_for_the_hour() -> None:
    rig = Rig()
    rig.rotator.renew_soon()
    async with rig.running():
        await rig.clock.advance(1)
        assert rig.generation == 1, "nothing was in use that would not do"
        rig.rotator.renew_soon()
        await rig.clock.advance(0)
        assert rig.generation == 2
        await rig.pass_time(600, 10)
        assert rig.generation == 2


async def test_what_was_renewed_is_kept() -> None:
    rig = Rig()
    kept: list[SecretMaterial] = []

    async def keep(material: SecretMaterial) -> None:
        kept.append(material)

    rotator = Rotator(rig.source, rig.holder, rig.clock, random.Random(7), keep)
    identity = await rotator.refresh()
    assert [material.svid for material in kept] == [identity.svid]


async def test_what_cannot_be_kept_serves_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig()

    async def keep(material: SecretMaterial) -> None:
        raise OSError(28, "No space left on device")

    rotator = Rotator(rig.source, rig.holder, rig.clock, random.Random(7), keep)
    await rotator.refresh()
    assert rig.generation == 1
    assert "No space left on device" in caplog.text


async def test_refreshes_do_not_overlap() -> None:
    rig = Rig()
    await asyncio.gather(rig.rotator.refresh(), rig.rotator.refresh())
    assert rig.generation == 2
    assert rig.holder.current is not None


async def test_while_the_source_is_away_the_old_one_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    async with rig.running():
        rig.source.failure = SecretError("control plane http://cp:15010 is away")
        await rig.pass_time(3 * 3600, 5)
        assert rig.generation == 1
        pauses = rig.source.pauses()[1:]
        assert max(pauses) <= MAX_BACKOFF + 5
        assert min(pauses[8:]) >= MAX_BACKOFF / 2
        assert "http://cp:15010 is away" in caplog.text
        assert "the old one serves until 20" in caplog.text
        assert repr(rig.rotator).endswith(f"failures={len(rig.source.fetched) - 1}>")
        rig.source.failure = None
        await rig.pass_time(MAX_BACKOFF, 5)
        assert rig.generation == 2
        fetched = len(rig.source.fetched)
        await rig.pass_time(3000, 10)
        assert len(rig.source.fetched) == fetched


async def test_once_the_old_one_has_expired_it_does_not_say_that_it_serves(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig(lifetime=3600.0)
    async with rig.running():
        assert rig.holder.current is not None
        until = iso_time(rig.holder.current.svid.not_after)
        rig.source.failure = SecretError("away")
        await rig.pass_time(3500, 5)
        assert f"the old one serves until {until}" in caplog.text
        assert "expired" not in caplog.text
        caplog.clear()
        await rig.pass_time(400, 5)
        assert rig.holder.problem == rig.rotator.problem == "away"
        await rig.pass_time(200, 5)
        *_, last = caplog.messages
        assert f"the old one expired at {until}): away" in last
        rig.source.failure = None
        await rig.pass_time(MAX_BACKOFF, 5)
        assert rig.holder.problem is None


async def test_with_no_identity_yet_it_keeps_trying() -> None:
    rig = Rig()
    rig.source.failure = SecretError("away")
    async with rig.running():
        await rig.pass_time(60, 1)
        assert rig.generation == 0
        assert len(rig.source.fetched) > 4
        rig.source.failure = None
        await rig.pass_time(64, 1)
        assert rig.generation == 1


async def test_a_defect_of_the_source_does_not_end_renewal(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rig = Rig()
    rig.source.failure = ZeroDivisionError("a bug")
    async with rig.running():
        await rig.pass_time(10, 1)
        rig.source.failure = None
        await rig.pass_time(20, 1)
        assert rig.generation == 1
    assert "Traceback" in caplog.text


async def test_a_bad_svid_counts_as_failure() -> None:
    rig = Rig()
    async with rig.running():
        rig.source.authority = CertificateAuthority.create("mpsa.mil", FakeClock(wall=1e9))
        await rig.pass_time(3700, 10)
        assert rig.generation == 1
        assert len(rig.source.fetched) > 4


async def test_refresh_raises() -> None:
    rig = Rig()
    rig.source.failure = SecretError("away")
    with pytest.raises(SecretError, match="away"):
        await rig.rotator.refresh()


async def test_it_can_be_cancelled_while_it_fetches() -> None:
    rig = Rig()
    started = asyncio.Event()

    async def never() -> SecretMaterial:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError

    rig.source.fetch = never  # type: ignore[method-assign]
    async with rig.running():
        await started.wait()
    assert rig.generation == 0


def test_an_svid_past_its_half_life_is_no_busy_loop() -> None:
    rig = Rig()
    svid = rig.source.authority.issue(AUTH)
    late = svid.not_after + 5
    assert refresh_delay(svid, late, random.Random(1)) == FIRST_BACKOFF


@given(st.floats(1, 1e7), st.integers(0, 1000))
def test_refresh_comes_by_half_life_and_within_the_hour(elapsed: float, seed: int) -> None:
    now = LONG_LIVED.not_before + elapsed
    delay = refresh_delay(LONG_LIVED, now, random.Random(seed))
    half = (LONG_LIVED.not_before + LONG_LIVED.not_after) / 2
    assert FIRST_BACKOFF <= delay <= 1.01 * REFRESH_INTERVAL
    assert delay == FIRST_BACKOFF or delay <= 1.01 * (half - now) + 1e-6


@given(st.integers(1, 10**9), st.integers(0, 1000))
def test_backoff_grows_within_its_bound(failures: int, seed: int) -> None:
    delay = backoff_delay(failures, random.Random(seed))
    assert FIRST_BACKOFF / 2 <= delay <= MAX_BACKOFF
    assert delay <= 2.0 ** min(failures - 1, 20)


@pytest.mark.parametrize("life", [4.0, 30.0, 600.0])
def test_a_short_life_leaves_time_for_several_attempts_after_an_outage(life: float) -> None:
    """The source may come back at any moment of the second half; it is asked well before the end."""
    assert Pace.of(life).max_backoff <= life / 2 / 5
