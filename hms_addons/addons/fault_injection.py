"""`fault_injection`: delays and aborts on purpose, for a share of a route's requests.

In the forward phase, before anything is sent and before the route's timeout begins to run, as in
Envoy's fault filter; flags `DI` and `FI` are Envoy's. Only what is permitted is delayed, and only so
many at once, so that a fault which is meant to show what callers can take does not take the sidecar.
The caller sees an abort as it is: the route's `fallback` stands in for failures to
forward, and is not asked.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.shaping import shapings
from hms_addons.errors import ExchangeFailed, Failure, Fault, Flag
from hms_addons.hookspecs import hookimpl

if TYPE_CHECKING:
    import random
    from collections.abc import Collection, Coroutine

    from hms_addons.clock import Clock
    from hms_addons.config.shaping import Fault as FaultSpec
    from hms_addons.config.snapshot import Route, Snapshot
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh

_ALL = 100.0


class FaultInjection:
    """The built-in plugin `fault_injection`.

    Args:
        rng: draws which requests it meets.
        clock: what delays wait by.
    """

    def __init__(self, rng: random.Random, clock: Clock = SYSTEM_CLOCK) -> None:
        self._random = rng.random
        self._clock = clock
        self._active: Counter[tuple[str, str]] = Counter()
        self._counts: Counter[str] = Counter(delayed=0, aborted=0, overflowed=0)

    def __repr__(self) -> str:
        return f"<FaultInjection active={self.active} {dict(self._counts)}>"

    @property
    def active(self) -> int:
        """Requests that are being delayed now."""
        return self._active.total()

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where no route has a fault."""
        used = any(shaping.fault is not None for shaping in shapings(snapshot))
        return () if used else ("hms_forward",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Have the status tell what was injected."""
        mesh.add_status("faults", self.status)

    def status(self) -> dict[str, Any]:
        """What was injected since the start; `overflowed` were spared, as too many waited."""
        return {"active": self.active, **self._counts}

    @hookimpl
    def hms_forward(self, exchange: Exchange) -> Coroutine[Any, Any, None] | None:
        """Hold the request, or refuse it, or leave it to the plugins that forward.

        Raises:
            ExchangeFailed: it is aborted.
        """
        route = exchange.route
        shaping = None if route is None else route.shaping
        fault = None if shaping is None else shaping.fault
        if route is None or fault is None:
            return None
        head = exchange.head
        for condition in fault.when:
            value = head.get(condition.name.encode("latin-1"))
            if not condition.accepts(() if value is None else (value.decode("latin-1"),)):
                return None
        aborts = fault.abort is not None and self._meets(fault.abort_percent)
        if fault.delay is not None and self._meets(fault.delay_percent):
            return self._delay(exchange, route, fault, aborts=aborts)
        if aborts:
            self._abort(route, fault)
        return None

    def _meets(self, percent: float) -> bool:
        return percent >= _ALL or self._random() * _ALL < percent

    async def _delay(
        self, exchange: Exchange, route: Route, fault: FaultSpec, *, aborts: bool
    ) -> None:
        place = (route.listener, route.name)
        if self._active[place] >= fault.max_active:
            self._counts["overflowed"] += 1
            return
        self._counts["delayed"] += 1
        self._active[place] += 1
        try:
            await self._clock.sleep(fault.delay or 0.0)
        finally:
            self._active[place] -= 1
            if not self._active[place]:
                del self._active[place]
        exchange.flag = Flag.DI
        if aborts:
            self._abort(route, fault)

    def _abort(self, route: Route, fault: FaultSpec) -> None:
        self._counts["aborted"] += 1
        usual, flag, title = Fault.FAULT_INJECTED.value
        status = fault.abort or usual
        detail = (
            f"the route {route.name} answers a share of its requests with {status} on purpose "
            "(`fault.abort`); nothing was forwarded"
        )
        raise ExchangeFailed(Failure(status, flag, title, detail))
