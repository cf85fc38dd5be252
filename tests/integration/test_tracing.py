"""Spans of a running sidecar whose collector hangs, comes, is another, or goes; on real sockets."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

from tests.integration.basics import until
from tests.integration.clients import fetch
from tests.integration.in_process import InProcess
from tests.integration.otlp_kit import sampled, spans_at, wait_spans
from tests.integration.servers import Upstream, silent, status

if TYPE_CHECKING:
    from typing import Any

    from tests.integration.servers import Visit

TAKES = status(200, body=b"")


def config(app: Upstream, collector: Upstream, timeout: str = "10s") -> str:
    return f"""
        service: claims-svc
        listeners:
          - name: outbound
            port: 0
            routes: [{{match: {{prefix: /}}, action: {{cluster: app}}}}]
        clusters: [{{name: app, endpoints: ["127.0.0.1:{app.port}"]}}]
        tracing: {{otlp: "http://127.0.0.1:{collector.port}", sample: 1, timeout: {timeout}}}
    """


def told(sidecar: InProcess) -> dict[str, Any]:
    async def status() -> dict[str, Any]:
        found: dict[str, Any] = sidecar.sidecar.status()["tracing"]
        return found

    return sidecar._thread.run(status())


def test_a_collector_that_hangs_delays_no_request_and_no_stop() -> None:
    let_go = threading.Event()

    async def hang(visit: Visit) -> bool:
        """Takes the batch, and says nothing for as long as it is waited for."""
        await visit.until_gone()
        let_go.set()
        return False

    with Upstream() as app, Upstream(hang) as hanging:
        sidecar = InProcess(config(app, hanging, timeout="1h"))
        for _ in range(50):
            assert fetch(sidecar.port, "GET", "/").status == 200
        hanging.wait(lambda: hanging.requests, "a batch")
        assert fetch(sidecar.port, "GET", "/").status == 200
        assert not let_go.is_set(), "the request has waited for the collector"
        assert told(sidecar)["queued"] >= 50
        sidecar.close()  # the hour is not over, and nothing has answered
        until(let_go.is_set, "the end of the wait")


def test_spans_follow_the_configuration_and_the_last_ones_go_out_at_the_end() -> None:
    with Upstream() as app, Upstream(TAKES) as first, Upstream(TAKES) as second:
        sidecar = InProcess(config(app, first))
        with sidecar:
            trace, _, header = sampled()
            assert fetch(sidecar.port, "GET", "/", header).status == 200
            wait_spans(first, trace, 2)
            sidecar.apply(config(app, second))
            trace, _, header = sampled()
            assert fetch(sidecar.port, "GET", "/", header).status == 200
            wait_spans(second, trace, 2)
            assert not spans_at(first, trace)
            second.on("/v1/traces", status(503), TAKES)
            trace, _, header = sampled()
            assert fetch(sidecar.port, "GET", "/", header).status == 200
            wait_spans(second, trace, 4)  # those that were refused, and again
            last, _, header = sampled()
            assert fetch(sidecar.port, "GET", "/", header).status == 200
        assert len(spans_at(second, last)) == 2


async def test_whoever_leaves_is_shown_and_so_is_the_try_he_leaves_behind() -> None:
    with Upstream(silent) as app, Upstream(TAKES) as collector:
        with InProcess(config(app, collector)) as sidecar:
            trace, _, header = sampled()
            reader, writer = await asyncio.open_connection("127.0.0.1", sidecar.port)
            writer.write(f"GET /left HTTP/1.1\r\nHost: a\r\n{header}\r\n\r\n".encode())
            app.wait(lambda: app.got("/left"), "the request")
            writer.close()
            await writer.wait_closed()
            request, attempt = wait_spans(collector, trace, 2)
            assert await reader.read() == b""
        assert request.attributes["hms.flag"] == "DC"
        assert attempt.parent == request.id
        assert attempt.attributes["error.type"] == "cancelled"
        assert app.one("/left").header("traceparent") == f"00-{trace}-{attempt.id}-01"
