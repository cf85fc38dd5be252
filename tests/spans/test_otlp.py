"""Records as spans, read back by OTLP's own messages."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceResponse,
)

from hms_addons.config.snapshot import Cluster, Direction, UpstreamTls
from hms_addons.errors import Fault, Flag
from hms_addons.http_message import Answer
from hms_addons.spans.otlp import SpanEncoder
from hms_addons.spans.record import record_of
from hms_addons.trace_context import Trace
from tests.fakes.exchange import make_exchange, make_listener, make_snapshot
from tests.integration.otlp_kit import Span, read_spans

CALLER = b"00-12345678901234567890123456789012-1234567890123456-01"
ENCODER = SpanEncoder({"service.name": "auth-svc", "service.instance.id": "auth-svc-1"})


def exchange_with(status: int = 200, **changes: Any) -> Any:
    exchange = make_exchange(**changes)
    if status:
        exchange.answer = Answer(status, b"", ())
    return exchange


def spans_of(exchange: Any, trace: Trace) -> list[Span]:
    batch = ENCODER.batch()
    batch.add(record_of(exchange, trace, 1002.0, 1_800_000_002.0))
    found = read_spans(batch.encoded())
    assert len(batch) == len(found)
    assert repr(batch) == f"<Batch of {len(found)} spans>"
    return found


def test_a_request_is_a_span_and_each_try_one_below_it() -> None:
    tls = UpstreamTls(secret="mesh_certs", peers=frozenset())
    cluster = Cluster(name="auth-svc", service="auth-svc", tls=tls)
    exchange = exchange_with(snapshot=make_snapshot(clusters={"auth-svc": cluster}))
    trace = Trace(CALLER)
    first = trace.begin("127.0.0.1:9001", "auth-svc", 1000.5, hedged=False)
    second = trace.begin("[::1]:9002", "auth-svc", 1001.0, hedged=False)
    third = trace.begin("127.0.0.1:9003", "gone", 1001.0, hedged=True)
    first.end(1000.75, "connect-failure", "nobody listens")
    second.end(1001.5, "200")
    request, *tries = spans_of(exchange, trace)
    assert request.trace == "12345678901234567890123456789012"
    assert request.parent == "1234567890123456"
    assert request.id == trace.span_id.decode()
    assert (request.name, request.kind, request.failed) == ("GET to-auth-svc", "SERVER", False)
    assert request.start == 1_800_000_000 * 10**9
    assert request.end == 1_800_000_002 * 10**9
    assert request.resource == {"service.name": "auth-svc", "service.instance.id": "auth-svc-1"}
    assert {span.trace for span in tries} == {request.trace}
    assert {span.parent for span in tries} == {request.id}
    assert {span.kind for span in tries} == {"CLIENT"}
    assert [span.id for span in tries] == [one.span_id.decode() for one in (first, second, third)]
    assert [span.start % 10**10 for span in tries] == [5 * 10**8, 10**9, 10**9]
    # What did not end by itself ended with the request.
    assert [span.end % 10**10 for span in tries] == [75 * 10**7, 15 * 10**8, 2 * 10**9]
    assert [span.failed for span in tries] == [True, False, True]
    assert [span.message for span in tries] == ["nobody listens", "", ""]
    told = [span.attributes for span in tries]
    assert [a.get("error.type") for a in told] == ["connect-failure", None, "cancelled"]
    assert [a.get("http.response.status_code") for a in told] == [None, 200, None]
    assert [a["hms.attempt"] for a in told] == ["first", "retry", "hedge"]
    assert [a.get("http.request.resend_count") for a in told] == [None, 1, 2]
    assert [(a["server.address"], a["server.port"]) for a in told] == [
        ("127.0.0.1", 9001),
        ("::1", 9002),
        ("127.0.0.1", 9003),
    ]
    assert told[0]["url.full"] == "https://127.0.0.1:9001/verify-id"
    assert told[2]["url.full"] == "http://127.0.0.1:9003/verify-id"


@pytest.mark.parametrize(
    ("status", "flag", "failed", "error"),
    [
        (200, None, False, None),
        (404, None, False, None),
        (499, None, False, None),
        (500, None, True, "500"),
        (503, Flag.URX, True, "URX"),
        (200, Flag.FB, False, None),
        (0, None, True, "no answer"),
    ],
)
def test_what_is_an_error(status: int, flag: Flag | None, failed: bool, error: str | None) -> None:
    exchange = exchange_with(status)
    exchange.flag = flag
    (span,) = spans_of(exchange, Trace())
    assert (span.failed, span.attributes.get("error.type")) == (failed, error)
    assert span.attributes.get("http.response.status_code") == (status or None)
    assert span.attributes.get("hms.flag") == (flag.value if flag else None)
    assert span.parent == ""


def test_a_refusal_says_why() -> None:
    exchange = exchange_with(403, listener=make_listener(direction=Direction.OUTBOUND))
    exchange.fail(Fault.NO_ROUTE, "there is no such service")
    exchange.route = None
    (span,) = spans_of(exchange, Trace())
    assert (span.name, span.kind, span.failed) == ("GET", "CLIENT", True)
    assert span.message == "there is no such service"
    assert span.attributes["error.type"] == "NR"


def test_methods_that_nobody_knows_are_no_names_of_spans() -> None:
    (span,) = spans_of(exchange_with(method="BREW"), Trace())
    assert span.name == "HTTP to-auth-svc"
    assert span.attributes["http.request.method"] == "_OTHER"
    assert span.attributes["http.request.method_original"] == "BREW"


def test_what_is_alike_is_remembered_but_not_for_ever() -> None:
    encoder = SpanEncoder({})
    for number in range(10_000):
        encoder._attribute("hms.route", f"route-{number}")
    assert len(encoder._known) <= 4096
    assert repr(encoder) == f"<SpanEncoder known={len(encoder._known)}>"


def test_a_collectors_answer_says_what_it_has_not_taken() -> None:
    partial = ExportTracePartialSuccess(rejected_spans=3, error_message="too old")
    answer = ExportTraceServiceResponse(partial_success=partial)
    assert ENCODER.rejected(answer.SerializeToString()) == (3, "too old")
    assert ENCODER.rejected(b"") == (0, "")
    with pytest.raises(ValueError, match="parsing"):
        ENCODER.rejected(b"<html>")
