"""A bound port: accepts connections, swaps its TLS identity, and drains."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from typing import TYPE_CHECKING

from hms_addons.engine.http1_server import Http1Server
from hms_addons.errors import MeshError
from hms_addons.tls_connection import TlsConnection

if TYPE_CHECKING:
    import ssl

    from hms_addons.clock import Clock
    from hms_addons.engine.http1_server import Lane

logger = logging.getLogger(__name__)

BACKLOG = 2048


class ListenError(MeshError):
    """A port cannot be listened on; says which, why, and what to do."""


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
        listening = _bind(self.name, host, port)
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


def _bind(name: str, host: str, port: int) -> socket.socket:
    try:
        info = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        message = f"listener '{name}': '{host}' is no address of this machine ({error.strerror})"
        raise ListenError(message) from error
    family, kind, protocol, _, address = info
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.setblocking(False)  # noqa: FBT003 - the socket module's signature
        listening.bind(address)
        listening.listen(BACKLOG)
    except OSError as error:
        listening.close()
        raise ListenError(_why(name, host, port, error)) from error
    return listening


def _why(name: str, host: str, port: int, error: OSError) -> str:
    start = f"listener '{name}' cannot listen on {host or '*'}:{port}: "
    if error.errno == errno.EADDRINUSE:
        return f"{start}the port is in use; end the program that holds it (`ss -ltnp 'sport = \
:{port}'` names it) or choose another port"
    if error.errno == errno.EACCES:
        return f"{start}ports below 1024 need privileges; choose a higher one"
    return f"{start}{error.strerror or error}"
