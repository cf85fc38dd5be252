"""A graceful end: no new connections, idle ones closed, what is in flight finished, then the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

    from hms_addons.clock import Clock
    from hms_addons.engine.http1_server import Http1Server

POLL = 0.05
"""Seconds between looks at what is still there."""


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
