"""The upstream's side of an upgraded connection (`http_message.Tunnel`)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from hms_addons.http_message import BodyStream

if TYPE_CHECKING:
    from hms_addons.upstream.http1_exchange import Http1Exchange


class UpstreamTunnel:
    """Raw bytes both ways over a connection that has switched protocols.

    The connection stays checked out, with all its slots, until the tunnel is closed or lost.
    """

    __slots__ = ("_connection", "_waiters", "incoming", "lost", "protocol")

    def __init__(self, connection: Http1Exchange, protocol: bytes) -> None:
        transport = connection.transport
        self._connection = connection
        self._waiters: list[asyncio.Future[None]] = []
        self.lost = False
        self.protocol = protocol
        self.incoming = BodyStream(transport.pause_reading, transport.resume_reading)

    def __repr__(self) -> str:
        return f"<UpstreamTunnel {'lost' if self.lost else 'open'} {self.incoming!r}>"

    def write(self, data: bytes) -> None:
        """See `Tunnel`; after the end it is dropped."""
        if not self.lost:
            self._connection.transport.write(data)

    async def drain(self) -> None:
        """See `Tunnel`.

        Raises:
            ConnectionResetError: the upstream has gone.
        """
        while self._connection.write_paused and not self.lost:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.append(waiter)
            await waiter
        if self.lost:
            raise ConnectionResetError("the upstream closed the tunnel")

    def write_eof(self) -> None:
        """See `Tunnel`; over TLS, which cannot be half closed, it ends both directions."""
        if self.lost:
            return
        if self._connection.transport.can_write_eof():
            self._connection.transport.write_eof()
        else:
            self.close()

    def close(self) -> None:
        """See `Tunnel`."""
        self._connection.abort()

    # -- told by the connection -----------------------------------------------------------------

    def resume(self) -> None:
        """The transport's buffer has drained."""
        self._wake()

    def end(self, error: BaseException | None) -> None:
        """The connection is gone."""
        self.lost = True
        if error is None:
            self.incoming.feed_eof()
        else:
            self.incoming.fail(error)
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
