from __future__ import annotations

import asyncio
import itertools
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.engine.hook_chain import Hook, HookChain
from hms_addons.engine.hook_times import HookTimes, measure
from hms_addons.errors import MeshError
from hms_addons.http_message import Answer
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_route

if TYPE_CHECKING:
    from collections.abc import Callable


def ticking() -> Callable[[], float]:
    """A timer on which a millisecond passes whenever it is looked at."""
    return (tick / 1000 for tick in itertools.count()).__next__


def row(times: HookTimes, hook: str) -> dict[str, Any]:
    (found,) = (row for row in times.rows() if row["hook"] == hook)
    return found


def test_plain_calls_are_measured() -> None:
    times = HookTimes(ticking())
    hook = times.watched(Hook(lambda x: x + 1, "p", "hms_respond"))
    assert [hook.call(1), hook.call(2)] == [2, 3]
    assert times.rows() == [
        {
            "plugin": "p",
            "hook": "hms_respond",
            "calls": 2,
            "mean_us": 1000.0,
            "max_us": 1000.0,
            "total_ms": 2.0,
        }
    ]


async def test_what_is_waited_for_counts() -> None:
    timer = ticking()
    times = HookTimes(timer)

    async def slow() -> str:
        timer()
        timer()
        return "done"

    hook = times.watched(Hook(slow, "p", "hms_authorize"))
    assert await hook.call() == "done"
    assert row(times, "hms_authorize")["mean_us"] == 3000.0


async def test_failures_are_measured_and_passed_on() -> None:
    times = HookTimes(ticking())

    def fail() -> None:
        raise ValueError("no")

    async def fail_late() -> None:
        raise ValueError("no")

    for call, name in ((fail, "hms_identify"), (fail_late, "hms_prepare")):
        hook = times.watched(Hook(call, "p", name))
        with pytest.raises(ValueError, match="no"):
            await hook.call()
        assert row(times, name)["calls"] == 1


async def test_a_chain_is_watched_for_a_while() -> None:
    route = make_route()
    hooks = {
        "hms_route": [Hook(lambda _exchange: route, "routing", "hms_route")],
        "hms_forward": [
            Hook(lambda _exchange, _upstream: Answer(200, b"", ()), "app", "hms_forward")
        ],
    }
    chain = HookChain(hooks, Random(1), FakeClock())
    times = HookTimes(ticking())

    async def run() -> None:
        exchange = make_exchange()
        await chain.decide(exchange)

    put_back = chain.watch(times.watched)
    with pytest.raises(MeshError, match="measured already"):
        chain.watch(times.watched)
    exchange = make_exchange()
    exchange.cluster = object()  # type: ignore[assignment]  # it is not looked at
    await chain.decide(exchange)
    await chain.forward(exchange, None)
    assert exchange.answer is not None
    chain.unwatch(put_back)
    await run()
    assert [(r["hook"], r["calls"]) for r in times.rows()] == [("hms_route", 1), ("hms_forward", 1)]


async def test_measuring_ends_when_time_is_up_or_nobody_waits_any_more() -> None:
    route = make_route()
    hook = Hook(lambda _exchange: route, "routing", "hms_route")
    clock = FakeClock()
    chain = HookChain({"hms_route": [hook]}, Random(1), clock)
    asked = asyncio.ensure_future(measure(chain, clock, 5.0))
    await clock.advance(4)
    assert not asked.done()
    await clock.advance(1)
    assert [row["plugin"] for row in await asked] == ["routing"]
    asked = asyncio.ensure_future(measure(chain, clock, 5.0))
    await clock.advance(1)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    chain.unwatch(chain.watch(lambda watched: watched))
