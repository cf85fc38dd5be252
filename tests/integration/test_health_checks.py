"""Active health checks on real sockets: over mutual TLS through a peer's sidecar, and over plain TCP."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from tests.fakes import pki
from tests.integration.basics import until
from tests.integration.clients import fetch
from tests.integration.conftest import outbound_config
from tests.integration.in_process import InProcess
from tests.integration.servers import Upstream, echo, refusing, silent, status

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.conftest import Pair

CHECK = "interval: 30ms, jitter: 0, timeout: 200ms"


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream
        assert not upstream.errors


def plain(*ports: int, check: str | None) -> str:
    endpoints = ", ".join(f"'127.0.0.1:{port}'" for port in ports)
    checked = "" if check is None else f", health_check: {{{check}, {CHECK}}}"
    return f"""
        listeners: [{{name: out, port: 0, routes: [{{action: {{cluster: a}}}}]}}]
        clusters: [{{name: a, endpoints: [{endpoints}]{checked}}}]
        """


def health(sidecar: InProcess, number: int = 0, cluster: str = "a") -> str:
    endpoint = list(sidecar.cluster(cluster).endpoints.values())[number]
    assert endpoint.health is not None
    return endpoint.health.state.value


def test_over_mutual_tls_as_the_caller_and_through_the_peers_sidecar(
    pair: Pair, app: Upstream, tmp_path: Path
) -> None:
    files = pki.write_secret(tmp_path, pki.svid("claims-svc"))
    check = f"health_check: {{path: /mtls-health, {CHECK}}}"
    text = dedent(outbound_config(0, pair.peers, files, check))
    app.requests.clear()
    with InProcess(text) as sidecar:
        until(lambda: health(sidecar, cluster="auth-svc") == "healthy", "a passed check")
        got = app.got("/mtls-health")[0]
        assert got.header("x-caller-service") == "spiffe://mpsa.mil/svc/claims-svc"
        assert got.header("user-agent") == "hms-health-check"
        assert fetch(sidecar.port, "GET", "/x").status == 200
        app.on("/mtls-health", status(500))
        until(lambda: health(sidecar, cluster="auth-svc") == "unhealthy", "failed checks")
        answer = fetch(sidecar.port, "GET", "/x")
        assert (answer.status, answer.flag) == (503, "UH")
        assert (
            "health checks in a row failed, the last: /mtls-health answered 500"
            in (answer.json["detail"])
        )
        app.on("/mtls-health", echo)
        until(lambda: health(sidecar, cluster="auth-svc") == "healthy", "passed checks")
        assert fetch(sidecar.port, "GET", "/x").status == 200


def test_a_peer_with_the_wrong_identity_is_unhealthy(pair: Pair, tmp_path: Path) -> None:
    files = pki.write_secret(tmp_path, pki.svid("claims-svc"))
    text = dedent(outbound_config(0, pair.peers, files, f"health_check: {{tcp: true, {CHECK}}}"))
    text = text.replace("{sds: certs}", "{sds: certs, peer: 'spiffe://mpsa.mil/svc/payments-svc'}")
    with InProcess(text) as sidecar:
        until(lambda: health(sidecar, cluster="auth-svc") == "unhealthy", "a failed check")
        endpoint = next(iter(sidecar.cluster("auth-svc").endpoints.values()))
        assert endpoint.health is not None
        assert "it is not the right peer" in (endpoint.health.cause or "")


@pytest.mark.parametrize("check", ["path: /health", "tcp: true"])
def test_a_dead_endpoint_gets_no_request_once_it_is_known(upstream: Upstream, check: str) -> None:
    with refusing() as dead:
        ports = dead.getsockname()[1], upstream.port
        with InProcess(plain(*ports, check=check)) as sidecar:
            until(
                lambda: (health(sidecar, 0), health(sidecar, 1)) == ("unhealthy", "healthy"), "it"
            )
            assert {fetch(sidecar.port, "GET", "/x").status for _ in range(10)} == {200}
            first = next(iter(sidecar.cluster("a").endpoints.values()))
            assert first.requests == 0


def test_an_endpoint_that_hangs_is_unhealthy_after_the_timeout(upstream: Upstream) -> None:
    upstream.on("/health", silent)
    with InProcess(plain(upstream.port, check="path: /health")) as sidecar:
        until(lambda: health(sidecar) == "unhealthy", "a check that timed out")
        upstream.on("/health", echo)
        until(lambda: health(sidecar) == "healthy", "passed checks")


def test_checks_end_with_their_configuration_and_leave_no_connection(upstream: Upstream) -> None:
    with InProcess(plain(upstream.port, check="path: /health")) as sidecar:
        until(lambda: health(sidecar) == "healthy", "a passed check")
        sidecar.apply(plain(upstream.port, check=None))
        sidecar.wait_quiet()
        upstream.wait(lambda: upstream.connections == 0, "no connection")
        seen = len(upstream.requests)
        assert fetch(sidecar.port, "GET", "/x").status == 200
        assert len(upstream.requests) == seen + 1
