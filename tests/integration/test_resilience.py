"""Failures with real sockets: breakers that open and close, clients that leave, full queues."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.integration.basics import until
from tests.integration.clients import Connection, fetch
from tests.integration.in_process import InProcess
from tests.integration.servers import (
    Unreachable,
    Upstream,
    Visit,
    cut,
    echo,
    hang_up,
    refusing,
    reset_at_once,
    silent,
    status,
    trickle,
    when,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.clients import Response
    from tests.integration.servers import Behaviour


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream() as upstream:
        yield upstream
        assert not upstream.errors


def mesh(*ports: int, action: str = "", cluster: str = "outlier_detection: false") -> str:
    """One route to one cluster with endpoints on `ports`."""
    endpoints = ", ".join(f"'127.0.0.1:{port}'" for port in ports)
    return f"""
        listeners:
          - name: out
            port: 0
            routes: [{{match: {{prefix: /}}, action: {{cluster: a, {action}}}}}]
        clusters:
          - {{name: a, endpoints: [{endpoints}], {cluster}}}
        """


OUTLIERS = (
    "outlier_detection: {consecutive_5xx: 3, consecutive_gateway_failure: 3, "
    "base_ejection_time: 300ms, interval: 30s}"
)


# -- outlier detection -----------------------------------------------------------------------------


def assert_open(answer: Response) -> None:
    """The endpoint's breaker is open: 503 UH, with the cause, and when to come again."""
    assert (answer.status, answer.flag) == (503, "UH")
    assert int(answer.header("retry-after") or 0) >= 1


@pytest.mark.parametrize(
    "behave",
    [status(500), status(503), reset_at_once, hang_up, cut(b"220 smtp\r\n"), silent],
    ids=["500", "503", "reset", "hang up", "garbage", "silent"],
)
def test_an_endpoint_in_trouble_is_ejected_probed_and_taken_back(
    upstream: Upstream, behave: Behaviour
) -> None:
    upstream.default = behave
    with InProcess(mesh(upstream.port, action="timeout: 100ms", cluster=OUTLIERS)) as sidecar:
        for _ in range(3):
            assert fetch(sidecar.port, "GET", "/x").status in {500, 502, 503, 504}
        calls = len(upstream.requests)
        assert calls == 3
        answer = fetch(sidecar.port, "GET", "/x")
        assert_open(answer)
        assert "in a row" in answer.json["detail"]
        assert len(upstream.requests) == calls, "an open breaker calls nobody"
        endpoint = next(iter(sidecar.cluster("a").endpoints.values()))
        # Half open: one call is let through; it fails, and opens it for longer.
        until(lambda: endpoint.state.value == "half-open", "half open")
        assert fetch(sidecar.port, "GET", "/x").flag != "UH"
        assert len(upstream.requests) == calls + 1
        assert_open(fetch(sidecar.port, "GET", "/x"))
        assert endpoint.ejections == 2
        # And again; now it succeeds.
        upstream.default = echo
        until(lambda: endpoint.state.value == "half-open", "half open again")
        assert fetch(sidecar.port, "GET", "/x").status == 200
        assert endpoint.state.value == "closed"
        assert fetch(sidecar.port, "GET", "/x").status == 200
        sidecar.wait_quiet()


def test_only_one_request_probes(upstream: Upstream) -> None:
    upstream.default = status(503)
    gate = threading.Event()
    with InProcess(mesh(upstream.port, cluster=OUTLIERS)) as sidecar:
        for _ in range(3):
            fetch(sidecar.port, "GET", "/x")
        endpoint = next(iter(sidecar.cluster("a").endpoints.values()))
        until(lambda: endpoint.state.value == "half-open", "half open")
        upstream.requests.clear()
        upstream.default = when(gate)
        with Connection(sidecar.port) as probe:
            probe.request("GET", "/probe")
            upstream.wait(lambda: upstream.requests, "the probe")
            for _ in range(5):
                assert_open(fetch(sidecar.port, "GET", "/x"))
            gate.set()
            assert probe.response().status == 200
        assert [request.path for request in upstream.requests] == ["/probe"]
        assert fetch(sidecar.port, "GET", "/x").status == 200


