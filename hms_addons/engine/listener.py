"""A bound port: accepts connections, swaps its TLS identity, and drains."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hms_addons.engine.http1_server import Http1Server
from hms_addons.listening import BACKLOG, listen
from hms_addons.tls_connection import TlsConnection

if TYPE_CHECKING:
    import ssl

    from hms_addons.clock import Clock
    from hms_addons.engine.http1_server import Lane

logger = logging.getLogger(__name__)


class PortListener:
    """Accepts connections on one address and gives each to an `Http1Server` of `lane`.

    Each connection is secured with the TLS context in force when it is accepted: a new identity is
    one assignment, and no connection is refused in between.
    """

    def __init__(self, name: str, lane: Lane, clock: Clock) -> None:
        self.name = name
        self.address: tuple[str, int] | None = None
        """Where it listens; None when it does not."""
        self.tls: ssl.SSLContext | None = None
        """What connections accepted from now on are secured with; None: plain."""
        self._lane = lane
        self._clock = clock
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        where = f"{self.address[0]}:{self.address[1]}" if self.address else "closed"
        return f"<PortListener {self.name} {where}>"

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Bind and accept; `port` 0 picks a free one.

        Raises:
            ListenError: the address is in use, not permitted, or not this machine's.
        """
        self.tls = tls
        listening = listen(f"listener '{self.name}'", host, port)
        self.address = listening.getsockname()[:2]
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            self._accept, sock=listening, backlog=BACKLOG, start_serving=False
        )
        try:
            await self._server.start_serving()
        except BaseException:
            self.close()  # whoever was cancelled here does not know of it yet
            raise

    def _accept(self) -> asyncio.Protocol:
        if self.tls is None:
            return self._serve()
        return TlsConnection(
            self.tls, self._serve, self._clock, server_side=True, on_failed=self._refused
        )

    def _serve(self) -> Http1Server:
        return Http1Server(self._lane, self._clock)

    def _refused(self, error: Exception) -> None:
        logger.info("listener %s: a TLS handshake failed: %s", self.name, error)

    def close(self) -> None:
        """Stop accepting; connections that are there go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self.address = None
