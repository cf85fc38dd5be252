"""The control plane's port: uvicorn over TLS, whose certificate is replaced while it serves.

Each connection is secured with the TLS context in force when it is accepted, so a renewed certificate
is one assignment: connections that are there go on. If a root is no longer trusted, those that were
let in by it are closed once they have been answered.

A client certificate is asked for and not required; one that no root stands behind fails the
handshake. Who it names is judged per SPIFFE (`auth.Peer`).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import uvicorn

from hms_addons.control.auth import Peer
from hms_addons.control.server_protocol import ControlProtocol, Limits
from hms_addons.identity.tls_context import server_context
from hms_addons.listening import BACKLOG
from hms_addons.tls_connection import TlsConnection

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Generator

    from cryptography import x509
    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from hms_addons.clock import Clock
    from hms_addons.identity.svid import Svid
    from hms_addons.identity.trust_bundle import TrustBundle

logger = logging.getLogger(__name__)

HANDSHAKE_TIME: Final = 5.0
KEEP_ALIVE: Final = 75
"""Seconds a connection may be idle between two requests."""
STOP_TIME: Final = 10
"""Seconds that requests are given to end when the server stops."""
MAX_CONNECTIONS: Final = 4096

_RETIRED: Final = Peer(problem="the root of the client certificate was retired: connect again")


class ControlServer(uvicorn.Server):
    """Serves an ASGI application over TLS.

    `use` says with which certificate, at first and whenever it is renewed.

    Args:
        app: the application.
        clock: time, injected.
        limits: of each connection.
        max_connections: at once, handshakes included; more are closed as they come.
    """

    def __init__(
        self,
        app: Any,
        clock: Clock,
        *,
        limits: Limits | None = None,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        super().__init__(
            uvicorn.Config(
                app,
                http=self._accept,  # type: ignore[arg-type] # any callable will do
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_keep_alive=KEEP_ALIVE,
                timeout_graceful_shutdown=STOP_TIME,
                backlog=BACKLOG,
            )
        )
        self.ready = asyncio.Event()
        """Set once connections are accepted."""
        self._clock = clock
        self._limits = limits or Limits()
        self._max_connections = max_connections
        self._context: ssl.SSLContext | None = None
        self._roots: frozenset[x509.Certificate] = frozenset()
        self._trust_domain = ""
        self._open = 0
        self._turned_away = 0

    def __repr__(self) -> str:
        return f"<ControlServer {self._trust_domain} connections={self._open}>"

    @property
    def open_connections(self) -> int:
        """Connections that are open, handshakes included."""
        return self._open

    def use(self, svid: Svid, bundle: TrustBundle) -> None:
        """Present a certificate and trust some roots, from the next connection on."""
        self._context = server_context(svid, bundle, require_peer=False)
        self._trust_domain = bundle.trust_domain
        retired = self._roots - set(bundle.roots)
        self._roots = frozenset(bundle.roots)
        if retired:
            for connection in tuple(self.server_state.connections):
                if isinstance(connection, ControlProtocol) and not connection.is_trusted_by(bundle):
                    connection.forget_peer(_RETIRED)

    async def run_on(self, listening: socket.socket) -> None:
        """Serve on a listening socket until `stop`; `use` was called before."""
        await self.serve([listening])

    def stop(self) -> None:
        """Accept no more, answer what is in flight, and end."""
        self.should_exit = True
        # Now, not at uvicorn's next tick: what is answered from here on says that it is the last.
        for server in self.servers if self.started else ():
            server.close()
        for connection in tuple(self.server_state.connections):
            connection.shutdown()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self.ready.set()

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """The process handles its signals itself."""
        yield

    def _accept(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> asyncio.Protocol:
        """The protocol of a new connection; uvicorn calls it as a class."""
        del app_state
        assert self._context is not None, "`use` comes first"  # noqa: S101
        if self._open >= self._max_connections:
            self._turn_away()
            return _TurnedAway()
        self._open += 1
        trust_domain = self._trust_domain

        def serve() -> ControlProtocol:
            return ControlProtocol(
                config,
                server_state,
                peer_of=lambda ssl_object: Peer.of(ssl_object, trust_domain),
                clock=self._clock,
                limits=self._limits,
                on_lost=self._lost,
            )

        return TlsConnection(  # type: ignore[return-value] # a protocol by its methods
            self._context,
            serve,
            self._clock,
            server_side=True,
            on_failed=self._handshake_failed,
            handshake_timeout=HANDSHAKE_TIME,
        )

    def _lost(self, connection: ControlProtocol) -> None:
        del connection
        self._open -= 1

    def _handshake_failed(self, error: Exception) -> None:
        self._open -= 1
        logger.info("a TLS handshake failed: %s", error)

    def _turn_away(self) -> None:
        self._turned_away += 1
        if self._turned_away & (self._turned_away - 1) == 0:  # the 1st, 2nd, 4th, 8th …
            logger.warning(
                "%d connections are open, the most that are allowed: %d turned away so far",
                self._open,
                self._turned_away,
            )


class _TurnedAway(asyncio.Protocol):
    """A connection too many: closed before anything is read."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.BaseProtocol`."""
        transport.abort()  # type: ignore[attr-defined] # of a socket
