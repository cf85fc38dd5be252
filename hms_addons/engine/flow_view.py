"""What people and scripts see of an exchange, and what becomes of what they change.

Used only while somebody watches flows: the answer is shown as `flow.response`, and read back if it
was edited or replaced; a summary of what the mesh did goes to `flow.comment` and, as plain types, to
`flow.metadata["hms"]`, and what did not simply succeed is marked (`flow_marks`).
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.engine.flow_builder import build_headers, build_response, was_killed
from hms_addons.engine.flow_marks import mark_of
from hms_addons.engine.hygiene import HOP_BY_HOP
from hms_addons.engine.response_writer import NO_BODY_STATUS
from hms_addons.engine.websocket_side import make_data
from hms_addons.errors import Fault
from hms_addons.http_message import Answer, BodyStream, FilteredStream, get_field, without_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mitmproxy.http import HTTPFlow, Request, Response

    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Fields

KILLED = "the flow was killed: its connection is cut off"

_FRAMING = HOP_BY_HOP | {b"content-length"}


def set_trailers(message: Request | Response, trailers: Fields) -> None:
    """Show a message's trailer section."""
    message.data.trailers = build_headers(trailers)


def answer_of(response: Response, *, local: bool = True) -> Answer:
    """The answer that a script, or a person in mitmweb, has given.

    Args:
        response: what stands in the flow.
        local: no upstream was involved.
    """
    data = response.data
    trailers = data.trailers.fields if data.trailers is not None else ()
    return Answer(
        data.status_code,
        data.reason,
        without_fields(data.headers.fields, _FRAMING),
        data.content or b"",
        trailers=trailers,
        local=local,
    )


async def show_answer(
    exchange: Exchange, events: FlowEvents, now: Callable[[], float]
) -> Answer | None:
    """Fire `responseheaders` and `response`; the answer as it was left, None if it was killed.

    A streaming body is not held for them. As in mitmproxy, `response` then has no content, and comes
    when the last piece has passed (`show_end`); what is changed there is too late. After a cut it
    never comes.

    Args:
        exchange: with its answer.
        events: who listens.
        now: tells the time, in seconds since the epoch.
    """
    answer, flow = exchange.answer, exchange.flow
    assert answer is not None  # noqa: S101 - the lane has seen to it
    shown = _make_response(exchange, answer, now())
    response, passes = shown.response, shown.passes
    flow.response = response
    annotate(exchange)
    if events.responseheaders or passes:
        await events.fire_flow(events.responseheaders, flow)
    if passes:
        # Not if a script has put an answer of its own in its place.
        passes = flow.response is response or bool(flow.response and flow.response.stream)
    if answer.tunnel is not None:
        flow.websocket = make_data(exchange, answer, events)
    if events.response and not passes and not was_killed(flow):
        await events.fire_flow(events.response, flow)
    if was_killed(flow):
        answer.release()
        return None
    if flow.response is not None:
        _read_back(exchange, answer, shown, flow.response)
    if passes and isinstance(answer.body, BodyStream) and flow.response is not None:
        flow.response.data.timestamp_end = None
        watch = _Watch(answer.body, exchange, events, now)
        answer.body = FilteredStream(answer.body, watch.pull)
    return exchange.answer


class _Shown(NamedTuple):
    """An answer as it is shown first.

    Attributes:
        response: what stands in the flow.
        fields, content: its, before anybody has changed them.
        passes: it has a body that streams.
    """

    response: Response
    fields: Fields
    content: bytes | None
    passes: bool


def _make_response(exchange: Exchange, answer: Answer, now: float) -> _Shown:
    body = answer.body
    content = None if isinstance(body, BodyStream) else body
    passes = (
        content is None and exchange.method_bytes != b"HEAD" and answer.status not in NO_BODY_STATUS
    )
    fields = answer.fields
    if answer.tunnel is not None and get_field(fields, b"upgrade") is None:
        # The writer's, as framing is; shown, since scripts look for it.
        protocol = answer.tunnel.protocol
        fields = (*fields, (b"Connection", b"Upgrade"), (b"Upgrade", protocol))
    elif content is not None and answer.length is not None:
        fields = (*fields, (b"Content-Length", b"%d" % answer.length))
    response = build_response(answer.status, answer.reason, fields, content, answer.trailers, now)
    response.stream = content is None
    if passes:
        response.data.timestamp_end = None
    return _Shown(response, fields, content, passes)


def _read_back(exchange: Exchange, answer: Answer, shown: _Shown, response: Response) -> None:
    """Take over what `response` says by now."""
    data = response.data
    streaming = isinstance(answer.body, BodyStream)
    if response is not shown.response and not response.stream:
        answer.release()
        exchange.answer = answer_of(response, local=answer.local)
    else:
        answer.status, answer.reason = data.status_code, data.reason
        if data.headers.fields is not shown.fields:
            answer.fields = without_fields(data.headers.fields, _FRAMING)
    if response is shown.response and not streaming:
        answer.trailers = data.trailers.fields if data.trailers is not None else ()
        if data.content is not shown.content:
            answer.body = data.content or b""
            answer.length = len(answer.body)
    if isinstance(answer.body, BodyStream) and callable(response.stream):
        answer.body = transformed(answer.body, response.stream)
        answer.length = None


async def show_end(exchange: Exchange, events: FlowEvents, now: Callable[[], float]) -> None:
    """Fire `response` for an answer that has been streamed, unless it has been."""
    flow = exchange.flow
    if flow.response is not None and flow.response.data.timestamp_end is None:
        flow.response.data.timestamp_end = now()
        annotate(exchange)
        await events.fire_flow(events.response, flow)


