"""A bound port: accepts connections, swaps its TLS identity, and drains."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING

from hms_addons.engine.http1_server import Http1Server
from hms_addons.errors import MeshError

if TYPE_CHECKING:
    import ssl

    from hms_addons.clock import Clock
    from hms_addons.engine.http1_server import Lane

BACKLOG = 2048
HANDSHAKE_TIMEOUT = 10.0
"""Seconds for a peer's TLS handshake."""


class ListenError(MeshError):
    """A port cannot be listened on; says which, why, and what to do."""


class PortListener:
    """Accepts connections on one address and gives each to an `Http1Server` of `lane`.

    The socket is opened once and stays open while the server behind it is replaced: a new TLS
    identity means a new server on the same socket, so no connection is refused in between.
    """

    def __init__(self, name: str, lane: Lane, clock: Clock) -> None:
        self.name = name
        self.address: tuple[str, int] | None = None
        """Where it listens; None when it does not."""
        self._lane = lane
        self._clock = clock
        self._socket: socket.socket | None = None
        self._server: asyncio.Server | None = None

    def __repr__(self) -> str:
        where = f"{self.address[0]}:{self.address[1]}" if self.address else "closed"
        return f"<PortListener {self.name} {where}>"

    async def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Bind and accept; `port` 0 picks a free one.

        Raises:
            ListenError: the address is in use, not permitted, or not this machine's.
        """
        self._socket = _bind(self.name, host, port)
        self.address = self._socket.getsockname()[:2]
        await self.use_tls(tls)

    async def use_tls(self, tls: ssl.SSLContext | None) -> None:
        """Serve connections from now on with `tls` (None: plain); older ones keep theirs."""
        if self._socket is None:
            return
        old = self._server
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: Http1Server(self._lane, self._clock),
            sock=self._socket.dup(),
            ssl=tls,
            backlog=BACKLOG,
            ssl_handshake_timeout=HANDSHAKE_TIMEOUT if tls is not None else None,
        )
        if old is not None:
            old.close()

    def close(self) -> None:
        """Stop accepting; connections that are there go on."""
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
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
