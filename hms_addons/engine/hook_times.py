"""How long hooks take, measured for a while because somebody asked.

A chain's hooks are put behind stopwatches, and taken out again: nothing is measured, and nothing costs
anything, as long as nobody asks.
"""

from __future__ import annotations

import inspect
from time import perf_counter
from typing import TYPE_CHECKING, Any

from hms_addons.engine.hook_chain import Hook

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from hms_addons.clock import Clock
    from hms_addons.engine.hook_chain import HookChain

_PLAIN = frozenset({"hms_pick_endpoint", "hms_complete"})
"""Hooks whose result is not awaited."""


class HookTimes:
    """Stopwatches for hooks.

    Args:
        timer: seconds, of a clock that never goes back.
    """

    def __init__(self, timer: Callable[[], float] = perf_counter) -> None:
        self._timer = timer
        self._spent: dict[tuple[str, str], list[float]] = {}

    def __repr__(self) -> str:
        return f"<HookTimes hooks={len(self._spent)}>"

    def watched(self, hook: Hook) -> Hook:
        """The same hook behind a stopwatch. What it waits for counts, too."""
        spent = self._spent.setdefault((hook.plugin, hook.name), [0, 0.0, 0.0])
        call, timer = hook.call, self._timer
        awaits = hook.name not in _PLAIN

        def add(began: float) -> None:
            took = timer() - began
            spent[0] += 1
            spent[1] += took
            spent[2] = max(spent[2], took)

        async def wait(result: Awaitable[Any], began: float) -> Any:
            try:
                return await result
            finally:
                add(began)

        def timed(*arguments: Any) -> Any:
            began = timer()
            try:
                result = call(*arguments)
            except BaseException:
                add(began)
                raise
            if awaits and result is not None and inspect.isawaitable(result):
                return wait(result, began)
            add(began)
            return result

        return Hook(timed, hook.plugin, hook.name)

    def rows(self) -> list[dict[str, Any]]:
        """Every hook that was watched: calls, and microseconds on average, at most and together."""
        return [
            {
                "plugin": plugin,
                "hook": name,
                "calls": int(calls),
                "mean_us": round(total / calls * 1e6, 1) if calls else None,
                "max_us": round(most * 1e6, 1) if calls else None,
                "total_ms": round(total * 1e3, 2) if calls else None,
            }
            for (plugin, name), (calls, total, most) in self._spent.items()
        ]


async def measure(chain: HookChain, clock: Clock, seconds: float) -> list[dict[str, Any]]:
    """What the hooks of a chain take in the next `seconds`: `HookTimes.rows`.

    A configuration that comes in meanwhile has a chain of its own, which is not measured.

    Raises:
        MeshError: it is measured already.
    """
    times = HookTimes()
    before = chain.watch(times.watched)
    try:
        await clock.sleep(seconds)
    finally:
        chain.unwatch(before)
    return times.rows()
