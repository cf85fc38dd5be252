"""Long polls: wait for something, but no longer than asked, than the client stays, than we serve."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from fastapi import Request

    from hms_addons.control.plane import ControlPlane


async def wait_for[T](
    plane: ControlPlane, request: Request, waiting: Coroutine[Any, Any, T], seconds: float
) -> T | None:
    """What `waiting` returns, or None: its time is up, the client has left, or we are stopping.

    The time is left out of what the metrics say a request took.

    Args:
        plane: tells time, and when to stop.
        request: of the client that waits; its body has been read.
        waiting: cancelled when nobody waits for it any more.
        seconds: the longest time.
    """
    began = plane.clock.monotonic()
    late = asyncio.Event()
    tasks = TaskSet("long poll")
    timer = plane.clock.call_later(seconds, late.set)
    plane.metrics.watchers.inc()
    try:
        work = tasks.start(waiting, "wait")
        ends = {
            tasks.start(late.wait(), "time"),
            tasks.start(plane.stopping.wait(), "stop"),
            tasks.start(_gone(request), "client"),
        }
        await asyncio.wait({work, *ends}, return_when=asyncio.FIRST_COMPLETED)
        return work.result() if work.done() else None
    finally:
        plane.metrics.watchers.dec()
        timer.cancel()
        await tasks.close()
        request.scope["state"]["waited"] = plane.clock.monotonic() - began


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
