"""TLS between a raw transport and a protocol, with as few calls a message as it can be done in.

asyncio's own TLS (uvloop's too) asks OpenSSL for more until it raises `SSLWantReadError`, at every
read, and turns a failed handshake into a bare close. On a hop that carries one small message at a
time that was half of the sidecar's own time. Here the same `ssl.SSLObject` is read once for what has
arrived, and an alert is sent before the connection is closed, so that the peer learns what was wrong.

A `TlsConnection` is both ends in one object: the protocol of the raw transport, and the transport of
the protocol inside.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from hms_addons.clock import Clock, Timer

logger = logging.getLogger(__name__)

HANDSHAKE_TIMEOUT: Final = 10.0
"""Seconds a peer is given to finish its handshake."""

_READ: Final = 256 * 1024


class TlsConnection:
    """One TLS connection.

    Args:
        context: of this side.
        inner: makes the protocol inside, once the handshake is done.
        clock: time, for the handshake's limit.
        server_side: whether this side accepts.
        on_failed: told why the handshake failed; the connection is closed by then.
        handshake_timeout: seconds; None leaves the limit to the caller.

    Attributes:
        inner: the protocol inside; None until the handshake is done.
    """

    __slots__ = (
        "_clock",
        "_closing",
        "_error",
        "_handshaken",
        "_incoming",
        "_make_inner",
        "_on_failed",
        "_outgoing",
        "_raw",
        "_ssl",
        "_timeout",
        "_timer",
        "inner",
        "on_handshaken",
    )

    _raw: asyncio.Transport

    def __init__(
        self,
        context: ssl.SSLContext,
        inner: Callable[[], Any],
        clock: Clock,
        *,
        server_side: bool,
        on_failed: Callable[[Exception], object],
        handshake_timeout: float | None = HANDSHAKE_TIMEOUT,
    ) -> None:
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._ssl = context.wrap_bio(self._incoming, self._outgoing, server_side=server_side)
        self._make_inner = inner
        self._clock = clock
        self._on_failed = on_failed
        self._timeout = handshake_timeout
        self._timer: Timer | None = None
        self._handshaken = False
        self._closing = False
        self._error: Exception | None = None
        self.inner: Any = None
        self.on_handshaken: Callable[[], object] = lambda: None
        """Called when the handshake is done and the protocol inside has been told."""

    def __repr__(self) -> str:
        state = "closing" if self._closing else "open" if self._handshaken else "handshake"
        return f"<TlsConnection {state}>"

    # -- the raw transport's protocol -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`: begin the handshake."""
        self._raw = transport  # type: ignore[assignment] # a stream's transport
        if self._closing:
            self._raw.abort()
            return
        if self._timeout is not None:
            self._timer = self._clock.call_later(self._timeout, self._too_slow)
        self._shake_hands()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        incoming = self._incoming
        incoming.write(data)
        if not self._handshaken and not self._shake_hands():
            return
        ssl_object = self._ssl
        inner = self.inner
        assert inner is not None  # noqa: S101 - made with the handshake
        # `pending` tells whether reading on is of use: the exception that would tell it otherwise
        # costs more than the reading.
        while (incoming.pending or ssl_object.pending()) and not self._closing:
            try:
                # What is read is never longer than what it came in, and a small buffer is cheaper.
                plain = ssl_object.read(min(_READ, incoming.pending + ssl_object.pending()))
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                self._peer_closed()
                break
            except ssl.SSLError as error:
                self._broken(error)
                break
            if not plain:
                self._peer_closed()
                break
            inner.data_received(plain)
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())  # an alert, a key update

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: without a close_notify before it, that is a cut."""
        if not self._closing:
            reason = "the peer closed the connection without ending TLS"
            self._broken(ConnectionResetError(reason))
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._closing = True
        if self._timer is not None:
            self._timer.cancel()
        if self.inner is not None:
            self.inner.connection_lost(self._error or exc)
        elif self._error is None:
            self._error = exc or ConnectionResetError("the connection was closed in the handshake")
            self._on_failed(self._error)
        # They may well refer to this connection; it should not have to wait for the collector.
        self._on_failed = self.on_handshaken = _ignore

    def pause_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self.inner is not None:
            self.inner.pause_writing()

    def resume_writing(self) -> None:
        """See `asyncio.BaseProtocol`."""
        if self.inner is not None:
            self.inner.resume_writing()

    def _shake_hands(self) -> bool:
        """Go on with the handshake; True once it is done."""
        if self._closing:
            return False
        try:
            self._ssl.do_handshake()
        except ssl.SSLWantReadError:
            self._flush()
            return False
        except (ssl.SSLError, OSError) as error:
            self._broken(error)
            return False
        self._flush()
        self._handshaken = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.inner = self._make_inner()
        self.inner.connection_made(self)
        self.on_handshaken()
        return True

    def _flush(self) -> None:
        if self._outgoing.pending and not self._raw.is_closing():
            self._raw.write(self._outgoing.read())

    def _too_slow(self) -> None:
        self._timer = None
        self._broken(TimeoutError(f"the TLS handshake was not done within {self._timeout:g} s"))

    def _peer_closed(self) -> None:
        """close_notify: the peer will send no more."""
        if self.inner is not None:
            self.inner.eof_received()
        self.close()

    def _broken(self, error: Exception) -> None:
        """Tell the peer why, if OpenSSL has an alert for it, and let go."""
        if self._closing:
            return
        self._closing = True
        self._error = error
        self._flush()
        if self._handshaken:
            self._raw.abort()
            return
        self._raw.close()
        self._on_failed(error)

    # -- the inner protocol's transport ---------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """See `asyncio.WriteTransport`."""
        if self._closing or not data:
            return
        try:
            self._ssl.write(data)
        except ssl.SSLError as error:
            self._broken(error)
            return
        self._raw.write(self._outgoing.read())

    def writelines(self, list_of_data: Iterable[bytes | bytearray | memoryview[Any]]) -> None:
        """See `asyncio.WriteTransport`."""
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        """See `asyncio.WriteTransport`: TLS has no half-close."""
        return False

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing

    def close(self) -> None:
        """See `asyncio.BaseTransport`: send close_notify and what is buffered, then close."""
        if self._closing:
            return
        self._closing = True
        # It would wait for the peer's close_notify, for which we do not.
        with contextlib.suppress(ssl.SSLError, ValueError):
            self._ssl.unwrap()
        self._flush()
        self._raw.close()

    def abort(self) -> None:
        """See `asyncio.WriteTransport`: no close_notify, so that it is seen to be a cut."""
        self._closing = True
        if hasattr(self, "_raw"):  # else as soon as it is there
            self._raw.abort()

    def get_write_buffer_size(self) -> int:
        """See `asyncio.WriteTransport`."""
        return self._raw.get_write_buffer_size()

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """See `asyncio.WriteTransport`."""
        return self._raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """See `asyncio.WriteTransport`."""
        self._raw.set_write_buffer_limits(high, low)

    def is_reading(self) -> bool:
        """See `asyncio.ReadTransport`."""
        return self._raw.is_reading()

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._raw.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`; `ssl_object` is the `ssl.SSLObject`."""
        if name == "ssl_object":
            return self._ssl
        return self._raw.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """See `asyncio.BaseTransport`."""
        self.inner = protocol

    def get_protocol(self) -> Any:
        """See `asyncio.BaseTransport`."""
        assert self.inner is not None  # noqa: S101 - only asked for once it is there
        return self.inner


def _ignore(*_: object) -> None:
    """In place of a callback that is not to be called any more."""
