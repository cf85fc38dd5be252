"""The fast lane: one request from parsed head to written answer.

parse → flow → mitmproxy `requestheaders`, `request` (a person may hold it here) → identify → route →
authorize → prepare → forward → mitmproxy `responseheaders`, `response` → respond → write → complete.

The mesh decides after people and scripts have edited the request, so what is checked is what is sent.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from hms_addons.engine import flow_view
from hms_addons.engine.flow_builder import build_flow, flow_error, was_killed
from hms_addons.engine.framing import index_fields
from hms_addons.engine.hook_chain import local_answer
from hms_addons.engine.hygiene import Hygiene
from hms_addons.engine.identifiers import new_id
from hms_addons.engine.intake import take_over
from hms_addons.engine.log_limit import LogLimit
from hms_addons.engine.open_tunnels import OpenTunnels
from hms_addons.engine.peer import watch_expiry
from hms_addons.errors import ExchangeFailed, Failure, Fault
from hms_addons.exchange import Draft, Exchange
from hms_addons.upstream.outcome import FAULTS, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.connection import Server
    from mitmproxy.http import HTTPFlow

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Limits, Listener, Snapshot
    from hms_addons.engine.connection_context import ConnectionContext
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.engine.framing import Refusal, RequestHead
    from hms_addons.engine.hook_chain import HookChain
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.http_message import Fields
    from hms_addons.tasks import TaskSet

logger = logging.getLogger(__name__)

_LOGGED_ID = 128
"""Characters of a request's own identifier that are logged when it is refused."""


class Binding:
    """What a lane serves by; replaced by one assignment when the snapshot changes."""

    __slots__ = ("chain", "hygiene", "listener", "snapshot")

    def __init__(
        self, snapshot: Snapshot, listener: Listener, chain: HookChain, hygiene: Hygiene
    ) -> None:
        self.snapshot = snapshot
        self.listener = listener
        self.chain = chain
        self.hygiene = hygiene

    @classmethod
    def of(cls, snapshot: Snapshot, listener: Listener, chain: HookChain) -> Binding:
        """The binding of `listener` in `snapshot`, whose plugins make up `chain`."""
        return cls(snapshot, listener, chain, Hygiene(snapshot.headers.all))


