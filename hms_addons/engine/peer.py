"""Who is at the other end of a downstream connection.

Checked once, before its first request; and again when the bundle changes, or the peer's certificate
expires: then the connection is closed, after the request in flight.
"""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING

from hms_addons.config.snapshot import TlsMode
from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.flow_builder import Mode, build_client
from hms_addons.identity.peer_chain import leaf_expiry
from hms_addons.identity.tls_context import PeerIdentityError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Listener
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.identity.identity_holder import Identity

logger = logging.getLogger(__name__)

_MARGIN = 0.01
"""Seconds by which a timer should rather be late: `not_after` itself is still valid."""


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
            _check_bundle(ssl_object, identity, peer, now)
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
    context = ConnectionContext(client, tls=True, peer=peer, xfcc=xfcc)
    context.expires = leaf_expiry(ssl_object) if peer is not None else None
    return context


def _check_bundle(ssl_object: ssl.SSLObject, identity: Identity, peer: str, now: float) -> None:
    """The identity may have been swapped in the middle of the handshake: check by the new bundle."""
    own = (identity.strict_server_context, identity.permissive_server_context)
    if ssl_object.context not in own and not identity.still_trusts(ssl_object, now):
        expected = f"a peer of the bundle of {identity.trust_domain} as it has just become"
        raise PeerIdentityError(expected, f"{peer}, for whom none of its roots stands")


def recheck_peers(connections: Iterable[Http1Server], identity: Identity, now: float) -> int:
    """Retire live connections whose peers would not be let in any more. Returns how many.

    To be called when a listener's secret has changed (ztunnel does likewise when policy changes).

    Args:
        connections: the listener's.
        identity: its new one.
        now: seconds since the epoch.
    """
    retired = 0
    for connection in list(connections):
        context: ConnectionContext = connection.context
        if context.peer is None:
            continue
        if not identity.still_trusts(connection.transport.get_extra_info("ssl_object"), now):
            retired += 1
            logger.info("%s:%d: %s is not trusted any more", *connection.peername, context.peer)
            connection.retire()
    return retired


def watch_expiry(connection: Http1Server, clock: Clock) -> None:
    """Retire a connection when its peer's certificate expires."""
    context: ConnectionContext = connection.context
    if context.expires is None:
        return
    left = context.expires - clock.wall()
    if left > 0:  # again, if the clock was set back meanwhile
        context.expiry = clock.call_later(left + _MARGIN, watch_expiry, connection, clock)
        return
    logger.info("%s:%d: the certificate of %s has expired", *connection.peername, context.peer)
    connection.retire()
