"""A graceful end: no new connections, idle ones closed, what is in flight finished, then the rest."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from hms_addons.clock import Clock
    from hms_addons.engine.fast_lane import FastLane
    from hms_addons.engine.http1_server import Http1Server

POLL = 0.05
"""Seconds between looks at what is still there."""
_TURNS = 100
"""Turns of the event loop that requests which were cut off are given to end."""


async def drain(connections: Iterable[Collection[Http1Server]], clock: Clock, grace: float) -> int:
    """Let connections finish their requests; cut off those that have not after `grace` seconds.

    Args:
        connections: the live connection sets of each lane; they shrink as connections close.
        clock: time.
        grace: seconds.

    Returns:
        How many connections had to be cut off.
    """
    groups = list(connections)
    deadline = clock.monotonic() + grace
    while True:
        left = [connection for group in groups for connection in list(group)]
        if not left:
            return 0
        for connection in left:
            connection.drain()
        if clock.monotonic() >= deadline:
            for connection in left:
                connection.abort()
            return len(left)
        await clock.sleep(POLL)


async def ended(lanes: Sequence[FastLane]) -> None:
    """Let requests that were cut off end, so that plugins are shut down after the last of them."""
    for _ in range(_TURNS):
        if not any(lane.in_flight or lane.connections for lane in lanes):
            return
        await asyncio.sleep(0)
