"""What scripts and people change of an answer, and what they are shown."""

from __future__ import annotations

import types
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.exceptions import AddonHalt
from mitmproxy.http import Headers, Response

from hms_addons.config.policy import Decision
from hms_addons.engine import flow_view
from hms_addons.engine.flow_events import FlowEvents
from hms_addons.errors import Fault
from hms_addons.exchange import Attempt, Principal
from hms_addons.http_message import Answer, BodyStream
from tests.fakes.exchange import make_exchange
from tests.fakes.upstream import make_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.http import HTTPFlow

    from hms_addons.exchange import Exchange

FIELDS = ((b"Content-Type", b"text/plain"), (b"X-A", b"1"))


def events_with(**hooks: Callable[[Any], Any]) -> FlowEvents:
    events = FlowEvents(AddonHalt)
    events.compile([types.SimpleNamespace(**hooks)])
    return events


def held(body: bytes = b"hello") -> Exchange:
    exchange = make_exchange()
    exchange.answer = Answer(200, b"OK", FIELDS, body)
    return exchange


def streaming(*pieces: bytes, abandoned: list[str] | None = None) -> Exchange:
    exchange = make_exchange()
    left = abandoned if abandoned is not None else []
    body = BodyStream(lambda: None, lambda: None, lambda: left.append("abandoned"))
    for piece in pieces:
        body.feed(piece)
    if abandoned is None:
        body.feed_eof(((b"X-Sum", b"7"),))
    exchange.answer = Answer(200, b"OK", FIELDS, body, length=sum(map(len, pieces)))
    return exchange


def now() -> float:
    return 1.0


async def edited(exchange: Exchange, edit: Callable[[Any], Any], event: str = "response") -> Answer:
    """The answer after a script's `response` (or another event) has had it."""

    def hook(flow: HTTPFlow) -> None:
        edit(flow.response)

    answer = await flow_view.show_answer(exchange, events_with(**{event: hook}), now)
    assert answer is not None
    assert answer is exchange.answer
    return answer


async def test_an_answer_nobody_touches_stays_as_it_is() -> None:
    answer = await edited(held(), lambda response: response.headers["X-A"])
    assert (answer.status, answer.reason, answer.fields) == (200, b"OK", FIELDS)
    assert (answer.body, answer.length) == (b"hello", 5)


async def test_both_events_see_the_whole_answer() -> None:
    seen: list[tuple[Any, ...]] = []

    def note(flow: HTTPFlow) -> None:
        assert flow.response is not None
        length = flow.response.headers.get("Content-Length")
        seen.append((flow.response.status_code, flow.response.content, length))

    await flow_view.show_answer(held(), events_with(responseheaders=note, response=note), now)
    assert seen == [(200, b"hello", "5")] * 2


async def test_a_status_is_read_back() -> None:
    answer = await edited(held(), lambda response: setattr(response, "status_code", 503))
    assert answer.status == 503
    assert answer.fields == FIELDS


async def test_a_reason_is_read_back() -> None:
    answer = await edited(held(), lambda response: setattr(response, "reason", "Fine"))
    assert answer.reason == b"Fine"


async def test_header_edits_are_read_back_without_framing() -> None:
    def edit(response: Response) -> None:
        response.headers["X-A"] = "2"
        response.headers["Transfer-Encoding"] = "chunked"
        response.headers["Connection"] = "close"

    answer = await edited(held(), edit)
    assert answer.fields == ((b"Content-Type", b"text/plain"), (b"X-A", b"2"))
    assert answer.length == 5


async def test_content_is_read_back_with_its_length() -> None:
    answer = await edited(held(), lambda response: setattr(response, "content", b"bye"))
    assert (answer.body, answer.length) == (b"bye", 3)
    assert answer.fields == FIELDS


async def test_trailers_are_read_back() -> None:
    def edit(response: Response) -> None:
        response.trailers = Headers(((b"X-Sum", b"9"),))

    assert (await edited(held(), edit)).trailers == ((b"X-Sum", b"9"),)


async def test_an_answer_to_head_keeps_the_length_of_get() -> None:
    exchange = make_exchange(method="HEAD")
    exchange.answer = Answer(200, b"OK", FIELDS, b"", length=1234)
    answer = await edited(exchange, lambda response: response.headers.update({"X-B": "1"}))
    assert (answer.body, answer.length) == (b"", 1234)


