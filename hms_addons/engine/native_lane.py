"""The native lane: the same chain inside mitmproxy's own layers.

For stock modes (`reverse:`, `upstream:`, `regular`) and for mitmweb's replay button. An ordinary
mitmproxy addon at the very end of the addon chain, so that scripts have made their edits; it also
waits out an interception before it decides, so that here too what is checked is what is sent.
It answers by setting `flow.response`; mitmproxy itself never connects to an upstream.

Limits of this lane: bodies are held whole both ways (mitmproxy cannot stream an answer that an addon
gives), at most `MAX_HELD` bytes; and it has no mutual TLS of its own, so a `strict` listener refuses
what comes this way, except a replay, for whose recorded caller the person who replays it stands.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from mitmproxy.hooks import UpdateHook

from hms_addons.config.snapshot import Direction
from hms_addons.engine import flow_view
from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.flow_builder import build_headers, build_response, was_killed
from hms_addons.engine.flow_events import resumed
from hms_addons.engine.framing import index_fields
from hms_addons.engine.hook_chain import local_answer
from hms_addons.engine.intake import take_over
from hms_addons.errors import Failure, Fault, problem
from hms_addons.exchange import Exchange
from hms_addons.http_message import Answer, BodyStream
from hms_addons.upstream.outcome import UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.addonmanager import AddonManager
    from mitmproxy.flow import Flow
    from mitmproxy.http import HTTPFlow

    from hms_addons.clock import Clock
    from hms_addons.engine.fast_lane import Binding
    from hms_addons.engine.hook_chain import HookChain
    from hms_addons.http_message import Fields

logger = logging.getLogger(__name__)

MAX_HELD = 64 * 1024 * 1024
"""Bytes of an answer that this lane will hold."""


class NativeLane:
    """A mitmproxy addon that decides and forwards the requests of stock modes.

    Args:
        addons: mitmproxy's addon manager, for `update` events.
        bindings: the bindings in force, by listener name.
        chain: the chain in force.
        upstream: what `hms_forward` is given.
        clock: time.
    """

    name = "hms-native-lane"

    def __init__(
        self,
        addons: AddonManager,
        bindings: Callable[[], dict[str, Binding]],
        chain: Callable[[], HookChain],
        upstream: Any,
        clock: Clock,
    ) -> None:
        self._addons = addons
        self._bindings = bindings
        self._chain = chain
        self._upstream = upstream
        self._clock = clock
        self._exchanges: dict[str, Exchange] = {}

    def __repr__(self) -> str:
        return f"<NativeLane in_flight={len(self._exchanges)}>"

    async def request(self, flow: HTTPFlow) -> None:
        """mitmproxy event: decide, forward, and answer, after everybody else's edits."""
        await self._wait(flow)
        if flow.response is not None or flow.error is not None or not flow.live:
            return  # a script has answered, or somebody has killed it
        binding = self._binding(flow)
        if binding is None:
            flow.response = _no_listener(flow, self._clock.wall())
            return
        exchange = Exchange(flow, binding.snapshot, binding.listener, self._clock.monotonic())
        self._exchanges[flow.id] = exchange
        try:
            self._take_over(exchange, binding)
            chain = self._chain()
            if exchange.failure is None:
                await chain.decide(exchange)
            if exchange.failure is None:
                await chain.forward(exchange, self._upstream)
            await self._hold(exchange)
        except BaseException:
            self._finish(exchange)
            raise
        answer = exchange.answer or local_answer(exchange)
        exchange.answer = answer
        self._show(exchange, answer)
        flow_view.annotate(exchange)

    async def response(self, flow: HTTPFlow) -> None:
        """mitmproxy event: read back what was edited, and let plugins change the answer."""
        exchange = self._exchanges.get(flow.id)
        if exchange is None:
            return
        await self._wait(flow)
        try:
            if flow.response is not None and not was_killed(flow):
                before = exchange.answer
                exchange.answer = flow_view.answer_of(flow.response)
                if before is not None and before.body == exchange.answer.body:
                    exchange.answer.length = before.length  # of HEAD: what a GET would have had
                await self._chain().respond(exchange)
                self._show(exchange, exchange.answer)
                exchange.bytes_out = len(flow.response.data.content or b"")
        finally:
            self._finish(exchange)

    def error(self, flow: HTTPFlow) -> None:
        """mitmproxy event: it ended without an answer."""
        exchange = self._exchanges.get(flow.id)
        if exchange is not None:
            exchange.fail(Fault.CLIENT_GONE, str(flow.error))
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        if self._exchanges.pop(exchange.flow.id, None) is not None:
            exchange.bytes_in = len(exchange.flow.request.data.content or b"")
            self._chain().complete(exchange)
            flow_view.annotate(exchange)

    async def _wait(self, flow: Flow) -> None:
        """Wait out an interception here, so that what a person changes is still decided on."""
        if flow.intercepted:
            await self._addons.trigger_event(UpdateHook([flow]))
            await resumed(flow)

    def _binding(self, flow: HTTPFlow) -> Binding | None:
        """The listener this flow belongs to: as recorded, by its port, else the first outbound."""
        bindings = self._bindings()
        recorded = flow.metadata.get("hms")
        if flow.is_replay and isinstance(recorded, dict) and recorded.get("listener") in bindings:
            return bindings[recorded["listener"]]
        sockname = flow.client_conn.sockname
        port = sockname[1] if sockname else None
        candidates = list(bindings.values())
        for binding in candidates:
            if binding.listener.port == port:
                return binding
        for binding in candidates:
            if binding.listener.direction is Direction.OUTBOUND:
                return binding
        return None

    def _take_over(self, exchange: Exchange, binding: Binding) -> None:
        flow = exchange.flow
        data = flow.request.data
        fields = data.headers.fields
        if flow.is_replay and "hms" in flow.metadata:
            fields = data.headers.fields = _before_the_hop(fields)
        if data.authority and not any(name.lower() == b"host" for name, _ in fields):
            data.headers.fields = (*fields, (b"Host", data.authority))
        head = index_fields(data.headers.fields)
        take_over(exchange, head, self._context(flow), binding.hygiene)
        if data.trailers is not None:
            data.trailers = build_headers(binding.hygiene.clean_trailers(data.trailers.fields))

    @staticmethod
    def _context(flow: HTTPFlow) -> ConnectionContext:
        peer = None
        recorded = flow.metadata.get("hms")
        if flow.is_replay and isinstance(recorded, dict):
            peer = recorded.get("peer")
        return ConnectionContext(flow.client_conn, tls=flow.client_conn.tls, peer=peer)

    @staticmethod
    async def _hold(exchange: Exchange) -> None:
        """Read a streaming answer whole."""
        answer = exchange.answer
        if answer is None or not isinstance(answer.body, BodyStream):
            return
        held = bytearray()
        try:
            while data := await answer.body.read():
                held += data
                if len(held) > MAX_HELD:
                    detail = f"the answer is larger than the native lane holds, {MAX_HELD} bytes"
                    exchange.fail(Fault.OVERFLOW, detail)
                    break
        except (OSError, UpstreamError) as error:
            exchange.fail(Fault.UPSTREAM_RESET, f"the answer's body was cut short: {error}")
        finally:
            answer.release()
        if exchange.failure is not None:
            exchange.answer = None
            return
        answer.trailers = answer.body.trailers
        answer.body = bytes(held)
        answer.length = len(held)

    def _show(self, exchange: Exchange, answer: Answer | None) -> None:
        if answer is None or not isinstance(answer.body, bytes):
            return
        length = answer.length if answer.length is not None else len(answer.body)
        fields = (*answer.fields, (b"Content-Length", b"%d" % length))
        if answer.tunnel is not None:
            answer.release()
        exchange.flow.response = build_response(
            answer.status,
            answer.reason,
            fields,
            answer.body,
            answer.trailers,
            self._clock.wall(),
        )


def _before_the_hop(fields: Fields) -> Fields:
    """A recorded request's fields less what this hop appended, as it is about to do so again."""
    found = []
    for name, value in fields:
        rest = value
        if name.lower() in {b"via", b"x-forwarded-for", b"forwarded"}:
            rest = value.rpartition(b",")[0].rstrip()
        if rest:
            found.append((name, rest))
    return tuple(found)


def _no_listener(flow: HTTPFlow, now: float) -> Any:
    failure = Failure.of(
        Fault.NO_ROUTE, "the configuration has no listener for this port, and no outbound one"
    )
    reason, fields, body = problem(failure, flow.id)
    fields = (*fields, (b"Content-Length", b"%d" % len(body)))
    return build_response(failure.status, reason, fields, body, (), now)
