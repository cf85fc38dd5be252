"""Injected delays on real sockets: who leaves is let go, and the sidecar is not exhausted."""

from __future__ import annotations

from tests.integration.basics import until
from tests.integration.clients import Connection
from tests.integration.in_process import InProcess
from tests.integration.servers import Upstream

TEXT = """
    listeners:
      - name: out
        port: 0
        routes:
          - action: {{cluster: app, fault: {{delay: 1h, max_active: 2, when: {{header: {{X-Late: "1"}}}}}}}}
    clusters: [{{name: app, endpoints: ["127.0.0.1:{port}"]}}]
    """


def test_a_client_that_leaves_ends_its_delay_and_the_next_past_max_active_has_none() -> None:
    with Upstream() as app, InProcess(TEXT.format(port=app.port)) as sidecar:
        faults = sidecar.sidecar.plugins.get("fault_injection")
        with Connection(sidecar.port) as first, Connection(sidecar.port) as second:
            first.request("GET", "/", "X-Late: 1")
            second.request("GET", "/", "X-Late: 1")
            until(lambda: faults.active == 2, "two delayed requests")
            with Connection(sidecar.port) as third:
                assert third.exchange("GET", "/", "X-Late: 1").status == 200
                assert third.exchange("GET", "/").status == 200
        until(lambda: faults.active == 0, "the end of both delays")
        sidecar.wait_quiet()
        assert faults.status() == {"active": 0, "delayed": 2, "aborted": 0, "overflowed": 1}
        assert len(app.requests) == 2
