"""Limits, to the exact number, with real processes: the upstream holds requests until it is told."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.basics import Closing, free_port, until
from tests.integration.clients import fetch
from tests.integration.processes import hms_sidecar, mitmdump_reverse
from tests.integration.servers import Upstream, status, when

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.clients import Response

CONFIG = """
listeners:
  - name: {name}
    port: {port}
    {direction}
    routes:
      - {{match: {{prefix: /requests}}, action: {{cluster: requests}}}}
      - {{match: {{prefix: /pending}}, action: {{cluster: pending}}}}
      - {{match: {{prefix: /retries}}, action: {{cluster: retries, retries: 1}}}}
      - {{match: {{prefix: /adaptive}}, action: {{cluster: adaptive}}}}
      - name: narrow
        match: {{prefix: /route}}
        action: {{cluster: wide, circuit_breakers: {{max_requests: 3}}}}
      - name: queue
        match: {{prefix: /queue}}
        action: {{cluster: wide, circuit_breakers: {{max_connections: 2, max_pending_requests: 3}}}}
clusters:
  - {{name: requests, {to}, circuit_breakers: {{max_requests: 4}}}}
  - {{name: pending, {to}, circuit_breakers: {{max_connections: 3, max_pending_requests: 2}}}}
  - {{name: retries, {to}, circuit_breakers: {{max_retries: 2}}}}
  - {{name: adaptive, {to}, circuit_breakers: {{adaptive: {{min_limit: 4}}}}}}
  - {{name: wide, {to}}}
"""


class Limited:
    """A sidecar with limits before `upstream`, by its kind of lane."""

    def __init__(self, port: int, admin: int | None, upstream: Upstream) -> None:
        self.port = port
        self.admin = admin
        self.upstream = upstream

    def clusters(self) -> dict[str, Any]:
        """What `/clusters` says, by name."""
        assert self.admin is not None
        answer = fetch(self.admin, "GET", "/clusters?format=json", host=f"127.0.0.1:{self.admin}")
        return {cluster["name"]: cluster for cluster in answer.json}


@pytest.fixture(scope="module", params=["fast", "native"])
def limited(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Limited]:
    port, admin = free_port(), free_port()
    config: Path = tmp_path_factory.mktemp("limits") / "mesh.yaml"
    with Upstream() as upstream:
        to = f"outlier_detection: false, endpoints: ['127.0.0.1:{upstream.port}']"
        direction = "direction: outbound"
        config.write_text(CONFIG.format(name="out", port=port, direction=direction, to=to))
        if request.param == "fast":
            program = hms_sidecar("--config", config, "--admin", f"127.0.0.1:{admin}")
        else:
            program = mitmdump_reverse(upstream.port, port, config=config)
        with program:
            if request.param == "native":
                program.wait_for("is in force")
            program.wait_listening(port)
            yield Limited(port, admin if request.param == "fast" else None, upstream)
            assert program.stop() == 0
            assert "Traceback" not in program.output
        assert not upstream.errors


class Burst(Closing):
    """Requests that are all under way at the same time, each on a connection of its own."""

    def __init__(self, limited: Limited, path: str, count: int) -> None:
        self.answers: list[Response] = []
        self._threads = [
            threading.Thread(target=self._one, args=(limited.port, path)) for _ in range(count)
        ]
        for thread in self._threads:
            thread.start()

    def _one(self, port: int, path: str) -> None:
        self.answers.append(fetch(port, "GET", path))

    def close(self) -> None:
        """Wait until each has its answer."""
        for thread in self._threads:
            thread.join(30)

    @property
    def refused(self) -> list[Response]:
        """Those that the mesh refused for want of room."""
        return [answer for answer in self.answers if answer.flag == "UO"]


@pytest.mark.parametrize(
    ("path", "sent", "carried", "waiting", "says"),
    [
        ("/requests", 9, 4, 0, "cluster requests: max_requests 4 is reached"),
        ("/pending", 9, 3, 2, "cluster pending: max_pending_requests 2 is reached"),
        ("/adaptive", 9, 4, 0, "cluster adaptive: its adaptive limit, which is 4 now, is reached"),
        ("/route", 7, 3, 0, "route narrow: max_requests 3 is reached"),
        ("/queue", 8, 2, 3, "route queue: max_pending_requests 3 is reached"),
    ],
)
def test_exactly_what_is_more_than_the_limit_is_refused_at_once(
    limited: Limited, path: str, sent: int, carried: int, waiting: int, says: str
) -> None:
    upstream, gate = limited.upstream, threading.Event()
    upstream.requests.clear()
    upstream.on(path, when(gate))
    refused = sent - carried - waiting
    with Burst(limited, path, sent) as burst:
        try:
            until(lambda: len(burst.answers) >= refused, "the refusals")
            upstream.wait(lambda: len(upstream.got(path)) >= carried, "what is carried")
            assert len(burst.refused) == len(burst.answers) == refused, "while the others are held"
            assert len(upstream.got(path)) == carried
            if limited.admin is not None and path in {"/requests", "/pending"}:
                shown = limited.clusters()[path[1:]]["circuit_breakers"]
                assert shown["pending_requests"]["in_use"] == waiting
                assert shown["connections"]["in_use"] == carried
                assert shown["requests"]["in_use"] == carried + waiting
                assert shown["overflows_total"] == refused
        finally:
            gate.set()
    assert len(burst.refused) == refused
    assert sum(answer.status == 200 for answer in burst.answers) == carried + waiting
    assert all(answer.status == 503 for answer in burst.refused)
    assert all(says in answer.json["detail"] for answer in burst.refused)
    assert len(upstream.got(path)) == carried + waiting


def test_max_retries_lets_exactly_so_many_retry(limited: Limited) -> None:
    """Whoever finds the budget spent gets the answer that it has, and the overflow is counted."""
    upstream, first, again = limited.upstream, threading.Event(), threading.Event()
    upstream.requests.clear()
    upstream.on("/retries", *[when(first, status(503))] * 5, when(again))
    with Burst(limited, "/retries", 5) as burst:
        try:
            upstream.wait(lambda: len(upstream.got("/retries")) == 5, "the first tries")
            first.set()
            until(lambda: len(burst.answers) == 3, "who may not retry")
            upstream.wait(lambda: len(upstream.got("/retries")) == 7, "the retries")
            if limited.admin is not None:
                shown = limited.clusters()["retries"]["circuit_breakers"]
                assert shown["retries"] == {"in_use": 2, "max": 2}
                assert shown["overflows"]["max_retries"] == 3
        finally:
            first.set()
            again.set()
    assert sorted(answer.status for answer in burst.answers) == [200, 200, 503, 503, 503]
    assert [answer.flag for answer in burst.answers] == [None] * 5, "the upstream's own answers"
    assert len(upstream.got("/retries")) == 7


def test_breakers_of_routes_are_shown_with_their_cluster(limited: Limited) -> None:
    if limited.admin is None:
        pytest.skip("the same state; shown on the other lane's admin port")
    routes = {route["route"]: route for route in limited.clusters()["wide"]["routes"]}
    assert routes["narrow"]["circuit_breakers"]["requests"]["max"] == 3
    assert routes["queue"]["circuit_breakers"]["connections"] == {"in_use": 0, "max": 2}
    assert limited.clusters()["requests"]["routes"] == []