class FastLane:
    """Serves the requests of one listener.

    Args:
        binding: the snapshot, listener and chain to begin with; assign `binding` to swap.
        upstream: what `hms_forward` is given.
        events: mitmproxy's listeners.
        clock: time.
        tasks: for what outlives a request.
        identify: makes a connection's context, or None if it must be closed.
        placeholder: the `server_conn` of flows that have met no upstream.
    """

    def __init__(
        self,
        binding: Binding,
        upstream: Any,
        events: FlowEvents,
        clock: Clock,
        tasks: TaskSet,
        identify: Callable[[Http1Server, Listener], ConnectionContext | None],
        placeholder: Server,
    ) -> None:
        self.binding = binding
        self.connections: set[Http1Server] = set()
        self.in_flight = 0
        self.refusals = 0
        """Requests too malformed to become an exchange."""
        self._upstream = upstream
        self._events = events
        self._clock = clock
        self._tasks = tasks
        self._identify = identify
        self._placeholder = placeholder
        self._log = LogLimit(logger, clock)
        self.tunnels = OpenTunnels(lambda: self.binding, events, tasks, clock.wall)

    def __repr__(self) -> str:
        return (
            f"<FastLane {self.binding.listener.name} connections={len(self.connections)} "
            f"in_flight={self.in_flight}>"
        )

    # -- Lane -----------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """See `Lane`."""
        return self.binding.listener.limits

    def clean_trailers(self, trailers: Fields) -> Fields:
        """See `Lane`."""
        return self.binding.hygiene.clean_trailers(trailers)

    def opened(self, connection: Http1Server) -> bool:
        """See `Lane`: identify the peer; a peer that will not do is closed."""
        context = self._identify(connection, self.binding.listener)
        if context is None:
            return False
        connection.context = context
        self.connections.add(connection)
        watch_expiry(connection, self._clock)
        if self._events.client_connected:
            context.announced = self._tasks.start(
                self._events.fire(self._events.client_connected, context.client), "client_connected"
            )
        return True

    def closed(self, connection: Http1Server) -> None:
        """See `Lane`."""
        self.connections.discard(connection)
        context = connection.context
        if context is not None:
            context.close(self._clock.wall())
            if self._events.client_disconnected and not self._tasks.closed:
                self._tasks.start(
                    self._events.fire(self._events.client_disconnected, context.client),
                    "client_disconnected",
                )

    def refused(self, connection: Http1Server, refusal: Refusal) -> None:
        """See `Lane`."""
        self.refusals += 1
        failure = refusal.failure
        self._log.info(
            "%s:%d: %d %s: %s (request %s)",
            *connection.peername,
            failure.status,
            failure.flag,
            failure.detail,
            refusal.request_id[:_LOGGED_ID],
        )

    async def handle(  # noqa: PLR0912 - flat: a call per step costs
        self, connection: Http1Server, request: RequestHead
    ) -> None:
        """See `Lane`: serve one request, whatever happens."""
        binding = self.binding
        chain = binding.chain
        context: ConnectionContext = connection.context
        fields = tuple(request.fields)
        draft = Draft(
            request.method, request.target, fields, request.body, request, self._make_flow
        )
        exchange = Exchange(
            None, binding.snapshot, binding.listener, self._clock.monotonic(), draft, new_id()
        )
        exchange.downstream = context
        exchange.request_id = exchange.id
        exchange.body = request.stream
        if request.minor:
            exchange.interim = connection.send_interim
        self.in_flight += 1
        try:
            watched = self._events.watched
            if (not watched and context.announced is None) or await self._before(request, exchange):
                # Indexed again where somebody may have edited them.
                head = index_fields(exchange.fields) if watched else request.head
                take_over(
                    exchange,
                    head,
                    context,
                    binding.hygiene,
                    request.upgrade,
                    parsed=not watched and not request.trailers,
                )
                if exchange.failure is None:
                    await chain.decide(exchange)
                if exchange.failure is None:
                    if request.expect_continue:
                        connection.send_continue()
                    await chain.forward(exchange, self._upstream)
            answer = exchange.answer
            if (
                answer is None
                or watched
                or chain.responds
                or request.failure is not None
                or type(answer.body) is not bytes
            ):
                await self._answer(connection, request, exchange, chain)
            else:
                failure = exchange.failure
                exchange.bytes_out = connection.respond_held(
                    request, answer, answer.body, close=failure is not None and failure.close
                )
                if answer.tunnel is not None:
                    await self.tunnels.carry(connection, answer.tunnel, exchange)
                elif connection.flow_control.paused:
                    await connection.flow_control.drain()
        except asyncio.CancelledError:
            # By the client's leaving; or an addon awaited something that was cancelled. The latter's
            # client would take the next answer for this one.
            connection.abort()
            self._client_left(exchange)
            raise
        except ConnectionResetError:
            self._client_left(exchange)
            connection.abort()
        except Exception as error:  # noqa: BLE001 - the connection must end, whatever it was
            self._cut_short(exchange, error)
            connection.abort()
        finally:
            self._end(connection, request, exchange, chain)

    # -- the steps ------------------------------------------------------------------------------

    def _make_flow(self, exchange: Exchange, draft: Draft) -> HTTPFlow:
        """The flow of an exchange for which somebody has asked."""
        context: ConnectionContext = exchange.downstream
        request: RequestHead = draft.origin
        clock = self._clock
        host, port = context.host_and_port(request.head.get(b"host", b""))
        flow = build_flow(
            context.client,
            exchange.server or self._placeholder,
            flow_id=exchange.id,
            method=draft.method,
            target=draft.target,
            minor=request.minor,
            fields=draft.fields,
            content=draft.content,
            host=host,
            port=port,
            scheme=context.scheme,
            now=clock.wall() - (clock.monotonic() - exchange.started),
        )
        if request.trailers:
            flow_view.set_trailers(flow.request, request.trailers)
        return flow

    async def _before(self, request: RequestHead, exchange: Exchange) -> bool:
        """Show the request to mitmproxy's addons. False if one of them has answered or killed it."""
        events = self._events
        context: ConnectionContext = exchange.downstream
        if context.announced is not None:
            await asyncio.shield(context.announced)
            context.announced = None
            if context.client.error:
                message = f"an addon refused the connection: {context.client.error}"
                raise ConnectionResetError(message)
        if not events.watched:
            return True
        flow = exchange.flow
        if request.stream is not None:
            flow.request.stream = True
        if events.requestheaders:
            await events.fire_flow(events.requestheaders, flow)
        if events.request and not was_killed(flow):
            await events.fire_flow(events.request, flow)
        if callable(flow.request.stream) and request.stream is not None:
            exchange.body = flow_view.transformed(request.stream, flow.request.stream)
        return flow.response is None and not was_killed(flow)

    async def _answer(
        self,
        connection: Http1Server,
        request: RequestHead,
        exchange: Exchange,
        chain: HookChain,
    ) -> None:
        """Show the answer to mitmproxy's addons, let plugins change it, write it."""
        flow = exchange.made_flow
        if flow is not None and was_killed(flow):
            if exchange.path:  # since it was taken over; a kill before that has been told of
                await self._events.fire_flow(self._events.error, flow)
            _kill(connection, exchange)
            return
        if request.failure is not None:
            _blame_the_body(request.failure, exchange)
        answer = exchange.answer
        if answer is None:
            if flow is not None and flow.response is not None:
                answer = flow_view.answer_of(flow.response)
            else:
                answer = local_answer(exchange)
            exchange.answer = answer
        if self._events.watched:
            answer = await flow_view.show_answer(exchange, self._events, self._clock.wall)
            if answer is None:
                _kill(connection, exchange)
                return
        given = answer
        try:
            await chain.respond(exchange)
            answer = exchange.answer or given
            failure = exchange.failure
            close = failure is not None and failure.close
            exchange.bytes_out = await connection.respond(request, answer, close=close)
            if type(given.body) is not bytes and exchange.made_flow is not None:
                # Where nobody has read it to its end: a plugin's answer went out in its place, say.
                await flow_view.show_end(exchange, self._events, self._clock.wall)
            if answer.tunnel is not None:
                await self.tunnels.carry(connection, answer.tunnel, exchange)
        finally:
            if exchange.answer is not given:
                given.release()  # a plugin has put another in its place

    # -- how it may end -------------------------------------------------------------------------

    def _client_left(self, exchange: Exchange) -> None:
        exchange.fail(Fault.CLIENT_GONE, "the client closed the connection before its answer")
        self._flow_failed(exchange, "Client disconnected.")

    def _cut_short(self, exchange: Exchange, error: Exception) -> None:
        """The answer had begun, so all that can be done is to cut it off and say so."""
        if isinstance(error, ExchangeFailed):
            exchange.failure = exchange.failure or error.failure
        elif isinstance(error, UpstreamError):
            exchange.fail(FAULTS[error.outcome], f"the answer's body was cut short: {error}")
        elif isinstance(error, OSError | EOFError):
            exchange.fail(Fault.UPSTREAM_RESET, f"the answer's body was cut short: {error}")
        else:
            logger.error("an exchange failed: %r", exchange, exc_info=error)
            exchange.fail(Fault.PLUGIN_ERROR, "the sidecar failed while it sent the answer")
        self._flow_failed(exchange, str(exchange.failure.detail if exchange.failure else error))

    def _flow_failed(self, exchange: Exchange, message: str) -> None:
        events = self._events
        flow = exchange.flow if events.watched else None
        if flow is not None and not was_killed(flow) and not flow_view.has_ended(flow):
            exchange.flow.error = flow_error(message)
            flow_view.annotate(exchange)
            if not self._tasks.closed:
                self._tasks.start(events.fire_flow(events.error, exchange.flow), "error event")

    def _end(
        self,
        connection: Http1Server,
        request: RequestHead,
        exchange: Exchange,
        chain: HookChain,
    ) -> None:
        self.in_flight -= 1
        stream = request.stream
        if stream is not None:
            exchange.bytes_in += stream.received
            if not stream.ended:
                stream.close()
        else:
            exchange.bytes_in += len(request.body or b"")
        answer = exchange.answer
        if answer is not None and (answer.tunnel is not None or type(answer.body) is not bytes):
            answer.release()  # of no effect if it was read to its end, or the tunnel is over
        flow = exchange.made_flow
        if flow is not None:
            flow.live = False
        try:
            chain.complete(exchange)
            if self._events.watched:
                flow_view.annotate(exchange)
        finally:
            connection.finished(request)  # or its client would wait for ever


def _blame_the_body(found: Failure, exchange: Exchange) -> None:
    """Forwarding failed because of what was wrong with the request's body: that is the answer."""
    if exchange.failure is None:
        return
    exchange.failure = found
    if exchange.answer is not None:
        exchange.answer.release()
        exchange.answer = None


def _kill(connection: Http1Server, exchange: Exchange) -> None:
    """A script, or a person in mitmweb, has called `flow.kill()`."""
    exchange.fail(Fault.CLIENT_GONE, flow_view.KILLED)
    connection.abort()