async def test_a_replaced_answer_is_taken_and_the_old_body_let_go() -> None:
    abandoned: list[str] = []
    exchange = streaming(b"never read", abandoned=abandoned)

    heard: list[bytes | None] = []

    def responseheaders(flow: HTTPFlow) -> None:
        flow.response = Response.make(403, b"no", {"X-Why": "script"})

    def response(flow: HTTPFlow) -> None:
        assert flow.response is not None
        heard.append(flow.response.raw_content)

    events = events_with(responseheaders=responseheaders, response=response)
    answer = await flow_view.show_answer(exchange, events, now)
    assert answer is not None
    assert heard == [b"no"], "it is held, so `response` comes before it is sent"
    assert (answer.status, answer.body, answer.length) == (403, b"no", 2)
    assert (b"X-Why", b"script") in answer.fields
    assert abandoned == ["abandoned"]
    assert not answer.local, "an upstream was involved: what plugins do with its answers holds"


async def test_a_killed_answer_is_none_and_its_body_let_go() -> None:
    abandoned: list[str] = []
    exchange = streaming(b"never read", abandoned=abandoned)
    heard: list[str] = []
    events = events_with(
        responseheaders=lambda flow: flow.kill(), response=lambda flow: heard.append("response")
    )
    exchange.flow.live = True
    assert await flow_view.show_answer(exchange, events, now) is None
    assert abandoned == ["abandoned"]
    assert heard == [], "no `response` after a kill"


async def test_a_stream_is_shown_without_content_and_not_read() -> None:
    exchange = streaming(b"a", b"b")
    contents: list[bytes | None] = []
    answer = await edited(
        exchange, lambda response: contents.append(response.raw_content), "responseheaders"
    )
    assert contents == [None]
    assert isinstance(answer.body, BodyStream)
    assert [piece async for piece in answer.body] == [b"a", b"b"]
    assert answer.length == 2


async def test_a_function_changes_the_pieces_of_a_stream_and_ends_it() -> None:
    seen: list[bytes] = []

    def change(data: bytes) -> list[bytes] | bytes:
        seen.append(data)
        return [data.upper(), b"."] if data else b"end"

    answer = await edited(
        streaming(b"a", b"b"), lambda r: setattr(r, "stream", change), "responseheaders"
    )
    assert isinstance(answer.body, BodyStream)
    assert answer.length is None, "nobody knows how long it will be"
    assert b"".join([piece async for piece in answer.body]) == b"A.B.end"
    assert seen == [b"a", b"b", b""]
    assert answer.body.trailers == ((b"X-Sum", b"7"),)


async def read_through(answer: Answer | None) -> list[bytes]:
    assert answer is not None
    assert isinstance(answer.body, BodyStream)
    return [piece async for piece in answer.body]


async def test_response_comes_when_the_last_piece_of_a_stream_has_passed() -> None:
    log: list[tuple[Any, ...]] = []

    def note(event: str) -> Callable[[HTTPFlow], None]:
        def hook(flow: HTTPFlow) -> None:
            assert flow.response is not None
            trailers = flow.response.trailers
            log.append((event, flow.response.timestamp_end, trailers and trailers["X-Sum"]))

        return hook

    events = events_with(responseheaders=note("responseheaders"), response=note("response"))
    times = iter([1.0, 2.0])
    exchange = streaming(b"a", b"b")
    answer = await flow_view.show_answer(exchange, events, lambda: next(times))
    assert answer is not None
    assert isinstance(answer.body, BodyStream)
    assert await answer.body.read() == b"a"
    assert await answer.body.read() == b"b"
    assert log == [("responseheaders", None, None)]
    assert await answer.body.read() == b""
    assert log[1:] == [("response", 2.0, "7")]
    assert answer.body.trailers == ((b"X-Sum", b"7"),)
    assert await answer.body.read() == b""
    await flow_view.show_end(exchange, events, lambda: 3.0)
    assert len(log) == 2, "once"


async def test_views_are_told_of_a_stream_s_beginning_and_end_though_nobody_listens() -> None:
    ends: list[float | None] = []

    def update(flows: list[HTTPFlow]) -> None:
        assert flows[0].response is not None
        ends.append(flows[0].response.timestamp_end)

    await read_through(
        await flow_view.show_answer(streaming(b"a"), events_with(update=update), now)
    )
    assert ends == [None, 1.0]


