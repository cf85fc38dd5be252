"""The transport to a client: when it is read, how long it may leave unread what is written, how it ends.

Nothing here knows what the bytes mean.

- The read gate: who has enough for now pauses reading; what was read and is not wanted yet waits.
- The write watch: a client that takes nothing for a minute is cut off.
- The ends: at once, in good order, or lingering until the client has read the last answer.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from hms_addons.engine.flow_control import FlowControl

if TYPE_CHECKING:
    from hms_addons.clock import Clock, Timer
    from hms_addons.config.snapshot import Limits
    from hms_addons.lazy_timer import LazyTimer

LINGER: Final = 2.0
"""Seconds to go on reading, and discarding, after a last answer: closing with unread bytes sends a
reset, which can destroy the answer before the client has read it."""


class ClientTransport:
    """The part of an `Http1Server` that its transport alone concerns.

    Attributes:
        transport: set once connected.
        flow_control: tells whether its write buffer is full.
    """

    __slots__ = (
        "_ahead",
        "_clock",
        "_limits",
        "_lingering",
        "_loop",
        "_parsing",
        "_reading_paused",
        "_timer",
        "_write_timer",
        "flow_control",
        "transport",
    )

    transport: asyncio.Transport
    _timer: LazyTimer
    """The deadline of whatever is waited for; set by `Http1Server`, which it calls."""

    def __init__(self, clock: Clock, limits: Limits) -> None:
        self.flow_control = FlowControl()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._limits = limits
        self._write_timer: Timer | None = None
        self._parsing = True  # what is read still counts
        self._reading_paused = False
        self._ahead = b""  # read, and not parsed before some requests are answered
        self._lingering = False

    # -- the read gate --------------------------------------------------------------------------

    def _pause_reading(self) -> None:
        if not self._reading_paused and not self.transport.is_closing():
            self._reading_paused = True
            self.transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._reading_paused and not self.transport.is_closing():
            if self._ahead:
                self._loop.call_soon(self._read_ahead)
                return
            self._reading_paused = False
            self.transport.resume_reading()

    def _read_ahead(self) -> None:
        """Go on with what was read before; with the socket, when that is all parsed."""
        raise NotImplementedError

    # -- the write watch ------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`: the client has a minute to take some of what is written."""
        self.flow_control.pause()
        self._watch_writes(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        self._stop_watching_writes()
        self.flow_control.resume()

    def _watch_writes(self, left: int) -> None:
        timeout = self._limits.body_timeout
        self._write_timer = self._clock.call_later(timeout, self._look_at_writes, left)

    def _look_at_writes(self, before: int) -> None:
        """Cut off a client that reads nothing: its upstream connection waits for it too."""
        left = self.transport.get_write_buffer_size()
        if left < before:
            self._watch_writes(left)
        else:
            self.abort()

    def _stop_watching_writes(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    # -- the ends -------------------------------------------------------------------------------

    def abort(self) -> None:
        """Cut the connection off, so that what was sent cannot be taken for whole."""
        self._parsing = False
        self.transport.abort()

    def close(self) -> None:
        """Close once what was written has been sent; a client that does not take it is cut off."""
        self._parsing = False
        self.transport.close()
        if self.transport.get_write_buffer_size():
            self._timer.set(self._clock.monotonic() + self._limits.body_timeout)

    def _linger(self, *, unread: bool) -> None:
        """Close; but if the client may still be sending, give it time to read the answer first."""
        self._parsing = False
        if self._lingering or self.transport.is_closing():
            return
        if not unread:
            self.close()
            return
        self._lingering = True
        if self.transport.can_write_eof():
            try:
                self.transport.write_eof()
            except OSError:  # it has just been reset, which the loop tells of next
                self.transport.abort()
                return
        self._resume_reading()
        self._timer.set(self._clock.monotonic() + LINGER)
