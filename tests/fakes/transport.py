"""A transport without a socket: what a protocol writes is kept, what it asks for is remembered."""

from __future__ import annotations

import asyncio
import errno
from typing import Any

HIGH_WATER = 64 * 1024


class FakeTransport(asyncio.Transport):
    """The server's end of a connection to `protocol`, which it connects at once.

    Args:
        protocol: gets `connection_made` now, and `connection_lost` a turn of the loop after the end.
        tls: behave as a TLS transport does, which cannot be half closed.

    Attributes:
        sent: every byte written so far.
        reading: False while the protocol has paused reading.
        eof: `write_eof` was called.
        aborted: `abort` was called.
        lost: `connection_lost` has been called.
        stalled: the peer takes nothing: what is written stays in the buffer, with backpressure.
        broken: the peer's reset has come and the loop has not told of it yet: `write_eof` fails.
    """

    def __init__(self, protocol: Any, *, tls: bool = False, **extra: Any) -> None:
        super().__init__(
            {"peername": ("192.0.2.7", 40000), "sockname": ("127.0.0.1", 15001), **extra}
        )
        self.protocol = protocol
        self.sent = bytearray()
        self.reading = True
        self.eof = False
        self.aborted = False
        self.lost = False
        self.stalled = False
        self.broken = False
        self._tls = tls
        self._buffered = 0
        self._paused = False
        self._closing = False
        protocol.connection_made(self)

    # -- what the protocol calls ----------------------------------------------------------------

    def write(self, data: Any) -> None:
        assert isinstance(data, bytes | bytearray | memoryview)
        assert not self.eof, "written after write_eof"
        if self._closing:
            return
        self.sent += data
        if self.stalled:
            self._buffered += len(data)
            if self._buffered > HIGH_WATER and not self._paused:
                self._paused = True
                self.protocol.pause_writing()

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return not self._tls

    def write_eof(self) -> None:
        assert not self._tls, "a TLS transport cannot be half closed"
        if self.broken:
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected")
        self.eof = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_reading(self) -> bool:
        return self.reading

    def get_write_buffer_size(self) -> int:
        return self._buffered

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing:
            self._closing = True
            if not self._buffered:
                self._lose_soon()

    def abort(self) -> None:
        self.aborted = True
        self._closing = True
        self._lose_soon()

    # -- what the peer does ---------------------------------------------------------------------

    def release(self) -> None:
        """The peer takes all that was written."""
        self.stalled = False
        self._buffered = 0
        if self._paused:
            self._paused = False
            self.protocol.resume_writing()
        if self._closing:
            self._lose_soon()

    def take(self, count: int) -> None:
        """The peer takes so many bytes, and leaves the rest."""
        self._buffered = max(self._buffered - count, 0)
        if self._paused and self._buffered <= HIGH_WATER // 4:
            self._paused = False
            self.protocol.resume_writing()

    def leave(self) -> None:
        """The peer closes its side; like a real transport, this one closes unless it is kept."""
        if not self.protocol.eof_received():
            self.close()

    def reset(self) -> None:
        """The peer's reset arrives."""
        self._closing = True
        self._lose(ConnectionResetError("reset by peer"))

    def _lose_soon(self) -> None:
        asyncio.get_running_loop().call_soon(self._lose, None)

    def _lose(self, error: Exception | None) -> None:
        if not self.lost:
            self.lost = True
            self.protocol.connection_lost(error)