def test_a_client_that_leaves_its_probe_lets_the_next_one_try(upstream: Upstream) -> None:
    upstream.default = status(503)
    with InProcess(mesh(upstream.port, cluster=OUTLIERS)) as sidecar:
        for _ in range(3):
            fetch(sidecar.port, "GET", "/x")
        endpoint = next(iter(sidecar.cluster("a").endpoints.values()))
        until(lambda: endpoint.state.value == "half-open", "half open")
        upstream.default = silent
        upstream.requests.clear()
        with Connection(sidecar.port) as probe:
            probe.request("GET", "/probe")
            upstream.wait(lambda: upstream.requests, "the probe")
        sidecar.wait_quiet()
        upstream.default = echo
        assert fetch(sidecar.port, "GET", "/x").status == 200


def test_a_dead_replica_is_detoured_around_and_then_left_alone(upstream: Upstream) -> None:
    with refusing() as dead:
        text = mesh(dead.getsockname()[1], upstream.port, action="retries: 2", cluster=OUTLIERS)
        with InProcess(text) as sidecar:
            for n in range(30):
                method = "POST" if n % 2 else "GET"
                assert fetch(sidecar.port, method, "/x").status == 200
            states = [e.state.value for e in sidecar.cluster("a").endpoints.values()]
            assert states == ["open", "closed"]
            first = next(iter(sidecar.cluster("a").endpoints.values()))
            assert first.requests <= 6
            sidecar.wait_quiet()


def test_all_replicas_dead_is_503_with_flag_reason_and_retry_after() -> None:
    with refusing() as one, refusing() as two:
        text = mesh(
            one.getsockname()[1], two.getsockname()[1], action="retries: 2", cluster=OUTLIERS
        )
        with InProcess(text) as sidecar:
            flags = [fetch(sidecar.port, "GET", "/x").flag for _ in range(4)]
            assert flags[0] == "UF"
            answer = fetch(sidecar.port, "GET", "/x")
            assert_open(answer)
            for server in (one, two):
                assert f"127.0.0.1:{server.getsockname()[1]} is open" in answer.json["detail"]


# -- who leaves ------------------------------------------------------------------------------------


@pytest.mark.parametrize("closing", ["fin", "reset"])
@pytest.mark.parametrize("moment", ["head", "body", "upload", "trickle"])
def test_a_client_that_leaves_ends_the_upstream_call(
    upstream: Upstream, moment: str, closing: str
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n"

    async def endless(visit: Visit) -> bool:
        await visit.send(head)
        while True:
            await visit.send(bytes(100_000))

    upstream.default = {
        "head": silent,
        "body": endless,
        "upload": echo,
        "trickle": trickle(head + bytes(1000), 0.01, 100),
    }[moment]
    with InProcess(mesh(upstream.port)) as sidecar:
        with Connection(sidecar.port) as connection:
            if moment == "upload":
                connection.request("POST", "/x", "Content-Length: 50000000")
                connection.send(bytes(3_000_000))
            else:
                connection.request("GET", "/x")
            upstream.wait(lambda: upstream.requests, "the request")
            if moment in {"body", "trickle"}:
                assert connection.head().status == 200
            if closing == "reset":
                linger = b"\x01\0\0\0\0\0\0\0"
                connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        upstream.wait(lambda: upstream.connections == 0, "the end of the upstream connection", 5)
        sidecar.wait_quiet()
        assert sidecar.idle_connections() == 0
        assert not any(request.whole for request in upstream.requests if moment == "upload")


def test_a_client_that_leaves_while_it_waits_for_a_connection(upstream: Upstream) -> None:
    gate = threading.Event()
    upstream.default = when(gate)
    text = mesh(
        upstream.port,
        cluster="outlier_detection: false, circuit_breakers: {max_connections: 1}",
    )
    with InProcess(text) as sidecar:
        breaker = sidecar.cluster("a").breaker
        with Connection(sidecar.port) as first:
            first.request("GET", "/first")
            upstream.wait(lambda: upstream.requests, "the first request")
            with Connection(sidecar.port) as second:
                second.request("GET", "/second")
                until(lambda: breaker.pending == 1, "a request that waits")
            until(lambda: breaker.pending == 0, "nobody waits")
            gate.set()
            assert first.response().status == 200
        assert fetch(sidecar.port, "GET", "/third").status == 200
        assert [request.path for request in upstream.requests] == ["/first", "/third"]
        sidecar.wait_quiet()


def test_a_client_that_leaves_while_the_upstream_is_being_connected() -> None:
    hole = Unreachable()
    try:
        with InProcess(mesh(hole.port)) as sidecar:
            endpoint = next(iter(sidecar.cluster("a").endpoints.values()))
            with Connection(sidecar.port) as connection:
                connection.request("GET", "/x")
                until(lambda: endpoint.pool.connecting == 1, "a connection attempt")
            sidecar.wait_quiet(3)
    finally:
        hole.close()


def test_a_client_that_leaves_while_a_retry_waits(upstream: Upstream) -> None:
    upstream.default = status(503, "Retry-After: 5")
    text = mesh(upstream.port, action="retries: 2, timeout: 30s")
    with InProcess(text) as sidecar:
        with Connection(sidecar.port) as connection:
            connection.request("GET", "/x")
            upstream.wait(lambda: upstream.requests, "the first try")
            until(lambda: sidecar.cluster("a").breaker.retries == 1, "a retry that waits")
        sidecar.wait_quiet(3)
        assert len(upstream.requests) == 1


# -- backpressure ----------------------------------------------------------------------------------


FRAMINGS = ["Content-Length: 200000000", "Transfer-Encoding: chunked"]
PIECE = {FRAMINGS[0]: bytes(100_000), FRAMINGS[1]: b"186a0\r\n%b\r\n" % bytes(100_000)}


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_client_that_does_not_read_holds_the_upstream_back(
    upstream: Upstream, framing: str
) -> None:
    sent = 0

    async def flood(visit: Visit) -> bool:
        nonlocal sent
        await visit.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing.encode())
        while sent < 200_000_000:
            await visit.send(PIECE[framing])
            sent += 100_000
        return False

    upstream.default = flood
    with InProcess(mesh(upstream.port)) as sidecar:
        with Connection(sidecar.port) as connection:
            connection.request("GET", "/x")
            assert connection.head().status == 200
            before = -1
            while sent != before:  # until it stands still for a while
                before = sent
                threading.Event().wait(0.3)
            assert sent < 40_000_000  # kernel buffers, and a little of ours
            assert len(connection.read_exactly(20_000_000)) == 20_000_000
        sidecar.wait_quiet()