class _Watch:
    """A streaming answer that somebody watches: `response` comes at its end, before it is told on.

    So a trailer may still be changed, and a flow that is killed meanwhile is cut at its next piece.
    """

    def __init__(
        self, source: BodyStream, exchange: Exchange, events: FlowEvents, now: Callable[[], float]
    ) -> None:
        self._source = source
        self._exchange = exchange
        self._events = events
        self._now = now

    async def pull(self, stream: FilteredStream) -> bytes:
        """See `FilteredStream`."""
        data = await self._source.read()
        flow = self._exchange.flow
        if was_killed(flow):
            await self._events.fire_flow(self._events.error, flow)
            self._cut()
        if data or flow.response is None:
            return data
        if self._source.trailers:
            set_trailers(flow.response, self._source.trailers)
        await show_end(self._exchange, self._events, self._now)
        if was_killed(flow):
            self._cut()
        trailers = flow.response.data.trailers if flow.response is not None else None
        stream.trailers = trailers.fields if trailers is not None else ()
        return data

    def _cut(self) -> None:
        self._exchange.fail(Fault.CLIENT_GONE, KILLED)
        raise ConnectionResetError(KILLED)


class _Transformation:
    """Passes a stream's pieces through a script's function (`flow.response.stream = function`)."""

    def __init__(
        self, source: BodyStream, function: Callable[[bytes], Iterable[bytes] | bytes]
    ) -> None:
        self._source = source
        self._function = function
        self._ready: deque[bytes] = deque()
        self._last = False

    async def pull(self, stream: FilteredStream) -> bytes:
        """See `FilteredStream`."""
        while True:
            while self._ready:
                if piece := self._ready.popleft():
                    return piece
            if self._last:
                return b""
            data = await self._source.read()
            self._last = not data
            # As in mitmproxy, the function is called once more with b"" at the end.
            result = self._function(data)
            self._ready.extend([result] if isinstance(result, bytes) else list(result))
            stream.trailers = self._source.trailers


def transformed(
    source: BodyStream, function: Callable[[bytes], Iterable[bytes] | bytes]
) -> BodyStream:
    """`source` with every piece passed through `function`."""
    return FilteredStream(source, _Transformation(source, function).pull)


def has_ended(flow: HTTPFlow) -> bool:
    """It was a WebSocket, of whose end `websocket_end` has told."""
    return flow.websocket is not None and flow.websocket.timestamp_end is not None


def annotate(exchange: Exchange) -> None:
    """Write down what the mesh did, where mitmweb, saved files and scripts find it."""
    flow = exchange.flow
    summary = summarise(exchange)
    before = flow.metadata.get("hms")
    told = before if isinstance(before, dict) else {}
    flow.metadata["hms"] = summary
    mark = summary["mark"] = mark_of(exchange)
    # A person's own mark stays, and so does the lack of it where they have taken ours away.
    if flow.marked == told.get("mark", ""):
        flow.marked = mark
    parts = [
        # First, as mitmweb's list shows no more than the beginning.
        f"flag={summary['flag']}" if summary["flag"] else "",
        f"{exchange.listener.direction}",
        f"route={summary['route']}" if summary["route"] else "",
        f"cluster={summary['cluster']}" if summary["cluster"] else "",
        f"fallback={summary['fallback']['what']}" if summary["fallback"] else "",
        f"endpoint={summary['endpoint']}" if summary["endpoint"] else "",
        f"attempts={len(summary['attempts'])}" if summary["attempts"] else "",
        f"role={summary['role']}" if summary["role"] else "",
        f"policy={summary['policy_version']}" if summary["policy_version"] else "",
        f"would deny (audit): {summary['would_deny']}" if summary["would_deny"] else "",
        *(f"{name}={note}" for name, note in summary["notes"].items()),
        f"({summary['detail']})" if summary["detail"] else "",
    ]
    comment = summary["comment"] = " ".join(part for part in parts if part)
    # What a person or a script has written there is theirs.
    if not flow.comment or flow.comment == told.get("comment"):
        flow.comment = comment


def summarise(exchange: Exchange) -> dict[str, Any]:
    """What the mesh did, in plain types."""
    names = exchange.snapshot.headers
    policy_name = names.policy_version.lower()
    version = next(
        (
            value.decode("latin-1")
            for name, value in exchange.flow.request.data.headers.fields
            if name.lower() == policy_name
        ),
        None,
    )
    failure, decision = exchange.failure, exchange.decision
    return {
        "listener": exchange.listener.name,
        "direction": str(exchange.listener.direction),
        "service": exchange.service,
        "route": exchange.route.name if exchange.route else None,
        "cluster": exchange.cluster.name if exchange.cluster else None,
        "fallback": exchange.notes.get("fallback"),
        "endpoint": exchange.endpoint,
        "attempts": [
            {
                "cluster": attempt.cluster,
                "endpoint": attempt.endpoint,
                "outcome": attempt.outcome,
                "ms": round((attempt.ended - attempt.started) * 1000, 3),
            }
            for attempt in exchange.attempts
        ],
        "peer": exchange.peer,
        "subject": exchange.principal.subject,
        "role": ",".join(exchange.principal.roles) or None,
        "policy_version": version,
        "policy": decision.policy if decision else None,
        "would_deny": decision.would_deny if decision else None,
        "flag": str(failure.flag) if failure else str(exchange.flag) if exchange.flag else None,
        "detail": failure.detail if failure else None,
        "notes": {name: note for name, note in exchange.notes.items() if isinstance(note, str)},
        "request_id": exchange.request_id,
    }
