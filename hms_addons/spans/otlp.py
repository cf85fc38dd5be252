"""Records as OTLP's protobuf (opentelemetry-proto), named by OpenTelemetry's HTTP conventions.

A request is one span: of kind SERVER on an inbound listener, CLIENT on an outbound one, where the app is
the one that calls. Each try below it is a span of kind CLIENT. No query is ever written, as it may hold
secrets, nor any header's value but the policy version, the host and the request ID.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import Flag

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.spans.record import RequestRecord
    from hms_addons.trace_context import TracedTry

SCOPE: Final = "hms"
"""The instrumentation scope."""
_METHODS: Final = frozenset("CONNECT DELETE GET HEAD OPTIONS PATCH POST PUT QUERY TRACE".split())
"""Others are `_OTHER` (conventions: "HTTP server span", http.request.method)."""
_CLIENT_ERROR: Final = 400
_SERVER_ERROR: Final = 500
_STATUS_DIGITS: Final = 3
_FINE: Final = frozenset({Flag.FB.value})
"""Flags of an answer that is none of failure."""
_MOST_KNOWN: Final = 4096
_SAMPLED_FLAG: Final = 1
_REMOTE: Final = 0x300
"""It is known whether the parent is of another process, and it is (trace.proto, SpanFlags)."""
_LOCAL: Final = 0x100


class SpanEncoder:
    """Makes requests to a collector.

    Args:
        resource: the attributes of this sidecar.
        version: of this package.
    """

    def __init__(self, resource: Mapping[str, str], version: str = "") -> None:
        trace: Any = importlib.import_module("opentelemetry.proto.trace.v1.trace_pb2")
        common: Any = importlib.import_module("opentelemetry.proto.common.v1.common_pb2")
        resources: Any = importlib.import_module("opentelemetry.proto.resource.v1.resource_pb2")
        service: Any = importlib.import_module(
            "opentelemetry.proto.collector.trace.v1.trace_service_pb2"
        )
        self._span = trace.Span
        self._error = trace.Status.STATUS_CODE_ERROR
        self._request = service.ExportTraceServiceRequest
        self._response = service.ExportTraceServiceResponse
        self._known: dict[tuple[str, str | int], bytes] = {}
        self._resource_spans = trace.ResourceSpans(
            resource=resources.Resource(
                attributes=[
                    common.KeyValue(key=name, value=common.AnyValue(string_value=value))
                    for name, value in resource.items()
                ]
            ),
            scope_spans=[
                trace.ScopeSpans(scope=common.InstrumentationScope(name=SCOPE, version=version))
            ],
        )

    def __repr__(self) -> str:
        return f"<SpanEncoder known={len(self._known)}>"

    def batch(self) -> Batch:
        """An empty one."""
        request = self._request(resource_spans=[self._resource_spans])
        return Batch(self, request)

    def rejected(self, body: bytes) -> tuple[int, str]:
        """How many spans a collector's good answer says it has not taken, and why.

        Raises:
            ValueError: it is no `ExportTraceServiceResponse`.
        """
        try:
            answer = self._response.FromString(body)
        except Exception as error:
            raise ValueError(str(error)) from error
        partial = answer.partial_success
        return int(partial.rejected_spans), str(partial.error_message)

    def add(self, spans: Any, record: RequestRecord) -> None:
        """Add the span of a request, then those of its tries, to a message's repeated field."""
        self._of_request(spans.add(), record)
        for number, one in enumerate(record.trace.tries):
            self._of_try(spans.add(), record, number, one)

    def _of_request(self, span: Any, record: RequestRecord) -> None:
        trace, status = record.trace, record.status
        values: list[tuple[str, str | int | None]] = [
            ("hms.direction", "inbound" if record.inbound else "outbound"),
            ("hms.listener", record.listener),
            ("hms.route", record.route),
            ("hms.service", record.service),
            ("hms.cluster", record.cluster),
            ("hms.endpoint", record.endpoint),
            ("hms.flag", record.flag),
            ("hms.policy_version", record.policy_version),
            ("hms.caller", record.caller),
            ("hms.attempts", len(trace.tries)),
            ("client.address", record.client),
            ("url.scheme", record.scheme),
            ("http.response.status_code", status or None),
        ]
        values += _server(record.host)
        failed = status >= _SERVER_ERROR or (record.flag is not None and record.flag not in _FINE)
        if failed or not status:
            values.append(("error.type", record.flag or str(status or "no answer")))
            self._fail(span, record.detail)
        method = self._describe(span, record, values)
        span.span_id = bytes.fromhex(trace.span_id.decode())
        span.parent_span_id = bytes.fromhex(trace.parent_id.decode())
        span.flags = _SAMPLED_FLAG | _REMOTE
        span.name = method if record.route is None else f"{method} {record.route}"
        kinds = self._span
        span.kind = kinds.SPAN_KIND_SERVER if record.inbound else kinds.SPAN_KIND_CLIENT
        span.start_time_unix_nano = _nanoseconds(record.epoch, record.started)
        span.end_time_unix_nano = _nanoseconds(record.epoch, record.ended)
        _add(span, "url.path", record.path)
        _add(span, "hms.request_id", record.request_id)

    def _of_try(self, span: Any, record: RequestRecord, number: int, one: TracedTry) -> None:
        outcome = one.outcome or "cancelled"  # by the caller's leaving, or whatever else ended it
        code = int(outcome) if len(outcome) == _STATUS_DIGITS and outcome.isdigit() else None
        cluster = record.clusters.get(one.cluster)
        scheme = "https" if cluster is not None and cluster.tls is not None else "http"
        values: list[tuple[str, str | int | None]] = [
            ("hms.cluster", one.cluster),
            ("hms.endpoint", one.endpoint),
            ("hms.attempt", "hedge" if one.hedged else "retry" if number else "first"),
            ("http.request.resend_count", number or None),
            ("http.response.status_code", code),
            ("network.protocol.version", "1.1"),
        ]
        values += _server(one.endpoint)
        if code is None or code >= _CLIENT_ERROR:
            values.append(("error.type", outcome))
            self._fail(span, one.detail or None)
        method = self._describe(span, record, values)
        span.span_id = bytes.fromhex(one.span_id.decode())
        span.parent_span_id = bytes.fromhex(record.trace.span_id.decode())
        span.flags = _SAMPLED_FLAG | _LOCAL
        span.name = f"{method} {one.cluster}"
        span.kind = self._span.SPAN_KIND_CLIENT
        span.start_time_unix_nano = _nanoseconds(record.epoch, one.started)
        span.end_time_unix_nano = _nanoseconds(record.epoch, one.ended or record.ended)
        _add(span, "url.full", f"{scheme}://{one.endpoint}{record.path}")

    def _describe(
        self, span: Any, record: RequestRecord, values: list[tuple[str, str | int | None]]
    ) -> str:
        """Add what many spans have; what the method is called in a span's name."""
        span.trace_id = bytes.fromhex(record.trace.trace_id.decode())
        method = record.method
        if method in _METHODS:
            values.append(("http.request.method", method))
        else:
            values.append(("http.request.method", "_OTHER"))
            _add(span, "http.request.method_original", method)
            method = "HTTP"
        # Messages that are written one after the other are one (protobuf: "Merging").
        parts = [self._attribute(name, value) for name, value in values if value is not None]
        span.MergeFromString(b"".join(parts))
        return method

    def _attribute(self, name: str, value: str | int) -> bytes:
        """A span with this attribute alone, as bytes; made once for all that have it."""
        found = self._known.get((name, value))
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            span = self._span()
            _add(span, name, value)
            found = self._known[name, value] = span.SerializeToString()
        return found

    def _fail(self, span: Any, message: str | None) -> None:
        span.status.code = self._error
        if message:
            span.status.message = message