@pytest.mark.parametrize("framing", FRAMINGS)
def test_an_upstream_that_does_not_read_holds_the_client_back(
    upstream: Upstream, framing: str
) -> None:
    async def deaf(visit: Visit) -> bool:
        transport = visit.writer.transport
        assert isinstance(transport, asyncio.Transport)
        transport.pause_reading()
        await asyncio.get_running_loop().run_in_executor(None, given_up.wait, 20)
        return False

    given_up = threading.Event()
    upstream.default = deaf
    with InProcess(mesh(upstream.port, action="timeout: 1s")) as sidecar:
        with Connection(sidecar.port, timeout=0.5) as connection:
            connection.request("POST", "/x", framing)
            sent = 0
            with contextlib.suppress(TimeoutError, ConnectionError):
                while sent < 200_000_000:
                    connection.sock.sendall(PIECE[framing])
                    sent += 100_000
            assert sent < 40_000_000
            connection.sock.settimeout(10)
            answer = connection.response()
            assert (answer.status, answer.flag) == (504, "UT")
        given_up.set()
        sidecar.wait_quiet()


# -- at once ---------------------------------------------------------------------------------------


def test_a_flood_past_the_breaker_is_refused_at_once_and_nothing_leaks(upstream: Upstream) -> None:
    upstream.default = trickle(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 0.01, 20)
    text = mesh(
        upstream.port,
        cluster="outlier_detection: false, "
        "circuit_breakers: {max_connections: 4, max_pending_requests: 4, max_requests: 8}",
    )
    with InProcess(text) as sidecar:
        port = sidecar.port
        with concurrent.futures.ThreadPoolExecutor(40) as pool:
            answers = list(pool.map(lambda _: fetch(port, "GET", "/x"), range(200)))
        kinds = {(answer.status, answer.flag) for answer in answers}
        assert kinds == {(200, None), (503, "UO")}
        assert upstream.opened <= 8
        sidecar.wait_quiet()
        assert sidecar.cluster("a").breaker.overflows > 0
        assert fetch(port, "GET", "/x").status == 200


def test_a_request_in_flight_finishes_on_its_old_configuration(
    upstream: Upstream,
) -> None:
    gate = threading.Event()
    upstream.on("/slow", when(gate))
    with refusing() as dead, InProcess(mesh(upstream.port)) as sidecar:
        with Connection(sidecar.port) as connection:
            connection.request("GET", "/slow")
            upstream.wait(lambda: upstream.requests, "the request")
            sidecar.apply(mesh(dead.getsockname()[1]))
            assert fetch(sidecar.port, "GET", "/x").flag == "UF"
            gate.set()
            assert connection.response().status == 200
            assert connection.exchange("GET", "/x").flag == "UF"
        sidecar.wait_quiet()
        assert sidecar.idle_connections() == 0
