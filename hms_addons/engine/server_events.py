"""Upstream connections as mitmproxy sees them: a `Server` object each, and its four events."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.engine.flow_builder import build_server, mark_closed, mark_connected, server_event

if TYPE_CHECKING:
    from mitmproxy.connection import Server

    from hms_addons.clock import Clock
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.tasks import TaskSet
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection


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

    async def connecting(self, endpoint: Endpoint) -> Server:
        """A connection is about to be opened.

        Raises:
            ConnectionRefusedError: an addon set `server.error`.
        """
        server = build_server(endpoint.spec.host, endpoint.spec.port, self._clock.wall())
        if self._events.server_connect:
            await self._events.fire(self._events.server_connect, server_event(server))
            if server.error:
                message = f"an addon refused the connection: {server.error}"
                raise ConnectionRefusedError(message)
        return server

    async def connected(self, server: Server, connection: Http1Connection) -> None:
        """It is open, TLS included."""
        mark_connected(
            server, connection.transport, self._clock.wall(), watched=self._events.watched
        )
        if self._events.server_connected:
            await self._events.fire(self._events.server_connected, server_event(server))

    async def failed(self, server: Server, error: str) -> None:
        """It could not be opened."""
        server.error = server.error or error
        if self._events.server_connect_error:
            await self._events.fire(self._events.server_connect_error, server_event(server))

    def disconnected(self, server: Server) -> None:
        """It is closed."""
        mark_closed(server, self._clock.wall())
        listeners = self._events.server_disconnected
        if listeners and not self._tasks.closed:
            self._tasks.start(self._events.fire(listeners, server_event(server)), "server event")