class Batch:
    """Spans that go out together.

    Args:
        encoder: which makes them.
        request: the `ExportTraceServiceRequest` that holds them.
    """

    def __init__(self, encoder: SpanEncoder, request: Any) -> None:
        self._encoder = encoder
        self._request = request
        self._spans: Any = request.resource_spans[0].scope_spans[0].spans

    def __len__(self) -> int:
        return len(self._spans)

    def __repr__(self) -> str:
        return f"<Batch of {len(self)} spans>"

    def add(self, record: RequestRecord) -> None:
        """Add the spans of a request."""
        self._encoder.add(self._spans, record)

    def encoded(self) -> bytes:
        """What is sent."""
        found: bytes = self._request.SerializeToString()
        return found


def _add(span: Any, name: str, value: str | int) -> None:
    pair = span.attributes.add()
    pair.key = name
    if isinstance(value, int):
        pair.value.int_value = value
    else:
        pair.value.string_value = value


def _nanoseconds(epoch: float, moment: float) -> int:
    """To the microsecond, which is as fine as a float of this size is."""
    return round((epoch + moment) * 1e6) * 1000


def _server(authority: str) -> list[tuple[str, str | int | None]]:
    """`host`, `host:port` or `[address]:port` as attributes; what is none of them is left as it is."""
    host, colon, port = authority.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or len(port) > 5:  # noqa: PLR2004 - 65535
        host, port = authority, ""
    if not host:
        return []
    found: list[tuple[str, str | int | None]] = [("server.address", host.strip("[]"))]
    if port:
        found.append(("server.port", int(port)))
    return found