async def test_trailers_changed_at_a_stream_s_end_are_taken() -> None:
    def response(flow: HTTPFlow) -> None:
        assert flow.response is not None
        flow.response.trailers = Headers(((b"X-Sum", b"9"),))

    answer = await flow_view.show_answer(streaming(b"a"), events_with(response=response), now)
    assert await read_through(answer) == [b"a"]
    assert answer is not None
    assert isinstance(answer.body, BodyStream)
    assert answer.body.trailers == ((b"X-Sum", b"9"),)


async def test_a_stream_killed_at_its_end_never_looks_whole() -> None:
    heard: list[str] = []
    events = events_with(response=lambda flow: flow.kill(), error=heard.append)
    exchange = streaming(b"a")
    exchange.flow.live = True
    answer = await flow_view.show_answer(exchange, events, now)
    with pytest.raises(ConnectionResetError, match="killed"):
        await read_through(answer)
    assert heard == [], "it has had its `response`"
    assert exchange.failure is not None
    assert exchange.failure.flag == "DC"


async def test_a_stream_killed_under_way_is_cut_at_its_next_piece_and_told_of_once() -> None:
    heard: list[str] = []
    events = events_with(
        response=lambda flow: heard.append("response"), error=lambda flow: heard.append("error")
    )
    exchange = streaming(b"a", b"b")
    exchange.flow.live = True
    answer = await flow_view.show_answer(exchange, events, now)
    assert answer is not None
    assert isinstance(answer.body, BodyStream)
    assert await answer.body.read() == b"a"
    exchange.flow.kill()
    with pytest.raises(ConnectionResetError, match="killed"):
        await answer.body.read()
    assert heard == ["error"]


async def test_a_stream_that_breaks_off_has_no_response_event() -> None:
    heard: list[str] = []
    exchange = streaming(b"a", abandoned=[])
    answer = await flow_view.show_answer(exchange, events_with(response=heard.append), now)
    assert answer is not None
    assert isinstance(answer.body, BodyStream)
    assert await answer.body.read() == b"a"
    answer.release()
    with pytest.raises(ConnectionAbortedError):
        await answer.body.read()
    assert heard == []
    assert exchange.flow.response is not None
    assert exchange.flow.response.timestamp_end is None


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 304)])
async def test_a_stream_that_has_no_body_to_send_is_over_at_once(method: str, status: int) -> None:
    heard: list[float | None] = []

    def response(flow: HTTPFlow) -> None:
        assert flow.response is not None
        heard.append(flow.response.timestamp_end)

    exchange = make_exchange(method=method)
    exchange.answer = Answer(status, b"", FIELDS, BodyStream(lambda: None, lambda: None))
    await flow_view.show_answer(exchange, events_with(response=response), now)
    assert heard == [1.0]


@pytest.mark.parametrize("nothing", [b"", [], [b"", b""]])
async def test_a_function_may_swallow_as_much_as_it_likes(nothing: Any) -> None:
    exchange = streaming(*[b"x"] * 5000)
    assert exchange.answer is not None
    assert isinstance(exchange.answer.body, BodyStream)
    stream = flow_view.transformed(exchange.answer.body, lambda data: nothing if data else b"end")
    assert [piece async for piece in stream] == [b"end"]


async def test_the_source_s_failure_comes_through_and_close_reaches_it() -> None:
    abandoned: list[str] = []
    source = BodyStream(lambda: None, lambda: None, lambda: abandoned.append("abandoned"))
    stream = flow_view.transformed(source, bytes.upper)
    source.feed(b"a")
    assert await stream.read() == b"A"
    stream.close()
    assert abandoned == ["abandoned"]
    broken = BodyStream(lambda: None, lambda: None)
    broken.fail(ConnectionResetError("cut"))
    with pytest.raises(ConnectionResetError, match="cut"):
        await flow_view.transformed(broken, bytes.upper).read()


async def test_a_script_s_answer_loses_its_framing() -> None:
    response = Response.make(200, b"abc", {"Transfer-Encoding": "chunked", "X-A": "1"})
    response.trailers = Headers(((b"T", b"1"),))
    answer = flow_view.answer_of(response)
    assert answer.fields == ((b"X-A", b"1"),)
    assert (answer.body, answer.length, answer.trailers) == (b"abc", 3, ((b"T", b"1"),))
    assert answer.local


