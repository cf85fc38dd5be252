"""Bounds what mitmweb and mitmproxy keep: the newest flows, and the beginnings of their bodies.

Kept whatever comes: a flow that is still under way or held, which has a client waiting, and one that a person
has marked. The marks of the mesh's own (`engine.flow_marks`) keep nothing. Of what people have marked the
newest stay, up to half of the ring and half of the bytes: new ones always find room.

Bodies are cut once their flow has ended (`kept_bodies`): before, they are what is sent.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.window.kept_bodies import cut, size_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mitmproxy.addons.view import View
    from mitmproxy.flow import Flow
    from mitmproxy.http import HTTPFlow

    from hms_addons.clock import Clock, Timer

logger = logging.getLogger(__name__)

LOOK: Final = 0.5
"""Seconds between looks at flows that have been answered and are not over: a long download, say."""
_LOOKED_AT: Final = 64
"""Ended flows that one event cuts at most."""
_SLACK: Final = 20
"""A full ring gives up a twentieth at once: the walk past what must stay is made seldom."""


class Limits(NamedTuple):
    """How much is kept; 0 means all."""

    flows: int
    body: int
    """Bytes of one body."""
    total: int
    """Bytes of all bodies."""


class FlowRing:
    """A mitmproxy addon; behind mitmproxy's own view in the chain.

    Args:
        view: what keeps the flows.
        limits: asked at each event, as options may change.
        clock: time.

    Attributes:
        dropped: flows that had to go, since the start.
    """

    name = "hms-flow-ring"

    def __init__(self, view: View, limits: Callable[[], Limits], clock: Clock) -> None:
        self._view = view
        self._limits = limits
        self._clock = clock
        self.dropped = 0
        self.cut = 0
        self._ended: deque[HTTPFlow] = deque()
        self._unfinished: list[HTTPFlow] = []
        self._sizes: dict[str, int] = {}
        self._total = 0
        self._timer: Timer | None = None
        self._say_at = 1
        view.sig_store_remove.connect(self._removed)
        view.sig_store_refresh.connect(self._refreshed)

    def __repr__(self) -> str:
        kept = self._view.store_count()
        return f"<FlowRing kept={kept} bytes={self._total} dropped={self.dropped}>"

    def describe(self) -> dict[str, Any]:
        """How full it is, as JSON-ready types, for `/config`."""
        limits = self._limits()
        return {
            "flows": {"kept": self._view.store_count(), "max": limits.flows},
            "bytes": {"kept": self._total, "max": limits.total},
            "dropped_total": self.dropped,
            "cut_total": self.cut,
        }

    def collect(self) -> Iterable[Any]:
        """For `/metrics`."""
        from prometheus_client.core import (  # noqa: PLC0415 - where there is an admin port
            CounterMetricFamily,
            GaugeMetricFamily,
        )

        dropped = "Flows that the window had to drop for newer ones."
        return (
            CounterMetricFamily("hms_window_flows_dropped", dropped, self.dropped),
            GaugeMetricFamily("hms_window_flows", "Flows kept.", self._view.store_count()),
            GaugeMetricFamily("hms_window_body_bytes", "Bytes of bodies kept.", self._total),
        )

    # -- mitmproxy's events ---------------------------------------------------------------------

    def requestheaders(self, flow: HTTPFlow) -> None:
        """mitmproxy event: a new flow; the view has it already."""
        del flow
        self._trim()

    def response(self, flow: HTTPFlow) -> None:
        """mitmproxy event: it is about to end."""
        if flow.websocket is None:
            self._end(flow)

    def error(self, flow: HTTPFlow) -> None:
        """mitmproxy event: it has failed."""
        self._end(flow)

    def websocket_end(self, flow: HTTPFlow) -> None:
        """mitmproxy event: no more messages."""
        self._end(flow)

    def done(self) -> None:
        """mitmproxy event: the end."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- bodies ---------------------------------------------------------------------------------

    def _end(self, flow: HTTPFlow) -> None:
        self._ended.append(flow)
        # This one is still being answered; those before it have been, most likely.
        for _ in range(min(len(self._ended) - 1, _LOOKED_AT)):
            self._settle(self._ended.popleft())
        if self._timer is None:
            self._timer = self._clock.call_later(LOOK, self._look)

    def _look(self) -> None:
        self._timer = None
        waiting, self._unfinished = [*self._unfinished, *self._ended], []
        self._ended.clear()
        for flow in waiting:
            self._settle(flow)
        if self._unfinished:
            self._timer = self._clock.call_later(LOOK, self._look)
        self._trim()

    def _settle(self, flow: HTTPFlow) -> None:
        if flow.live or flow.intercepted:
            self._unfinished.append(flow)
            return
        if self._view.get_by_id(flow.id) is not flow:
            return  # it was never there, or has gone
        limits = self._limits()
        if limits.body and cut(flow, limits.body):
            self.cut += 1
            self._view.update([flow])
        size = size_of(flow)
        self._total += size - self._sizes.get(flow.id, 0)
        self._sizes[flow.id] = size

    # -- the ring -------------------------------------------------------------------------------

    def _trim(self) -> None:
        limits = self._limits()
        count = self._view.store_count()
        if limits.flows and count > limits.flows:
            self._drop(count - limits.flows + limits.flows // _SLACK, 0)
        if limits.total and self._total > limits.total:
            self._drop(0, self._total - limits.total + limits.total // _SLACK)

    def _drop(self, flows: int, size: int) -> None:
        """Drop the oldest that may go, until there are so many less, and so many bytes."""
        marked: list[Flow] = []
        others: list[Flow] = []
        for flow in self._view._store.values():  # noqa: SLF001 - in the order in which they came
            if not getattr(flow, "live", False) and not flow.intercepted:
                (marked if _is_marked_by_hand(flow) else others).append(flow)
        chosen = self._too_many(marked)
        left = size - sum(map(self._size, chosen))
        for flow in others:
            if len(chosen) >= flows and left <= 0:
                break
            chosen.append(flow)
            left -= self._size(flow)
        for flow in chosen:
            self._view.remove([flow])  # one by one, or the view would tell of it each time
        self.dropped += len(chosen)
        self._say()

    def _too_many(self, marked: list[Flow]) -> list[Flow]:
        """Of `marked` the oldest, until the rest hold no more than half of each limit."""
        limits = self._limits()
        flows, size = len(marked), sum(map(self._size, marked))
        chosen: list[Flow] = []
        for flow in marked:
            many = limits.flows and flows > limits.flows // 2
            big = limits.total and size > limits.total // 2
            if not many and not big:
                break
            chosen.append(flow)
            flows -= 1
            size -= self._size(flow)
        return chosen

    def _size(self, flow: Flow) -> int:
        return self._sizes.get(flow.id, 0)

    def _say(self) -> None:
        if self.dropped < self._say_at:
            return
        limits = self._limits()
        logger.info(
            "the window keeps the newest %d flows and %d MiB of bodies; %d older ones have been dropped "
            "(hms_flow_ring, hms_flow_bytes; a flow that you mark stays)",
            limits.flows,
            limits.total >> 20,
            self.dropped,
        )
        while self._say_at <= self.dropped:
            self._say_at *= 10

    def _removed(self, flow: Flow) -> None:
        self._total -= self._sizes.pop(flow.id, 0)

    def _refreshed(self) -> None:
        self._sizes = {
            key: size for key, size in self._sizes.items() if self._view.get_by_id(key) is not None
        }
        self._total = sum(self._sizes.values())


def _is_marked_by_hand(flow: Flow) -> bool:
    noted = flow.metadata.get("hms")
    ours = noted.get("mark", "") if isinstance(noted, dict) else ""
    return bool(flow.marked) and flow.marked != ours
