"""Which flows are kept, and how much of them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest
from mitmproxy.addons.view import View
from mitmproxy.test import taddons

from hms_addons.window.flow_ring import LOOK, FlowRing, Limits
from tests.fakes.clock import FakeClock
from tests.fakes.flows import make_flow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mitmproxy.flow import Flow
    from mitmproxy.http import HTTPFlow


class Ring:
    """A ring on mitmproxy's own view, inside its addon manager."""

    def __init__(self, context: taddons.context) -> None:
        self.view = View()
        context.master.addons.add(self.view)
        self.limits = Limits(flows=20, body=0, total=0)
        self.clock = FakeClock()
        self.ring = FlowRing(self.view, lambda: self.limits, self.clock)

    def begin(self, flow: HTTPFlow) -> HTTPFlow:
        self.view.requestheaders(flow)
        self.ring.requestheaders(flow)
        return flow

    def end(self, flow: HTTPFlow) -> HTTPFlow:
        self.view.response(flow)
        self.ring.response(flow)
        flow.live = False
        return flow

    def carry(self, flow: HTTPFlow | None = None) -> HTTPFlow:
        flow = flow or make_flow()
        flow.live = True
        self.begin(flow)
        return self.end(flow)

    @property
    def kept(self) -> list[Flow]:
        return list(self.view._store.values())


@pytest.fixture
async def ring() -> AsyncIterator[Ring]:
    with taddons.context() as context:
        made = Ring(context)
        yield made
        made.ring.done()
        assert made.clock.pending == 0


async def test_the_oldest_go_and_are_counted(ring: Ring) -> None:
    flows = [ring.carry() for _ in range(100)]
    assert len(ring.kept) <= 20
    assert ring.kept == flows[-len(ring.kept) :]
    assert ring.ring.dropped == 100 - len(ring.kept)
    assert repr(ring.ring) == "<FlowRing kept=20 bytes=95 dropped=80>"


async def test_whoever_shows_the_view_is_told(ring: Ring) -> None:
    gone: list[str] = []

    def note(flow: Flow, index: int) -> None:
        del index
        gone.append(flow.id)

    ring.view.sig_view_remove.connect(note)
    flows = [ring.carry() for _ in range(30)]
    assert gone == [flow.id for flow in flows[: len(gone)]]
    assert len(gone) == ring.ring.dropped > 0


async def test_without_a_limit_all_stay(ring: Ring) -> None:
    ring.limits = Limits(0, 0, 0)
    flows = [ring.carry() for _ in range(100)]
    assert ring.kept == flows


async def test_what_is_under_way_or_held_or_marked_by_hand_stays(ring: Ring) -> None:
    live, held, marked, ours = (make_flow() for _ in range(4))
    live.live = True
    ring.begin(live)
    ring.begin(held)
    held.intercepted = True
    marked.marked = ":heart:"
    ours.marked = ":x:"
    ours.metadata["hms"] = {"mark": ":x:"}
    ring.carry(marked)
    ring.carry(ours)
    for _ in range(100):
        ring.carry()
    assert ring.kept[:3] == [live, held, marked]
    assert ours not in ring.kept
    held.intercepted = False


async def test_marks_hold_half_of_the_ring_at_most(ring: Ring) -> None:
    marked = [make_flow() for _ in range(30)]
    for flow in marked:
        flow.marked = ":heart:"
        ring.carry(flow)
    for _ in range(40):
        ring.carry()
    kept = [flow for flow in ring.kept if flow.marked]
    assert kept == marked[-10:]
    assert len(ring.kept) <= 20


async def test_marks_hold_half_of_the_bytes_at_most(ring: Ring) -> None:
    ring.limits = Limits(0, 0, 1000)
    marked = [make_flow(answer=b"a" * 100) for _ in range(30)]
    for flow in marked:
        flow.marked = ":heart:"
        ring.carry(flow)
    ring.clock.tick(LOOK)
    kept = [flow for flow in ring.kept if flow.marked]
    assert kept == marked[-len(kept) :]
    assert 4 <= len(kept) <= 9
    new = [ring.carry(make_flow(answer=b"a" * 100)) for _ in range(30)]
    ring.clock.tick(LOOK)
    assert ring.kept[-4:] == new[-4:], "marks leave room for what is new"
    assert ring.ring.describe()["bytes"]["kept"] <= 1000
    assert 4 <= len([flow for flow in ring.kept if flow.marked]) <= 5


async def test_a_dropped_flow_is_not_killed(ring: Ring) -> None:
    flows = [ring.carry() for _ in range(30)]
    assert all(flow.error is None for flow in flows)


async def test_bodies_are_cut_once_their_flow_is_over(ring: Ring) -> None:
    ring.limits = Limits(20, 10, 0)
    flow = make_flow(answer=b"a" * 50)
    flow.live = True
    ring.begin(flow)
    ring.ring.response(flow)
    ring.clock.tick(LOOK)
    assert flow.response is not None
    assert flow.response.content == b"a" * 50, "it is still being sent"
    flow.live = False
    ring.clock.tick(LOOK)
    assert flow.response.content == b"a" * 10
    assert ring.ring.describe()["cut_total"] == 1


async def test_the_bodies_of_those_before_are_cut_at_the_next_end(ring: Ring) -> None:
    ring.limits = Limits(20, 10, 0)
    first = ring.carry(make_flow(answer=b"a" * 50))
    ring.carry()
    assert first.response is not None
    assert first.response.content == b"a" * 10


async def test_all_bodies_together_have_a_bound(ring: Ring) -> None:
    ring.limits = Limits(0, 0, 1000)
    for _ in range(50):
        ring.carry(make_flow(answer=b"a" * 100))
    ring.clock.tick(LOOK)
    assert ring.ring.describe()["bytes"]["kept"] <= 1000
    assert 8 <= len(ring.kept) <= 10


async def test_a_cleared_view_holds_no_bytes(ring: Ring) -> None:
    ring.limits = Limits(0, 0, 1000)
    for _ in range(5):
        ring.carry()
    ring.clock.tick(LOOK)
    assert ring.ring.describe()["bytes"]["kept"] == 25
    ring.view.clear()
    assert ring.ring.describe()["bytes"]["kept"] == 0


async def test_an_ended_websocket_is_settled_and_a_running_one_is_not(ring: Ring) -> None:
    ring.limits = Limits(20, 2, 0)
    flow = make_flow()
    flow.live = True
    ring.begin(flow)
    flow.websocket = object()  # type: ignore[assignment] # only that there is one
    ring.ring.response(flow)
    assert ring.clock.pending == 0
    flow.websocket = None
    flow.live = False
    ring.ring.websocket_end(flow)
    ring.clock.tick(LOOK)
    assert flow.response is not None
    assert flow.response.content == b"he"


async def test_that_flows_go_is_said_seldom(ring: Ring, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for _ in range(250):
        ring.carry()
    said = [line for line in caplog.messages if "older ones have been dropped" in line]
    assert len(said) == 3
    assert "the newest 20 flows" in said[0]


async def test_prometheus_is_told(ring: Ring) -> None:
    for _ in range(30):
        ring.carry()
    samples = {
        sample.name: sample.value for metric in ring.ring.collect() for sample in metric.samples
    }
    assert samples["hms_window_flows_dropped_total"] == ring.ring.dropped
    assert samples["hms_window_flows"] == len(ring.kept)
