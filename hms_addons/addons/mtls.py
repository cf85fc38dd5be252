"""`mtls`: who the caller is over mutual TLS, and telling the app.

The engine verifies a peer's certificate once per connection; here that becomes the request's `peer`,
the `X-Caller-Service` header, and `X-Forwarded-Client-Cert`. What a caller itself put into those
headers was removed before any plugin ran. This plugin has no state.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.snapshot import Direction, TlsMode
from hms_addons.errors import Fault
from hms_addons.hookspecs import hookimpl

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange


class Mtls:
    """The built-in plugin `mtls`."""

    def __repr__(self) -> str:
        return "<Mtls>"

    @hookimpl
    def hms_identify(self, exchange: Exchange) -> None:
        """Take over the connection's verified peer; on a strict listener there must be one.

        TLS itself refuses a peer without a certificate there. This is the second lock: it holds
        should a request ever reach a strict listener by another way.
        """
        downstream = exchange.downstream
        peer: str | None = None if downstream is None else downstream.peer
        if peer is not None:
            exchange.peer = peer
        elif exchange.listener.tls is TlsMode.STRICT:
            exchange.fail(
                Fault.POLICY_DENIED,
                f"listener '{exchange.listener.name}' is strict: the caller must show a certificate "
                "of the mesh (mutual TLS); call through your own sidecar",
                close=True,
            )

    @hookimpl
    def hms_prepare(self, exchange: Exchange) -> None:
        """Name the verified caller to the app.

        `X-Forwarded-Client-Cert` is Envoy's (`By=…;Hash=…;URI=…`), made once per connection.
        """
        peer = exchange.peer
        if peer is None or exchange.listener.direction is not Direction.INBOUND:
            return
        named = (exchange.snapshot.headers.service, peer.encode())
        downstream = exchange.downstream
        certificate = None if downstream is None else downstream.xfcc
        if certificate is None:
            exchange.add_vouched((named,))
        else:
            exchange.add_vouched((named, (b"X-Forwarded-Client-Cert", certificate)))
