"""A bound port: accepts connections, swaps its TLS identity, and drains."""

from __future__ import annotations

import heapq
import logging
from typing import TYPE_CHECKING, Any, Final

from hms_addons.engine.acceptor import Acceptor
from hms_addons.engine.http1_server import Http1Server
from hms_addons.engine.log_limit import LogLimit
from hms_addons.listening import listen
from hms_addons.tls_connection import TlsConnection

if TYPE_CHECKING:
    import ssl

    from hms_addons.clock import Clock
    from hms_addons.engine.lane import Lane

logger = logging.getLogger(__name__)

HANDSHAKES: Final = 1024
"""TLS handshakes that may be under way at once, of 10 s each at most (`HANDSHAKE_TIMEOUT`). One more,
and the oldest is given up: who has not finished by then is most likely not going to."""

SPARED: Final = 32
"""Idle connections that are closed at a time when no more can be opened."""


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
        self._log = LogLimit(logger, clock)
        self._acceptor: Acceptor | None = None
        # Connections in their handshake, oldest first.
        self._shaking: dict[TlsConnection, None] = {}

    def __repr__(self) -> str:
        where = f"{self.address[0]}:{self.address[1]}" if self.address else "closed"
        return f"<PortListener {self.name} {where}>"

    def bind(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Take the address; `port` 0 picks a free one. Whoever connects waits until `accept`.

        Raises:
            ListenError: the address is in use, not permitted, or not this machine's.
        """
        self.tls = tls
        who = f"listener '{self.name}'"
        listening = listen(who, host, port)
        self.address = listening.getsockname()[:2]
        self._acceptor = Acceptor(who, listening, self._connected, self._clock, self._make_room)

    def accept(self) -> None:
        """Accept connections from now on, if it is bound."""
        if self._acceptor is not None:
            self._acceptor.start()

    def open(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        """Bind and accept, see there."""
        self.bind(host, port, tls)
        self.accept()

    def _connected(self) -> Any:
        tls = self.tls
        if tls is None:
            return self._serve()
        if len(self._shaking) >= HANDSHAKES:
            next(iter(self._shaking)).abort()

        def refused(error: Exception) -> None:
            self._shaking.pop(secured, None)
            host, port = (secured.get_extra_info("peername") or ("", 0))[:2]
            self._log.info(
                "listener %s: a TLS handshake failed: %s:%d: %s", self.name, host, port, error
            )

        secured = TlsConnection(tls, self._serve, self._clock, server_side=True, on_failed=refused)
        secured.on_handshaken = lambda: self._shaking.pop(secured, None)
        self._shaking[secured] = None
        return secured

    def _serve(self) -> Http1Server:
        return Http1Server(self._lane, self._clock)

    def _make_room(self) -> int:
        """Close the connections that have been idle for longest; returns how many."""
        idle = [connection for connection in self._lane.connections if connection.idle]
        longest = heapq.nsmallest(SPARED, idle, key=lambda connection: connection.idle_until)
        for connection in longest:
            connection.close()
        return len(longest)

    def close(self) -> None:
        """Stop accepting; connections that are there go on, those in their handshake do not."""
        if self._acceptor is not None:
            self._acceptor.close()
            self._acceptor = None
        self.address = None
        for secured in list(self._shaking):
            secured.abort()
