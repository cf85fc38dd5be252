"""The native lane: the same chain inside mitmproxy's own layers.

For stock modes (`reverse:`, `upstream:`, `regular`) and for mitmweb's replay button. An ordinary
mitmproxy addon at the very end of the addon chain, so that scripts have made their edits; it also
waits out an interception before it decides, so that here too what is checked is what is sent.
It answers by setting `flow.response`; mitmproxy itself never connects to an upstream.

Limits of this lane:

- bodies are held whole both ways: an answer's up to `MAX_HELD` bytes, a request's up to the
  listener's `max_body`, which is worth setting here (mitmproxy cannot stream an answer that
  an addon gives, and would stream a request past the mesh's decision). So what has no end is refused:
  an event stream at once, another body of unknown length after `HELD_FOR` seconds;
- an upgrade (WebSocket) is refused;
- no trailers in answers, no interim (1xx) answers on HTTP/1.1: mitmproxy knows none here (a request's trailers would end its parser without an answer; `native_trailers` mends that);
- mitmproxy reads the request: it says `100 Continue` before the mesh is asked, takes a bare LF for
  the end of a line, waits for the rest of a head or body without a time-out, and answers bad syntax
  itself, without a flag, or by closing the connection. What it lets through is checked again here;
- it waits for the answer also when the client has left;
- no mutual TLS of its own, so a `strict` listener refuses what comes this way, except a replay, for
  whose recorded caller the person who replays it stands.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Any

from mitmproxy.hooks import UpdateHook

from hms_addons.clock import within
from hms_addons.config.snapshot import Direction
from hms_addons.engine import flow_view
from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.flow_builder import build_headers, build_response, was_killed
from hms_addons.engine.flow_events import resumed
from hms_addons.engine.framing import RequestHead, body_too_large, check_head, tunnelled_protocols
from hms_addons.engine.hook_chain import local_answer
from hms_addons.engine.intake import take_over
from hms_addons.errors import Failure, Fault, problem
from hms_addons.exchange import Exchange
from hms_addons.http_message import Answer, BodyStream, get_field, set_field
from hms_addons.upstream.outcome import FAULTS, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.addonmanager import AddonManager
    from mitmproxy.flow import Flow
    from mitmproxy.http import HTTPFlow, RequestData

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Limits
    from hms_addons.engine.fast_lane import Binding
    from hms_addons.engine.hook_chain import HookChain
    from hms_addons.http_message import Fields

logger = logging.getLogger(__name__)

MAX_HELD = 64 * 1024 * 1024
"""Bytes of a body that this lane will hold."""

HELD_FOR = 60.0
"""Seconds to wait for the end of a body that does not say how long it is."""

_ENDLESS = frozenset({b"text/event-stream", b"multipart/x-mixed-replace"})
"""Media types of bodies that are not meant to end."""

_REMEDY = "call a listener of the mesh (listeners: in the configuration) instead"
_NO_END = f"the answer has no end, and mitmproxy's own modes stream none; {_REMEDY}"

_METHOD = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL = re.compile(rb"[\r\n\0]")


class NativeLane:
    """A mitmproxy addon that decides and forwards the requests of stock modes.

    Args:
        addons: mitmproxy's addon manager, for `update` events.
        bindings: the bindings in force, by listener name.
        upstream: what `hms_forward` is given.
        clock: time.
        why_not: why no request is taken now; None while they are.
    """

    name = "hms-native-lane"

    def __init__(
        self,
        addons: AddonManager,
        bindings: Callable[[], dict[str, Binding]],
        upstream: Any,
        clock: Clock,
        why_not: Callable[[], Failure | None] = lambda: None,
    ) -> None:
        self._addons = addons
        self._why_not = why_not
        self._bindings = bindings
        self._upstream = upstream
        self._clock = clock
        self._exchanges: dict[str, tuple[Exchange, HookChain]] = {}
        """In flight, by flow; each with the chain of the snapshot that it began with."""

    def __repr__(self) -> str:
        return f"<NativeLane in_flight={len(self._exchanges)}>"

    def requestheaders(self, flow: HTTPFlow) -> None:
        """mitmproxy event: hold the body, whoever asked for streaming.

        mitmproxy connects and sends a body that it streams before anybody has decided on it.
        """
        flow.request.stream = False

    async def request(self, flow: HTTPFlow) -> None:
        """mitmproxy event: decide, forward, and answer, after everybody else's edits."""
        await self._wait(flow)
        if flow.response is not None or flow.error is not None or not flow.live:
            return  # a script has answered, or somebody has killed it
        failure = self._why_not()
        if failure is not None:
            flow.response = _refusal(failure, flow, self._clock.wall())
            return
        binding = self._binding(flow)
        if binding is None:
            flow.response = _refusal(_no_listener(), flow, self._clock.wall())
            return
        exchange = Exchange(flow, binding.snapshot, binding.listener, self._clock.monotonic())
        chain = binding.chain
        self._exchanges[flow.id] = (exchange, chain)
        try:
            self._take_over(exchange, binding)
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
        exchange, chain = self._exchanges.get(flow.id, (None, None))
        if exchange is None or chain is None:
            return
        await self._wait(flow)
        try:
            if flow.response is not None and not was_killed(flow):
                before = exchange.answer
                # Plugins look at what came from an upstream, and leave the mesh's own answers alone.
                local = before is None or before.local
                exchange.answer = flow_view.answer_of(flow.response, local=local)
                if before is not None and before.body == exchange.answer.body:
                    exchange.answer.length = before.length  # of HEAD: what a GET would have had
                await chain.respond(exchange)
                self._show(exchange, exchange.answer)
                exchange.bytes_out = len(flow.response.data.content or b"")
        finally:
            self._finish(exchange)

    def error(self, flow: HTTPFlow) -> None:
        """mitmproxy event: it ended without an answer."""
        exchange, _ = self._exchanges.get(flow.id, (None, None))
        if exchange is not None:
            exchange.fail(Fault.CLIENT_GONE, str(flow.error))
            self._finish(exchange)

    def _finish(self, exchange: Exchange) -> None:
        found = self._exchanges.pop(exchange.flow.id, None)
        if found is not None:
            exchange.bytes_in = len(exchange.flow.request.data.content or b"")
            found[1].complete(exchange)
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
        if data.authority and get_field(fields, b"host") is None:
            fields = (*fields, (b"Host", data.authority))
        request = RequestHead(data.method, data.path, list(fields))
        exchange.request_id = _request_id(exchange.flow)
        exchange.failure = _check(request, data, exchange.listener.limits)
        if exchange.failure is not None:
            return
        if _asks_for_upgrade(request):
            exchange.fail(Fault.NOT_HERE, f"mitmproxy's own modes upgrade no connection; {_REMEDY}")
            return
        if data.authority:
            # RFC 9112 section 3.2.2: the authority of an absolute-form target replaces Host.
            request.head[b"host"] = data.authority
            data.headers.fields = set_field(fields, b"Host", data.authority)
        take_over(exchange, request.head, self._context(flow), binding.hygiene)
        if data.trailers is not None:
            data.trailers = build_headers(binding.hygiene.clean_trailers(data.trailers.fields))

    @staticmethod
    def _context(flow: HTTPFlow) -> ConnectionContext:
        peer = None
        recorded = flow.metadata.get("hms")
        if flow.is_replay and isinstance(recorded, dict):
            peer = recorded.get("peer")
        return ConnectionContext(flow.client_conn, tls=flow.client_conn.tls, peer=peer)

    async def _hold(self, exchange: Exchange) -> None:
        """Read a streaming answer whole."""
        answer = exchange.answer
        if answer is None or not isinstance(answer.body, BodyStream):
            return
        held = bytearray()
        try:
            if _is_endless(answer):
                exchange.fail(Fault.NOT_HERE, _NO_END)
            elif answer.length is None:
                async with within(self._clock, HELD_FOR):
                    await _read_whole(answer.body, held)
            else:
                await _read_whole(answer.body, held)
            if len(held) > MAX_HELD:
                detail = f"the answer is larger than the native lane holds, {MAX_HELD} bytes"
                exchange.fail(Fault.OVERFLOW, detail)
        except TimeoutError:
            exchange.fail(Fault.NOT_HERE, _NO_END)
        except UpstreamError as error:
            exchange.fail(FAULTS[error.outcome], f"the answer's body was cut short: {error}")
        except OSError as error:
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
        if exchange.flow.request.data.method == b"HEAD":
            # mitmproxy would send it, and the client take it for its next answer.
            answer.body, answer.length = b"", length
        fields = (*answer.fields, (b"Content-Length", b"%d" % length))
        trailers = answer.trailers
        if exchange.flow.request.data.http_version.startswith(b"HTTP/1"):
            trailers = ()
            if _closes(exchange):
                fields = (*fields, (b"Connection", b"close"))
        if answer.tunnel is not None:
            answer.release()
        exchange.flow.response = build_response(
            answer.status,
            answer.reason,
            fields,
            answer.body,
            trailers,
            self._clock.wall(),
        )