def decided() -> Exchange:
    exchange = make_exchange(peer="spiffe://mpsa.mil/svc/claims-svc")
    exchange.cluster = make_cluster()
    exchange.endpoint = "10.0.0.1:80"
    exchange.attempts = [
        Attempt("10.0.0.2:80", 1.0, 1.25, "connect-failure"),
        Attempt("10.0.0.1:80", 1.25, 1.5, "200"),
    ]
    exchange.principal = Principal("sgt.pepper", ("PROGRAM_MANAGER", "CLERK"))
    exchange.set_request_header(b"x-POLICY-version", b"1.3.4")
    return exchange


def test_the_comment_tells_in_one_line_what_the_mesh_did() -> None:
    exchange = decided()
    flow_view.annotate(exchange)
    assert exchange.flow.comment == (
        "inbound route=to-auth-svc cluster=auth-svc endpoint=10.0.0.1:80 attempts=2 "
        "role=PROGRAM_MANAGER,CLERK policy=1.3.4"
    )
    exchange.fail(Fault.TIMEOUT, "too slow")
    flow_view.annotate(exchange)
    assert exchange.flow.comment == (
        "flag=UT inbound route=to-auth-svc cluster=auth-svc endpoint=10.0.0.1:80 attempts=2 "
        "role=PROGRAM_MANAGER,CLERK policy=1.3.4 (too slow)"
    )


def test_failover_and_fallback_are_told() -> None:
    exchange = decided()
    exchange.notes["failover_from"] = "auth-svc"
    exchange.mark_fallback(Answer(200, b"OK", ()), "stale; age=3", "UH", "all gone")
    flow_view.annotate(exchange)
    summary = exchange.flow.metadata["hms"]
    assert summary["notes"] == {"failover_from": "auth-svc"}
    assert summary["fallback"] == {"what": "stale; age=3", "because": "UH", "detail": "all gone"}
    assert summary["comment"].startswith("flag=FB ")
    assert "fallback=stale; age=3" in summary["comment"]
    assert "failover_from=auth-svc" in summary["comment"]


def test_the_summary_is_plain_types_that_a_flow_file_can_hold() -> None:
    exchange = decided()
    exchange.fail(Fault.TIMEOUT, "too slow")
    flow_view.annotate(exchange)
    summary = exchange.flow.metadata["hms"]
    assert summary["attempts"][0] == {
        "cluster": "",
        "endpoint": "10.0.0.2:80",
        "outcome": "connect-failure",
        "ms": 250.0,
    }
    assert (summary["listener"], summary["subject"]) == ("peers", "sgt.pepper")
    assert (summary["flag"], summary["request_id"]) == ("UT", "7f3c")

    def plain(value: Any) -> bool:
        if type(value) is dict:
            return all(map(plain, value.values()))
        if type(value) is list:
            return all(map(plain, value))
        return value is None or type(value) in {str, int, float, bool}

    assert plain(summary)


def test_an_exchange_that_was_refused_at_once_has_a_short_comment() -> None:
    exchange = make_exchange()
    exchange.route = None
    exchange.fail(Fault.NO_ROUTE, "nothing matches")
    flow_view.annotate(exchange)
    assert exchange.flow.comment == "flag=NR inbound (nothing matches)"


def test_what_a_person_has_written_there_is_kept() -> None:
    exchange = decided()
    flow_view.annotate(exchange)
    exchange.flow.comment = "look at this one"
    exchange.fail(Fault.TIMEOUT, "too slow")
    flow_view.annotate(exchange)
    assert exchange.flow.comment == "look at this one"
    assert exchange.flow.metadata["hms"]["flag"] == "UT"


def test_a_summary_tells_what_an_audited_policy_would_have_denied() -> None:
    exchange = make_exchange()
    exchange.decision = Decision(
        allowed=True, policy="a", reason="fine", would_deny="policy 'b' denies it", audit_policy="b"
    )
    flow_view.annotate(exchange)
    summary = exchange.flow.metadata["hms"]
    assert (summary["policy"], summary["would_deny"]) == ("a", "policy 'b' denies it")
    assert "would deny (audit): policy 'b' denies it" in exchange.flow.comment
