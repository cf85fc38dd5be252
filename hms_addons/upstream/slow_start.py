"""Slow start: a newcomer's weight grows over a while, so that its caches and pools can too."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.lazy_timer import LazyTimer

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from hms_addons.clock import Clock
    from hms_addons.upstream.endpoint import Endpoint

MIN_WEIGHT: Final = 0.1
"""Share of its weight that an endpoint begins with (Envoy's `min_weight_percent`)."""
STEPS: Final = 20
"""So many times a window the weights are worked out anew."""
_SHORTEST_STEP: Final = 0.1


class SlowStart:
    """Sets the endpoints' `weight` in one cluster.

    One that is new among others, or comes back from being ejected or unhealthy, begins with a tenth of
    its weight and has all of it after `window` seconds, growing evenly (Envoy's formula with aggression
    1). Endpoints that come where there were none have nobody to leave the traffic to: no slow start.

    Args:
        clock: time.
        window: seconds.
        changed: called when weights have to be worked out anew; is to call `observe`.
    """

    __slots__ = ("_away", "_changed", "_clock", "_known", "_since", "_timer", "window")

    def __init__(self, clock: Clock, window: float, changed: Callable[[], object]) -> None:
        self.window = window
        self._clock = clock
        self._changed = changed
        self._timer = LazyTimer(clock, self._step)
        self._known: set[Endpoint] = set()
        self._away: set[Endpoint] = set()
        self._since: dict[Endpoint, float] = {}

    def __repr__(self) -> str:
        return f"<SlowStart {self.window:g}s starting={len(self._since)}>"

    def _step(self) -> None:
        self._changed()

    def observe(self, members: Collection[Endpoint], in_use: Collection[Endpoint]) -> None:
        """Set every member's weight by how long it has been in use.

        Args:
            members: the cluster's endpoints.
            in_use: those that take traffic like any other: neither ejected nor half-open.
        """
        now = self._clock.monotonic()
        used = set(in_use)
        known, away, since = self._known, self._away, self._since
        newcomers = set(members) - known if known else set()
        self._known = set(members)
        self._away = self._known - used
        since = {it: at for it, at in since.items() if it in used and now - at < self.window}
        for endpoint in used:
            if endpoint in away or endpoint in newcomers:
                since[endpoint] = now
        self._since = since
        for endpoint in members:
            began = since.get(endpoint)
            part = 1.0 if began is None else max(MIN_WEIGHT, (now - began) / self.window)
            endpoint.weight = endpoint.spec.weight * part
        if since:
            self._timer.set(now + max(self.window / STEPS, _SHORTEST_STEP))

    def close(self) -> None:
        """Let go of the timer; every endpoint has its whole weight again."""
        self._timer.close()
        for endpoint in self._known:
            endpoint.weight = float(endpoint.spec.weight)
