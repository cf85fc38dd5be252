"""What a connection from a client asks of whoever serves its requests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from hms_addons.config.snapshot import Limits
    from hms_addons.engine.framing import Refusal, RequestHead
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.http_message import Fields


class Lane(Protocol):
    """What serves a connection's requests."""

    connections: set[Http1Server]
    """Those that are open."""

    @property
    def limits(self) -> Limits:
        """Bounds on requests."""

    def opened(self, connection: Http1Server) -> bool:
        """A connection was made (and its TLS handshake done); False to close it at once."""

    def closed(self, connection: Http1Server) -> None:
        """It has gone."""

    def handle(self, connection: Http1Server, request: RequestHead) -> Coroutine[Any, Any, None]:
        """Serve one request: answer with `connection.respond`, or `connection.abort`."""

    def refused(self, connection: Http1Server, refusal: Refusal) -> None:
        """A request was so malformed that it never became an exchange; it has been answered."""

    def clean_trailers(self, trailers: Fields) -> Fields:
        """The trailer fields that may go on."""
