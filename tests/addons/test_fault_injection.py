from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from hms_addons.addons.fault_injection import FaultInjection
from hms_addons.config.route_match import ValueMatch
from hms_addons.config.shaping import Fault, Shaping
from hms_addons.errors import ExchangeFailed, Flag
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange, make_route


def faulty(headers: list[tuple[str, str]] | None = None, **fault: Any) -> Any:
    route = make_route(shaping=Shaping(fault=Fault(**fault)))
    return make_exchange(route=route, headers=headers or ())


def test_an_abort_answers_with_its_status_and_says_that_it_is_meant() -> None:
    with pytest.raises(ExchangeFailed) as caught:
        FaultInjection(random.Random(1)).hms_forward(faulty(abort=418))
    failure = caught.value.failure
    assert (failure.status, failure.flag) == (418, Flag.FI)
    assert "on purpose" in failure.detail


async def test_a_delay_holds_the_request_and_is_marked() -> None:
    clock = FakeClock()
    faults = FaultInjection(random.Random(1), clock)
    exchange = faulty(delay=0.1)
    waiting = faults.hms_forward(exchange)
    assert waiting is not None
    task = asyncio.ensure_future(waiting)
    await clock.advance(0.09)
    assert not task.done()
    assert faults.active == 1
    await clock.advance(0.02)
    assert task.done()
    assert await task is None  # so that those who forward are asked
    assert exchange.flag is Flag.DI
    assert faults.active == 0
    assert clock.pending == 0


async def test_a_delay_comes_before_an_abort() -> None:
    clock = FakeClock()
    waiting = FaultInjection(random.Random(1), clock).hms_forward(faulty(delay=1.0, abort=503))
    assert waiting is not None
    task = asyncio.ensure_future(waiting)
    await clock.advance(0.5)
    assert not task.done()
    await clock.advance(0.5)
    with pytest.raises(ExchangeFailed):
        await task


async def test_a_client_that_leaves_ends_the_delay() -> None:
    clock = FakeClock()
    faults = FaultInjection(random.Random(1), clock)
    waiting = faults.hms_forward(faulty(delay=60.0))
    assert waiting is not None
    task = asyncio.ensure_future(waiting)
    await clock.advance(1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert faults.active == 0
    assert clock.pending == 0


async def test_no_more_than_max_active_wait_and_the_next_is_spared_altogether() -> None:
    clock = FakeClock()
    faults = FaultInjection(random.Random(1), clock)
    tasks = []
    for _ in range(5):
        waiting = faults.hms_forward(faulty(delay=1.0, abort=503, max_active=3))
        assert waiting is not None
        tasks.append(asyncio.ensure_future(waiting))
    await clock.advance(0)
    assert faults.active == 3
    assert [task.done() for task in tasks] == [False, False, False, True, True]
    assert [await task for task in tasks[3:]] == [None, None]
    await clock.advance(1)
    for task in tasks[:3]:
        with pytest.raises(ExchangeFailed):
            await task
    assert faults.status() == {"active": 0, "delayed": 3, "aborted": 3, "overflowed": 2}


def test_each_share_is_drawn_for_by_itself() -> None:
    faults = FaultInjection(random.Random(7))
    seen = {"both": 0, "delay": 0, "abort": 0, "none": 0}
    for _ in range(4000):
        exchange = faulty(delay=1.0, delay_percent=50.0, abort=503, abort_percent=20.0)
        try:
            waiting: Any = faults.hms_forward(exchange)
        except ExchangeFailed:
            seen["abort"] += 1
        else:
            if waiting is None:
                seen["none"] += 1
            else:
                seen["both" if waiting.cr_frame.f_locals["aborts"] else "delay"] += 1
                waiting.close()
    for kind, share in {"both": 0.1, "delay": 0.4, "abort": 0.1, "none": 0.4}.items():
        assert abs(seen[kind] / 4000 - share) < 0.03, seen


def test_no_share_is_never_and_all_is_always() -> None:
    faults = FaultInjection(random.Random(1))
    for _ in range(200):
        assert faults.hms_forward(faulty(abort=503, abort_percent=0.0)) is None
        with pytest.raises(ExchangeFailed):
            faults.hms_forward(faulty(abort=503))


@pytest.mark.parametrize(
    ("headers", "met"),
    [
        ([], False),
        ([("x-fault", "no")], False),
        ([("X-Fault", "yes")], True),
    ],
)
def test_only_requests_that_meet_the_conditions(headers: list[tuple[str, str]], met: bool) -> None:
    exchange = faulty(headers, abort=503, when=(ValueMatch(name="x-fault", exact="yes"),))
    faults = FaultInjection(random.Random(1))
    if met:
        with pytest.raises(ExchangeFailed):
            faults.hms_forward(exchange)
    else:
        assert faults.hms_forward(exchange) is None


def test_routes_without_a_fault_are_left_alone() -> None:
    faults = FaultInjection(random.Random(1))
    assert faults.hms_forward(make_exchange()) is None
    assert repr(faults) == "<FaultInjection active=0 {'delayed': 0, 'aborted': 0, 'overflowed': 0}>"


def test_it_is_idle_where_no_route_has_a_fault() -> None:
    text = """
        listeners: [{{name: l, port: 1, routes: [{{action: {{cluster: c{}}}}}]}}]
        clusters: [{{name: c}}]
        """
    faults = FaultInjection(random.Random(1))
    assert faults.hms_idle_hooks(snapshot_of(text.format(""))) == ("hms_forward",)
    assert faults.hms_idle_hooks(snapshot_of(text.format(", fault: {abort: 503}"))) == ()


def test_the_status_tells_what_was_injected() -> None:
    class Mesh:
        names: tuple[str, ...] = ()

        def add_status(self, name: str, show: Any) -> None:
            self.names += (name,)

    mesh = Mesh()
    FaultInjection(random.Random(1)).hms_startup(mesh)  # type: ignore[arg-type]
    assert mesh.names == ("faults",)
