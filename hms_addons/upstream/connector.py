"""How a connection to an endpoint comes about: TCP, TLS, and who is at the other end.

This is the one seam between the upstream package and the network: tests put a fake `Connector` in its
place. Timeouts are the caller's: it cancels.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol, cast

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.identity.tls_context import PeerIdentityError
from hms_addons.tls_connection import TlsConnection
from hms_addons.upstream.outcome import WRONG_PEER, Outcome, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.identity.identity_holder import Identity
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection


class PeerTls(NamedTuple):
    """How a connection is secured: with whose identity, and whom it must reach."""

    identity: Identity
    peers: frozenset[SpiffeId]


class ConnectionObserver(Protocol):
    """Told of every upstream connection; the engine fires mitmproxy's server events from it."""

    async def connecting(self, endpoint: Endpoint) -> Any:
        """A connection is about to be made.

        Returns:
            A handle for it, passed to the other methods and kept as `connection.handle`.

        Raises:
            Exception: it must not be; the attempt fails with a connection failure.
        """

    async def connected(self, handle: Any, connection: Http1Connection) -> None:
        """It was made; TLS included."""

    async def failed(self, handle: Any, error: str) -> None:
        """It could not be made."""

    def disconnected(self, handle: Any) -> None:
        """It was made, and has gone."""


class Connector(Protocol):
    """Makes connections."""

    async def connect(
        self, endpoint: Endpoint, tls: PeerTls | None, factory: Callable[[], Http1Connection]
    ) -> Http1Connection:
        """Connect to an endpoint; cancelling it leaves nothing behind.

        Args:
            endpoint: where to.
            tls: None for plain text.
            factory: makes the protocol.

        Raises:
            UpstreamError: it could not be done, or the peer is the wrong one (`CONNECT_FAILURE`);
                or this side lacks what it takes (`LOCAL`).
        """


class SocketConnector:
    """The real one, over asyncio's transports (which set TCP_NODELAY)."""

    async def connect(
        self, endpoint: Endpoint, tls: PeerTls | None, factory: Callable[[], Http1Connection]
    ) -> Http1Connection:
        """See `Connector`."""
        loop = asyncio.get_running_loop()
        host, port = endpoint.spec.host, endpoint.spec.port
        try:
            if tls is None:
                make: Any = factory  # a protocol by its methods
                _, connection = await loop.create_connection(make, host, port)
                return cast("Http1Connection", connection)
            connection = await _connect_tls(host, port, tls, factory)
        except ssl.SSLError as error:
            raise UpstreamError(
                Outcome.CONNECT_FAILURE, f"TLS failed: {_tls_reason(error)}"
            ) from error
        except OSError as error:
            raise os_failure(error) from error
        _verify(connection, tls)
        return connection


async def _connect_tls(
    host: str, port: int, tls: PeerTls, factory: Callable[[], Http1Connection]
) -> Http1Connection:
    """Connect, and wait for the handshake.

    Raises:
        OSError: no connection, or no handshake (`ssl.SSLError` is one).
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()

    def failed(error: Exception) -> None:
        if not done.done():
            done.set_exception(error)

    secured = TlsConnection(
        tls.identity.client_context,
        factory,
        SYSTEM_CLOCK,
        server_side=False,
        on_failed=failed,
        handshake_timeout=None,  # the caller's connect_timeout covers it
    )

    def succeeded() -> None:
        if not done.done():
            done.set_result(None)

    secured.on_handshaken = succeeded
    make: Any = lambda: secured  # noqa: E731 - a protocol by its methods
    try:
        await loop.create_connection(make, host, port)
        await done
    except asyncio.CancelledError:
        done.cancel()  # also while connecting: nobody would hear how the handshake fails
        secured.abort()
        raise
    connection = secured.inner
    assert connection is not None  # noqa: S101 - made with the handshake
    return cast("Http1Connection", connection)


def _verify(connection: Http1Connection, tls: PeerTls) -> None:
    """The half of TLS that OpenSSL cannot do: is it the workload that we meant to reach?"""
    ssl_object = connection.transport.get_extra_info("ssl_object")
    try:
        tls.identity.verify_peer(ssl_object, tls.peers)
    except PeerIdentityError as error:
        connection.transport.abort()
        raise UpstreamError(Outcome.CONNECT_FAILURE, f"{WRONG_PEER}: {error}") from error


_SHORT_OF: Final = {
    errno.EMFILE: "too many files are open in this sidecar: raise its limit of open files "
    "(`ulimit -n`, or LimitNOFILE= of its unit)",
    errno.ENFILE: "too many files are open on this machine: raise fs.file-max",
    errno.EADDRNOTAVAIL: "this machine has no port left to connect from, or no address of the "
    "endpoint's kind: widen net.ipv4.ip_local_port_range, or keep connections alive",
    errno.ENOBUFS: "this machine has no memory left for sockets: see net.ipv4.tcp_mem",
    errno.ENOMEM: "this machine has no memory left for sockets: see net.ipv4.tcp_mem",
}
"""Errors of `connect` that tell of this side, and what helps."""


def os_failure(error: OSError) -> UpstreamError:
    """What an error of `connect` says: about the endpoint, or about this side."""
    short = None if isinstance(error, socket.gaierror) else _SHORT_OF.get(error.errno or 0)
    if short is not None:
        return UpstreamError(Outcome.LOCAL, short)
    return UpstreamError(Outcome.CONNECT_FAILURE, _os_reason(error))


def _os_reason(error: OSError) -> str:
    """`connection refused`, not asyncio's `Connect call failed ('127.0.0.1', 9001)`."""
    if isinstance(error, socket.gaierror) or not error.errno:
        return error.strerror or str(error) or type(error).__name__
    return os.strerror(error.errno).lower()


def _tls_reason(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not acceptable: {error.verify_message}"
    return error.reason or str(error)


def peer_ids(peers: frozenset[str], trust_domain: str) -> frozenset[SpiffeId]:
    """The SPIFFE IDs of a cluster's `peers`; bare `svc/name` paths are in `trust_domain`.

    Raises:
        SpiffeIdError: one of them is not one.
    """
    return frozenset(
        SpiffeId.parse(peer)
        if peer.startswith("spiffe:")
        else SpiffeId(trust_domain, f"/{peer.lstrip('/')}")
        for peer in peers
    )
