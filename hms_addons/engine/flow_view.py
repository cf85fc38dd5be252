"""What people and scripts see of an exchange, and what becomes of what they change.

Used only while somebody watches flows: the answer is shown as `flow.response`, and read back if it
was edited or replaced; a summary of what the mesh did goes to `flow.comment` and, as plain types, to
`flow.metadata["hms"]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.engine.flow_builder import build_headers, build_response, was_killed
from hms_addons.engine.hygiene import HOP_BY_HOP
from hms_addons.http_message import Answer, BodyStream, without_fields

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mitmproxy.http import Request, Response

    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Fields

_FRAMING = HOP_BY_HOP | {b"content-length"}


def set_trailers(message: Request | Response, trailers: Fields) -> None:
    """Show a message's trailer section."""
    message.data.trailers = build_headers(trailers)


def answer_of(response: Response) -> Answer:
    """The answer that a script, or a person in mitmweb, has given."""
    data = response.data
    trailers = data.trailers.fields if data.trailers is not None else ()
    return Answer(
        data.status_code,
        data.reason,
        without_fields(data.headers.fields, _FRAMING),
        data.content or b"",
        trailers=trailers,
        local=True,
    )


async def show_answer(exchange: Exchange, events: FlowEvents, now: float) -> Answer | None:
    """Fire `responseheaders` and `response`; the answer as it was left, None if it was killed.

    A streaming body is not held for them: as in mitmproxy, `response` then comes without content.
    """
    answer, flow = exchange.answer, exchange.flow
    assert answer is not None  # noqa: S101 - the lane has seen to it
    streaming = isinstance(answer.body, BodyStream)
    shown_fields = answer.fields
    if not streaming and answer.length is not None:
        shown_fields = (*shown_fields, (b"Content-Length", b"%d" % answer.length))
    content = None if isinstance(answer.body, BodyStream) else answer.body
    response = build_response(
        answer.status, answer.reason, shown_fields, content, answer.trailers, now
    )
    response.stream = streaming
    flow.response = response
    annotate(exchange)
    if events.responseheaders:
        await events.fire_flow(events.responseheaders, flow)
    if events.response and not was_killed(flow):
        await events.fire_flow(events.response, flow)
    if was_killed(flow):
        answer.release()
        return None
    shown, data = flow.response, flow.response.data if flow.response else None
    if shown is None or data is None:
        return answer
    if shown is not response and not shown.stream:
        answer.release()
        exchange.answer = answer_of(shown)
    else:
        answer.status, answer.reason = data.status_code, data.reason
        if data.headers.fields is not shown_fields:
            answer.fields = without_fields(data.headers.fields, _FRAMING)
    if shown is response and not streaming:
        answer.trailers = data.trailers.fields if data.trailers is not None else ()
        if data.content is not content:
            answer.body = data.content or b""
            answer.length = len(answer.body)
    if streaming and callable(shown.stream) and isinstance(answer.body, BodyStream):
        answer.body = transformed(answer.body, shown.stream)
        answer.length = None
    return exchange.answer


class _TransformedStream(BodyStream):
    """A stream whose pieces pass through a script's function (`flow.response.stream = function`)."""

    __slots__ = ("_function", "_last", "_source")

    def __init__(
        self, source: BodyStream, function: Callable[[bytes], Iterable[bytes] | bytes]
    ) -> None:
        super().__init__(lambda: None, lambda: None)
        self._source = source
        self._function = function
        self._last = False

    async def read(self) -> bytes:
        """See `BodyStream.read`."""
        while True:
            while self._chunks:
                if chunk := self._chunks.popleft():
                    return chunk
            if self._last:
                return b""
            data = await self._source.read()
            self._last = not data
            # As in mitmproxy, the function is called once more with b"" at the end.
            result = self._function(data)
            self._chunks.extend([result] if isinstance(result, bytes) else list(result))
            self.trailers = self._source.trailers

    def close(self) -> None:
        """See `BodyStream.close`."""
        self._source.close()


def transformed(
    source: BodyStream, function: Callable[[bytes], Iterable[bytes] | bytes]
) -> BodyStream:
    """`source` with every piece passed through `function`."""
    return _TransformedStream(source, function)


def annotate(exchange: Exchange) -> None:
    """Write down what the mesh did, where mitmweb, saved files and scripts find it."""
    flow = exchange.flow
    summary = summarise(exchange)
    before = flow.metadata.get("hms")
    ours = before.get("comment") if isinstance(before, dict) else None
    flow.metadata["hms"] = summary
    parts = [
        # First, as mitmweb's list shows no more than the beginning.
        f"flag={summary['flag']}" if summary["flag"] else "",
        f"{exchange.listener.direction}",
        f"route={summary['route']}" if summary["route"] else "",
        f"cluster={summary['cluster']}" if summary["cluster"] else "",
        f"endpoint={summary['endpoint']}" if summary["endpoint"] else "",
        f"attempts={len(summary['attempts'])}" if summary["attempts"] else "",
        f"role={summary['role']}" if summary["role"] else "",
        f"policy={summary['policy_version']}" if summary["policy_version"] else "",
        f"({summary['detail']})" if summary["detail"] else "",
    ]
    comment = summary["comment"] = " ".join(part for part in parts if part)
    # What a person or a script has written there is theirs.
    if not flow.comment or flow.comment == ours:
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
    failure = exchange.failure
    return {
        "listener": exchange.listener.name,
        "direction": str(exchange.listener.direction),
        "service": exchange.service,
        "route": exchange.route.name if exchange.route else None,
        "cluster": exchange.cluster.name if exchange.cluster else None,
        "endpoint": exchange.endpoint,
        "attempts": [
            {
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
        "flag": str(failure.flag) if failure else str(exchange.flag) if exchange.flag else None,
        "detail": failure.detail if failure else None,
        "request_id": exchange.request_id,
    }
