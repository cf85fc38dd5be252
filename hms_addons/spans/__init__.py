"""Spans on their way to an OpenTelemetry collector; nothing here is imported unless `tracing:` is configured.

- **RequestRecord** (`record`): what is kept of a request that was traced; made once it has ended.
- **SpanEncoder** (`otlp`): records as OTLP's protobuf: a span for the request, one for each try below it.
- **Collector** (`collector`): one POST of a batch over HTTP, and what its answer means.
- **SpanExporter** (`exporter`): the bounded queue of records, and the task that sends it in batches.

    hms_complete ──▶ RequestRecord ──offer──▶ SpanExporter ──encode──▶ Collector ──POST──▶ /v1/traces
                                                 │ full, refused, given up: dropped, and counted
"""
