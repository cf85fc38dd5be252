"""A WebSocket that somebody watches: its messages are shown, edited, dropped and injected on the way.

While nobody does, it is a tunnel like any other (`tunnel`), and its bytes are nobody's business.

As in mitmproxy, `flow.websocket` holds the messages, and `websocket_start`, `websocket_message` and
`websocket_end` are fired; a message is sent on when its event is over. Unlike there, the two peers close
the connection between themselves: a close is passed on, and its answer comes from the other peer.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final

from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, Ping, Pong
from wsproto.frame_protocol import CloseReason

from hms_addons.engine import flow_view
from hms_addons.engine.flow_builder import build_message, build_websocket, was_killed
from hms_addons.engine.websocket_side import Part, Side, Whole, frames_of
from hms_addons.errors import Fault
from hms_addons.upstream.outcome import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from mitmproxy.http import HTTPFlow

    from hms_addons.engine.flow_builder import SocketMessage, WebSocket
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.engine.websocket_side import Received
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import BodyStream, Tunnel
    from hms_addons.tasks import TaskSet

logger = logging.getLogger(__name__)

_SLICE: Final = 16 * 1024
"""Bytes that are looked at at a time: compressed, they can be a thousand times as many."""

KEPT_MESSAGES: Final = 10_000
KEPT_BYTES: Final = 16 * 1024 * 1024
"""What `flow.websocket` keeps of a connection that may last for days; past either, the older half of
its messages goes."""


_REFUSED: Final = "the policy has changed"


class _EndedError(OSError):
    """The connection is over, and what was written last is to arrive."""


class WebSocketRelay:
    """Carries one WebSocket's messages between its two peers.

    Args:
        connection: the client's, whose answer of 101 has been written.
        tunnel: the upstream's side.
        exchange: the request that asked for it; its flow has a `websocket`.
        events: who listens.
        tasks: runs one of the two directions.
        now: tells the time, in seconds since the epoch.
    """

    def __init__(
        self,
        connection: Http1Server,
        tunnel: Tunnel,
        exchange: Exchange,
        events: FlowEvents,
        tasks: TaskSet,
        now: Callable[[], float],
    ) -> None:
        assert exchange.answer is not None  # noqa: S101 - it is a 101
        flow = exchange.flow
        self._connection = connection
        self._tunnel = tunnel
        self._exchange = exchange
        self._events = events
        self._tasks = tasks
        self._now = now
        self._flow: HTTPFlow = flow
        self._data: WebSocket = flow.websocket or build_websocket()
        fields, limit = exchange.answer.fields, exchange.listener.limits.buffer_limit
        self._client = Side(ConnectionType.CLIENT, fields, limit)
        self._server = Side(ConnectionType.SERVER, fields, limit)
        self._incoming: BodyStream = connection.start_tunnel()
        self._lock = asyncio.Lock()  # one message is shown at a time, as it is the whole flow's
        self._over = False
        self._kept = 0
        self._told_of_long = False

    def __repr__(self) -> str:
        return f"<WebSocketRelay messages={len(self._data.messages)}{' over' * self._over}>"

    async def run(self) -> None:
        """Carry messages until it is over; ends as `run_tunnel` does."""
        connection, tunnel, incoming = self._connection, self._tunnel, self._incoming
        live = self._events.live_connections
        key = self._flow.client_conn.id
        upwards: asyncio.Task[None] | None = None
        by_client = True  # if it is cancelled, the client has gone
        try:
            await self._events.fire_flow(self._events.websocket_start, self._flow)
            self._cut_if_killed()
            live[key] = self
            upwards = self._tasks.start(self._carry_up(), "websocket")
            await self._carry_down()
            by_client = False
            self._closed(from_client=False)
            if connection.transport.can_write_eof():
                connection.transport.write_eof()
                await upwards
            connection.close()
        except _EndedError:
            connection.close()
        except (OSError, UpstreamError):
            by_client = connection.transport.is_closing()
            connection.abort()
        finally:
            if live.get(key) is self:
                del live[key]
            self._exchange.bytes_in += incoming.received
            if upwards is not None:
                upwards.cancel()
            tunnel.close()
            incoming.close()
            self._end(by_client=by_client)

    async def server_event(self, event: Any) -> None:
        """mitmproxy's `inject.websocket` has a message for one of the peers."""
        message = event.message
        target = self._server if message.from_client else self._client
        async with self._lock:
            if self._over or not target.open or target.sending_parts:
                logger.warning("not injected: the WebSocket is closing, or sends a long message")
                return
            message.injected = True
            await self._show(message, None)

    def refuse(self) -> None:
        """Close it between messages, as it may not go on: 1008 to both (RFC 6455 section 7.4.1)."""
        if self._over:
            return
        event = CloseConnection(code=CloseReason.POLICY_VIOLATION, reason=_REFUSED)
        self._closed(from_client=False, code=event.code, reason=event.reason)
        for side in (self._client, self._server):
            self._write(side, side.control(event))
        self._stop(_EndedError(_REFUSED))
        if self._connection.flow_control.paused:
            self._connection.abort()  # its client does not read, and would not see it

    # -- the two directions ---------------------------------------------------------------------

    async def _carry_down(self) -> None:
        """From the upstream to the client."""
        drain = self._connection.flow_control.drain
        while data := await self._tunnel.incoming.read():
            self._exchange.bytes_out += len(data)
            await self._take(self._server, data, drain)

    async def _carry_up(self) -> None:
        """From the client to the upstream; a broken end shows on the other direction too."""
        try:
            while data := await self._incoming.read():
                await self._take(self._client, data, self._tunnel.drain)
            self._closed(from_client=True)
            self._tunnel.write_eof()
        except _EndedError:
            pass
        except (OSError, UpstreamError):
            self._tunnel.close()
        except Exception:
            self._stop(ConnectionResetError("the sidecar failed at a message"))
            raise

    async def _take(
        self, source: Side, data: bytes, drain: Callable[[], Coroutine[Any, Any, None]]
    ) -> None:
        for start in range(0, len(data), _SLICE):
            async with self._lock:
                for received in source.receive(data[start : start + _SLICE]):
                    if self._over:
                        return
                    await self._pass_on(source, received)
            # Without the lock: a peer that does not read must not keep the other from being heard.
            await drain()

    async def _pass_on(self, source: Side, received: Received) -> None:
        from_client = source is self._client
        target = self._server if from_client else self._client
        if isinstance(received, Whole):
            message = build_message(
                received.opcode, received.content, from_client=from_client, now=self._now()
            )
            await self._show(message, received)
        elif isinstance(received, Part):
            if not self._told_of_long:
                self._told_of_long = True
                logger.warning("a WebSocket message over buffer_limit is passed on unseen")
            self._write(target, target.part(received))
        elif isinstance(received, Ping | Pong):
            self._write(target, target.control(received))
        else:
            self._pass_close_on(source, target, received)

    def _pass_close_on(self, source: Side, target: Side, event: CloseConnection) -> None:
        from_client = source is self._client
        self._closed(from_client=from_client, code=event.code, reason=event.reason)
        self._write(target, target.control(event))
        if source.broken:
            self._write(source, source.control(event))
            fault = Fault.BAD_REQUEST if from_client else Fault.UPSTREAM_PROTOCOL
            self._exchange.fail(fault, f"not well-formed WebSocket: {event.reason}")
            self._stop(_EndedError("the protocol was broken"))

    async def _show(self, message: SocketMessage, before: Whole | None) -> None:
        """Show a message, and send on what is left of it."""
        self._data.messages.append(message)
        self._kept += len(message.content)
        self._forget()
        await self._events.fire_flow(self._events.websocket_message, self._flow)
        self._cut_if_killed()
        if message.dropped or self._over:
            return
        target = self._server if message.from_client else self._client
        sent = target.message(frames_of(message.content, message.type, before))
        message.dropped = not sent  # the peer has said goodbye, and takes no more
        self._write(target, sent)

    def _write(self, target: Side, data: bytes) -> None:
        if data and target is self._client:
            self._connection.transport.write(data)
        elif data:
            self._tunnel.write(data)

    def _forget(self) -> None:
        messages = self._data.messages
        if len(messages) > KEPT_MESSAGES or (self._kept > KEPT_BYTES and len(messages) > 1):
            del messages[: len(messages) // 2]
            self._kept = sum(len(message.content) for message in messages)

    # -- how it ends ----------------------------------------------------------------------------

    def _closed(
        self,
        *,
        from_client: bool,
        code: int = CloseReason.ABNORMAL_CLOSURE,
        reason: str | None = None,
    ) -> None:
        """Note who closed it and why; the first one counts."""
        data = self._data
        if data.timestamp_end is None:
            data.timestamp_end = self._now()
            data.closed_by_client = from_client
            data.close_code = int(code)
            data.close_reason = reason

    def _cut_if_killed(self) -> None:
        if was_killed(self._flow):
            self._exchange.fail(Fault.CLIENT_GONE, flow_view.KILLED)
            self._stop(ConnectionResetError(flow_view.KILLED))
            self._connection.abort()

    def _stop(self, error: OSError) -> None:
        """End both directions with `error`, whichever notices."""
        self._over = True
        self._incoming.fail(error)
        self._tunnel.incoming.fail(error)

    def _end(self, *, by_client: bool) -> None:
        self._over = True
        self._closed(from_client=by_client)
        flow_view.annotate(self._exchange)
        if not self._tasks.closed:
            end = self._events.fire_flow(self._events.websocket_end, self._flow)
            self._tasks.start(end, "websocket_end")
