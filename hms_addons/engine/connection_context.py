"""What the fast lane knows of a downstream connection: worked out once, used by every request."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.engine.flow_builder import mark_closed
from hms_addons.engine.hygiene import own_fields

if TYPE_CHECKING:
    import asyncio

    from mitmproxy.connection import Client

    from hms_addons.clock import Timer


class ConnectionContext:
    """One downstream connection, as plugins see it at `exchange.downstream`.

    Attributes:
        client: mitmproxy's object for it.
        scheme: `b"http"` or `b"https"`.
        peer: the caller's SPIFFE ID over verified mutual TLS, else None.
        xfcc: the value of `X-Forwarded-Client-Cert` for its requests, None without a peer.
        own: the header fields that every one of its requests carries on.
        announced: the `client_connected` event, while addons are still being told.
        expires: when the peer's certificate does, in seconds since the epoch; None without one.
        expiry: set for that moment; called off when the connection is gone.
        original: where it was meant to go, if it was intercepted; else None.
        looped: of a transparent listener's: this sidecar is at its other end too; None: nobody has looked.
    """

    __slots__ = (
        "_host",
        "_host_and_port",
        "announced",
        "client",
        "expires",
        "expiry",
        "looped",
        "original",
        "own",
        "peer",
        "scheme",
        "xfcc",
    )

    def __init__(
        self, client: Client, *, tls: bool, peer: str | None = None, xfcc: bytes | None = None
    ) -> None:
        self.client = client
        self.scheme = b"https" if tls else b"http"
        self.peer = peer
        self.xfcc = xfcc
        self.own = own_fields(client.peername[0], "https" if tls else "http")
        self.announced: asyncio.Task[None] | None = None
        self.expires: float | None = None
        self.expiry: Timer | None = None
        self.original: tuple[str, int] | None = None
        self.looped: bool | None = None
        self._host = b""
        self._host_and_port = ("", 443 if tls else 80)

    def __repr__(self) -> str:
        return f"<ConnectionContext {self.client.peername} peer={self.peer}>"

    def host_and_port(self, host: bytes) -> tuple[str, int]:
        """A Host header taken apart; remembered, as a client repeats the same one."""
        if host != self._host:
            name, colon, port = host.rpartition(b":")
            if not colon or not port.isdigit():
                name, port = host, b"443" if self.scheme == b"https" else b"80"
            self._host = host
            self._host_and_port = (name.strip(b"[]").decode("latin-1"), int(port))
        return self._host_and_port

    def close(self, now: float) -> None:
        """The connection has gone, at `now` (seconds since the epoch): say so on mitmproxy's object."""
        if self.expiry is not None:
            self.expiry.cancel()
            self.expiry = None
        mark_closed(self.client, now)
