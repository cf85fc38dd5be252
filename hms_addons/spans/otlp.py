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
    from collections.abc import Iterable, Mapping

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
        self._status = trace.Status
        self._key_value = common.KeyValue
        self._any_value = common.AnyValue
        self._response = service.ExportTraceServiceResponse
        self._known: dict[tuple[str, str | int], Any] = {}
        attributes = [self._attribute(name, value) for name, value in resource.items()]
        self._scope = trace.ScopeSpans
        self._instrumentation = common.InstrumentationScope(name=SCOPE, version=version)
        self._resource_spans = trace.ResourceSpans
        self._resource = resources.Resource(attributes=attributes)
        self._request = service.ExportTraceServiceRequest

    def __repr__(self) -> str:
        return f"<SpanEncoder known={len(self._known)}>"

    def request(self, spans: Iterable[Any]) -> bytes:
        """An `ExportTraceServiceRequest`."""
        scope = self._scope(scope=self._instrumentation, spans=spans)
        whole = self._resource_spans(resource=self._resource, scope_spans=[scope])
        request = self._request(resource_spans=[whole])
        found: bytes = request.SerializeToString()
        return found

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

    def spans(self, record: RequestRecord) -> list[Any]:
        """The span of a request, then those of its tries."""
        found = [self._of_request(record)]
        found += [
            self._of_try(record, number, one) for number, one in enumerate(record.trace.tries)
        ]
        return found

    def _of_request(self, record: RequestRecord) -> Any:
        trace = record.trace
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
            ("http.response.status_code", record.status or None),
        ]
        values += _server(record.host)
        status = record.status
        failed = status >= _SERVER_ERROR or (record.flag is not None and record.flag not in _FINE)
        failed = failed or not status
        if failed:
            values.append(("error.type", record.flag or str(status or "no answer")))
        method, attributes = self._method(record)
        attributes += [self._attribute(name, value) for name, value in values if value is not None]
        attributes.append(self._new("url.path", record.path))
        attributes.append(self._new("hms.request_id", record.request_id))
        span = self._span
        return span(
            trace_id=bytes.fromhex(trace.trace_id.decode()),
            span_id=bytes.fromhex(trace.span_id.decode()),
            parent_span_id=bytes.fromhex(trace.parent_id.decode()),
            flags=_SAMPLED_FLAG | _REMOTE,
            name=method if record.route is None else f"{method} {record.route}",
            kind=span.SPAN_KIND_SERVER if record.inbound else span.SPAN_KIND_CLIENT,
            start_time_unix_nano=_nanoseconds(record.epoch, record.started),
            end_time_unix_nano=_nanoseconds(record.epoch, record.ended),
            attributes=attributes,
            status=self._error(record.detail) if failed else None,
        )

    def _of_try(self, record: RequestRecord, number: int, one: TracedTry) -> Any:
        outcome = one.outcome or "cancelled"  # by the caller's leaving, or whatever else ended it
        code = int(outcome) if len(outcome) == _STATUS_DIGITS and outcome.isdigit() else None
        cluster = record.clusters.get(one.cluster)
        scheme = "https" if cluster is not None and cluster.tls is not None else "http"
        kind = "hedge" if one.hedged else "retry" if number else "first"
        values: list[tuple[str, str | int | None]] = [
            ("hms.cluster", one.cluster),
            ("hms.endpoint", one.endpoint),
            ("hms.attempt", kind),
            ("http.request.resend_count", number or None),
            ("http.response.status_code", code),
            ("network.protocol.version", "1.1"),
        ]
        values += _server(one.endpoint)
        failed = code is None or code >= _CLIENT_ERROR
        if failed:
            values.append(("error.type", outcome))
        method, attributes = self._method(record)
        attributes += [self._attribute(name, value) for name, value in values if value is not None]
        attributes.append(self._new("url.full", f"{scheme}://{one.endpoint}{record.path}"))
        trace, span = record.trace, self._span
        return span(
            trace_id=bytes.fromhex(trace.trace_id.decode()),
            span_id=bytes.fromhex(one.span_id.decode()),
            parent_span_id=bytes.fromhex(trace.span_id.decode()),
            flags=_SAMPLED_FLAG | _LOCAL,
            name=f"{method} {one.cluster}",
            kind=span.SPAN_KIND_CLIENT,
            start_time_unix_nano=_nanoseconds(record.epoch, one.started),
            end_time_unix_nano=_nanoseconds(record.epoch, one.ended or record.ended),
            attributes=attributes,
            status=self._error(one.detail or None) if failed else None,
        )

    def _method(self, record: RequestRecord) -> tuple[str, list[Any]]:
        """What it is called in a span's name, and its attributes."""
        method = record.method
        if method in _METHODS:
            return method, [self._attribute("http.request.method", method)]
        other = self._attribute("http.request.method", "_OTHER")
        return "HTTP", [other, self._new("http.request.method_original", method)]

    def _attribute(self, name: str, value: str | int) -> Any:
        """One that is the same in many spans; made once, as making one takes longer than copying it."""
        found = self._known.get((name, value))
        if found is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            found = self._known[name, value] = self._new(name, value)
        return found

    def _new(self, name: str, value: str | int) -> Any:
        if isinstance(value, int):
            return self._key_value(key=name, value=self._any_value(int_value=value))
        return self._key_value(key=name, value=self._any_value(string_value=value))

    def _error(self, message: str | None) -> Any:
        return self._status(code=self._status.STATUS_CODE_ERROR, message=message or "")


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
