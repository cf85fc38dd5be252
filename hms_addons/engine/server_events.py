"""Upstream connections as mitmproxy sees them: a `Server` object each, and its four events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.engine.flow_builder import build_server, mark_closed, mark_connected, server_event

if TYPE_CHECKING:
    import ssl

    from mitmproxy.connection import Server

    from hms_addons.clock import Clock
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.tasks import TaskSet


class ServerEvents:
    """Implements `hms_addons.upstream.connector.ConnectionObserver`.

    The `Server` made here is kept on the connection as its `handle` and stands in `flow.server_conn`
    of every flow that the connection carries. Events are fired only where somebody listens. Pooled
    connections serve many clients, so the events' `client` is one that stands for the sidecar.
    """

    def __init__(self, events: FlowEvents, tasks: TaskSet, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._tasks = tasks

    async def connecting(self, host: str, port: int) -> Server:
        """A connection is about to be opened.

        Raises:
            ConnectionRefusedError: an addon set `server.error`.
        """
        server = build_server(host, port, self._clock.wall())
        if self._events.server_connect:
            await self._events.fire(self._events.server_connect, server_event(server))
            if server.error:
                message = f"an addon refused the connection: {server.error}"
                raise ConnectionRefusedError(message)
        return server

    async def connected(
        self, server: Server, transport: Any, ssl_object: ssl.SSLObject | None
    ) -> None:
        """It is open, TLS included."""
        mark_connected(
            server,
            transport.get_extra_info("peername"),
            transport.get_extra_info("sockname"),
            ssl_object,
            self._clock.wall(),
            watched=self._events.watched,
        )
        if self._events.server_connected:
            await self._events.fire(self._events.server_connected, server_event(server))

    def failed(self, server: Server, error: BaseException) -> None:
        """It could not be opened."""
        server.error = server.error or str(error) or type(error).__name__
        self._fire_later(self._events.server_connect_error, server)

    def disconnected(self, server: Server) -> None:
        """It is closed."""
        mark_closed(server, self._clock.wall())
        self._fire_later(self._events.server_disconnected, server)

    def _fire_later(self, listeners: Any, server: Server) -> None:
        if listeners and not self._tasks.closed:
            self._tasks.start(self._events.fire(listeners, server_event(server)), "server event")