def _is_endless(answer: Answer) -> bool:
    kind = get_field(answer.fields, b"content-type") or b""
    return kind.partition(b";")[0].strip().lower() in _ENDLESS


async def _read_whole(body: BodyStream, held: bytearray) -> None:
    while data := await body.read():
        held += data
        if len(held) > MAX_HELD:
            return


def _asks_for_upgrade(request: RequestHead) -> bool:
    """As in the fast lane: h2c is simply not taken up (RFC 9110 section 7.8)."""
    options = request.head.get(b"connection", b"").lower().split(b",")
    asked = b"upgrade" in (option.strip() for option in options)
    return asked and tunnelled_protocols(request.head.get(b"upgrade", b"")) is not None


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


def _check(request: RequestHead, data: RequestData, limits: Limits) -> Failure | None:
    """What the fast lane's parser refuses and mitmproxy's lets through; completes `request`."""
    version = data.http_version.decode("latin-1").removeprefix("HTTP/")
    failure = check_head(request, version if version.startswith("1.") else "1.1", limits)
    if failure is not None:
        return failure
    fields = data.headers.fields
    if _METHOD.fullmatch(data.method) is None:
        return Failure.of(Fault.BAD_REQUEST, "the method is not a token", close=True)
    if any(_CONTROL.search(name) or _CONTROL.search(value) for name, value in fields):
        detail = "a header field is folded, or holds CR, LF or NUL"
        return Failure.of(Fault.BAD_REQUEST, detail, close=True)
    if sum(len(name) + len(value) + 4 for name, value in fields) > limits.header_bytes:
        detail = f"the header fields exceed {limits.header_bytes} bytes"
        return Failure.of(Fault.HEADERS_TOO_LARGE, detail, close=True)
    trailers = data.trailers.fields if data.trailers is not None else ()
    if (
        len(trailers) > limits.header_count
        or sum(len(name) + len(value) + 4 for name, value in trailers) > limits.header_bytes
    ):
        detail = "the trailer section is too large"
        return Failure.of(Fault.HEADERS_TOO_LARGE, detail, close=True)
    if limits.max_body is not None and len(data.content or b"") > limits.max_body:
        return body_too_large(limits.max_body)
    return None


def _closes(exchange: Exchange) -> bool:
    """The client of this HTTP/1 request wants its connection closed, or must put up with it.

    mitmproxy looks for this in the headers, from which the mesh takes it.
    """
    if exchange.failure is not None and exchange.failure.close:
        return True
    if exchange.flow.request.data.http_version == b"HTTP/1.0":
        return True
    options = exchange.head.get(b"connection", b"").lower().split(b",")
    return b"close" in (option.strip() for option in options)


def _no_listener() -> Failure:
    return Failure.of(
        Fault.NO_ROUTE, "the configuration has no listener for this port, and no outbound one"
    )


def _request_id(flow: HTTPFlow) -> str:
    given = get_field(flow.request.data.headers.fields, b"x-request-id")
    return flow.id if given is None else given.decode("latin-1")


def _refusal(failure: Failure, flow: HTTPFlow, now: float) -> Any:
    reason, fields, body = problem(failure, _request_id(flow))
    fields = (*fields, (b"Content-Length", b"%d" % len(body)))
    if failure.close:
        fields = (*fields, (b"Connection", b"close"))
    return build_response(failure.status, reason, fields, body, (), now)
