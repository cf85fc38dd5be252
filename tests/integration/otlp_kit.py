"""What an OpenTelemetry collector gets, read by OTLP's own protobuf messages."""

from __future__ import annotations

from dataclasses import dataclass
from random import getrandbits
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as ProtoSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from tests.integration.basics import until

if TYPE_CHECKING:
    from tests.integration.servers import Upstream


@dataclass
class Span:
    """One span, in plain values."""

    trace: str
    id: str
    parent: str
    name: str
    kind: str
    failed: bool
    message: str
    start: int
    end: int
    attributes: dict[str, Any]
    resource: dict[str, Any]

    @property
    def is_try(self) -> bool:
        return "hms.attempt" in self.attributes


def _plain(attributes: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in attributes}


def read_spans(body: bytes) -> list[Span]:
    """The spans of one request to a collector."""
    found = []
    for whole in ExportTraceServiceRequest.FromString(body).resource_spans:
        resource = _plain(whole.resource.attributes)
        for scope in whole.scope_spans:
            assert scope.scope.name == "hms"
            for span in scope.spans:
                assert len(span.trace_id) == 16
                assert len(span.span_id) == 8
                found.append(
                    Span(
                        span.trace_id.hex(),
                        span.span_id.hex(),
                        span.parent_span_id.hex(),
                        span.name,
                        ProtoSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_"),
                        span.status.code == Status.STATUS_CODE_ERROR,
                        span.status.message,
                        span.start_time_unix_nano,
                        span.end_time_unix_nano,
                        _plain(span.attributes),
                        resource,
                    )
                )
    return found


def spans_at(collector: Upstream, trace: str | None = None) -> list[Span]:
    """What has come so far, of one trace or of all, in the order of their beginnings."""
    requests = [request for request in collector.got("/v1/traces") if request.whole]
    found = [span for request in requests for span in read_spans(request.body)]
    return sorted((s for s in found if trace in {None, s.trace}), key=lambda span: span.start)


def wait_spans(collector: Upstream, trace: str, number: int) -> list[Span]:
    """The spans of a trace, once there are so many."""
    until(lambda: len(spans_at(collector, trace)) >= number, f"{number} spans of {trace}")
    found = spans_at(collector, trace)
    assert len(found) == number, found
    return found


def sampled() -> tuple[str, str, str]:
    """A trace that its caller records: its ID, the caller's span, and the header line."""
    trace, span = f"{getrandbits(128) or 1:032x}", f"{getrandbits(64) or 1:016x}"
    return trace, span, f"traceparent: 00-{trace}-{span}-01"
