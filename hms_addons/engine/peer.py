"""Who is at the other end of a downstream connection: checked once, before its first request."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from hms_addons.config.snapshot import TlsMode
from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.flow_builder import Mode, build_client
from hms_addons.identity.svid import SvidError, peer_leaf
from hms_addons.identity.tls_context import PeerIdentityError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hms_addons.config.snapshot import Listener
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.identity.identity_holder import Identity

logger = logging.getLogger(__name__)


def identify_connection(
    connection: Http1Server,
    listener: Listener,
    identity: Identity | None,
    mode: Mode | None,
    now: float,
    *,
    watched: bool,
) -> ConnectionContext | None:
    """The context of a new connection, or None if its peer will not do and it must be closed.

    Args:
        connection: just made; for TLS, after the handshake.
        listener: the one it came in by.
        identity: the listener's own, whose trust domain the peer must share.
        mode: mitmproxy's name for the listener.
        now: seconds since the epoch.
        watched: somebody looks at flows, so the peer's certificate is shown on them.
    """
    ssl_object = connection.transport.get_extra_info("ssl_object")
    if ssl_object is None:
        if listener.tls is not TlsMode.NONE:
            return None  # the listener's TLS was switched on while the connection was being made
        client = build_client(connection.peername, connection.sockname, mode, tls=False)
        return ConnectionContext(client, tls=False)
    if identity is None:
        return None
    der = ssl_object.getpeercert(binary_form=True)
    peer = xfcc = None
    if der or listener.tls is TlsMode.STRICT:
        try:
            peer = str(identity.verify_peer(ssl_object, None, now))
        except PeerIdentityError as error:
            logger.warning(
                "listener %s: %s:%d refused: %s", listener.name, *connection.peername, error
            )
            return None
        digest = hashlib.sha256(der).hexdigest()
        xfcc = f"By={identity.spiffe_id};Hash={digest};URI={peer}".encode()
    cipher = ssl_object.cipher()
    client = build_client(
        connection.peername,
        connection.sockname,
        mode,
        tls=True,
        certificate=der if watched else None,
        tls_version=ssl_object.version(),
        cipher=cipher[0] if cipher else None,
    )
    return ConnectionContext(client, tls=True, peer=peer, xfcc=xfcc)


def drain_expired(connections: Iterable[Http1Server], now: float) -> int:
    """Drain the connections whose peer's SVID has expired since it was verified.

    A connection may live for hours; a peer that renews its SVID has made new ones by then. So this
    meets who cannot renew it any more, for instance because its root was retired.

    Args:
        connections: of a listener.
        now: seconds since the epoch.

    Returns:
        How many.
    """
    expired = [connection for connection in connections if _has_expired(connection, now)]
    for connection in expired:
        connection.drain()
    return len(expired)


def _has_expired(connection: Http1Server, now: float) -> bool:
    ssl_object = connection.transport.get_extra_info("ssl_object")
    der = ssl_object.getpeercert(binary_form=True) if ssl_object is not None else None
    if not der:
        return False
    try:
        return now > peer_leaf(der).not_after
    except SvidError:
        return False  # refused when it came, and about to be closed
