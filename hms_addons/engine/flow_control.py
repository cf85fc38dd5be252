"""Backpressure towards one peer: wait while its transport's buffer is full."""

from __future__ import annotations

import asyncio


class FlowControl:
    """Told by `pause_writing` and `resume_writing`; asked by whoever writes a long body."""

    __slots__ = ("_closed", "_waiters", "paused")

    def __init__(self) -> None:
        self.paused = False
        self._closed = False
        self._waiters: list[asyncio.Future[None]] = []

    def __repr__(self) -> str:
        return f"<FlowControl {'paused' if self.paused else 'open'}>"

    def pause(self) -> None:
        """The transport's buffer is above its high-water mark."""
        self.paused = True

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self.paused = False
        self._wake()

    def close(self) -> None:
        """The transport is gone: whoever waits gets `ConnectionResetError`."""
        self._closed = True
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def drain(self) -> None:
        """Wait until writing may go on; at once when it may.

        Raises:
            ConnectionResetError: the transport was lost.
        """
        while self.paused and not self._closed:
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self._closed:
            message = "the connection was lost"
            raise ConnectionResetError(message)
