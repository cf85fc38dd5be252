"""Beside Envoy: what is tried again, how often, when it is given up, and what is said of it."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import pytest

from tests.integration.basics import until
from tests.integration.clients import Connection
from tests.integration.envoy_kit import Pair, pair
from tests.integration.servers import Upstream, echo, hang_up, refusing, reset_at_once, silent, when
from tests.integration.servers import status as says_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Behaviour

pytestmark = pytest.mark.envoy

RETRIES = {
    "connect": ["connect-failure"],
    "reset": ["reset"],
    "before": ["reset-before-request"],
    "gateway": ["gateway-error"],
    "5xx": ["5xx"],
    "4xx": ["retriable-4xx"],
    "codes": ["retriable-status-codes"],
    "some": ["connect-failure", "gateway-error"],
    "all": ["connect-failure", "reset", "5xx", "retriable-4xx", "retriable-status-codes"],
}
"""Routes by their path, and what each tries again: two more times."""
CODES = [429, 501]


def status(code: int) -> Behaviour:
    """A status, and no connection that is kept: the next case begins with a fresh one."""
    return says_status(code, "Connection: close")


OUTCOMES: dict[str, tuple[Behaviour, ...]] = {
    **{str(code): (status(code),) for code in (200, 404, 409, 429, 500, 501, 502, 503, 504)},
    "reset": (reset_at_once,),
    "hang-up": (hang_up,),
    "503 then 200": (status(503), status(200)),
    "reset then 200": (reset_at_once, status(200)),
    "409 then 503": (status(409), status(503)),
    "500 then 503": (status(500), status(503), status(200)),
}


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Upstream() as upstream, refusing() as dead:
        here, nobody = f"127.0.0.1:{upstream.port}", f"127.0.0.1:{dead.getsockname()[1]}"

        def route(prefix: str, cluster: str, **action: Any) -> dict[str, Any]:
            return {"match": {"prefix": prefix}, "action": {"cluster": cluster, **action}}

        def again(on: list[str], attempts: int = 2, **more: Any) -> dict[str, Any]:
            codes = {"status_codes": CODES} if "retriable-status-codes" in on else {}
            return {"attempts": attempts, "on": on, **codes, **more}

        routes = [
            *(route(f"/{name}", "here", retries=again(on)) for name, on in RETRIES.items()),
            *(route(f"/dead/{name}", "nobody", retries=again(on)) for name, on in RETRIES.items()),
            *(route(f"/times/{n}", "here", retries=again(["5xx"], n)) for n in (0, 1, 3, 5)),
            route("/short", "here", timeout="0.25s"),
            route("/short-again", "here", timeout="0.3s", retries=again(["5xx", "reset"], 5)),
            route("/try", "here", timeout="5s", retries=again(["5xx"], 2, per_try_timeout="0.15s")),
            route("/requests", "requests"),
            route("/pending", "pending"),
            route("/retries", "retries", retries=again(["5xx"], 1)),
            *(
                route(f"/out/{name}", f"out-{name}")
                for name in ("5xx", "gateway", "dead", "mixed", "back")
            ),
        ]

        def cluster(name: str, to: str = here, **more: Any) -> dict[str, Any]:
            return {"name": name, "endpoints": [to], "outlier_detection": False, **more}

        clusters = [
            cluster("here"),
            cluster("nobody", nobody),
            cluster("requests", circuit_breakers={"max_requests": 2}),
            cluster("pending", circuit_breakers={"max_connections": 1, "max_pending_requests": 1}),
            cluster("retries", circuit_breakers={"max_retries": 1}),
            cluster("out-5xx", outlier_detection=ejects(consecutive_5xx=3)),
            cluster("out-gateway", outlier_detection=ejects(consecutive_gateway_failure=2)),
            cluster("out-dead", nobody, outlier_detection=ejects(consecutive_gateway_failure=3)),
            cluster("out-mixed", outlier_detection=ejects(consecutive_5xx=3)),
            cluster(
                "out-back",
                outlier_detection=ejects(consecutive_5xx=2)
                # The time is longer than three requests take.
                | {"interval": "0.2s", "base_ejection_time": "1s"},
            ),
        ]
        listener = {"name": "l", "port": 0, "routes": routes}
        config = {"listeners": [listener], "clusters": clusters}
        yield from pair(tmp_path_factory.mktemp("envoy"), config, upstream)


def ejects(**on: int) -> dict[str, Any]:
    """Outlier detection for this alone."""
    never = 1_000_000
    return {
        "consecutive_5xx": never,
        "consecutive_gateway_failure": never,
        "base_ejection_time": "60s",
        **on,
    }


def upstream_of(proxies: Pair) -> Upstream:
    (upstream,) = proxies.upstreams
    return upstream


# -- retries ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("route", "outcome"), list(itertools.product(RETRIES, OUTCOMES)))
def test_both_try_again_as_often(proxies: Pair, route: str, outcome: str) -> None:
    found = []
    for port in proxies.ports:
        upstream_of(proxies).on(f"/{route}/x", *OUTCOMES[outcome])
        seen = proxies.ask(port, "GET", f"/{route}/x")
        found.append((seen.status, len(seen.took), "URX" in seen.flags))
    assert found[0] == found[1]


def test_the_table_is_not_all_the_same(proxies: Pair) -> None:
    """What the comparison above would not notice: that nothing is tried again anywhere."""
    for port in proxies.ports:
        calls = []
        for route, outcome in (("gateway", "503"), ("gateway", "500"), ("codes", "429")):
            upstream_of(proxies).on(f"/{route}/x", *OUTCOMES[outcome])
            calls.append(len(proxies.ask(port, "GET", f"/{route}/x").took))
        assert calls == [3, 1, 3]


@pytest.mark.parametrize("route", RETRIES)
def test_both_give_up_on_who_is_not_there(proxies: Pair, route: str) -> None:
    envoy, ours = proxies.both("GET", f"/dead/{route}/x")
    assert envoy.status == ours.status == 503
    assert "UF" in envoy.flags & ours.flags
    assert ("URX" in envoy.flags) is ("URX" in ours.flags)


@pytest.mark.parametrize("times", [0, 1, 3, 5])
def test_both_count_further_attempts(proxies: Pair, times: int) -> None:
    upstream_of(proxies).on(f"/times/{times}", status(503))
    for seen in proxies.both("GET", f"/times/{times}"):
        assert (seen.status, len(seen.took)) == (503, times + 1)


class Post(NamedTuple):
    """A POST's fate: how often Envoy sends it and how often we do, who never pay a claim twice."""

    outcome: str
    envoy: int
    ours: int


@pytest.mark.parametrize("post", [Post("503", 3, 1), Post("reset", 3, 1), Post("200", 1, 1)])
def test_a_post_is_repeated_by_envoy_alone(proxies: Pair, post: Post) -> None:
    """SEMANTICS, Retries, *ours*: what may have been executed is repeated only if it is idempotent."""
    for port, times in zip(proxies.ports, (post.envoy, post.ours), strict=True):
        upstream_of(proxies).on("/all/post", *OUTCOMES[post.outcome])
        assert len(proxies.ask(port, "POST", "/all/post", body=b"pay").took) == times
    for port in proxies.ports:
        upstream_of(proxies).on("/all/post", *OUTCOMES[post.outcome])
        fields = ("Idempotency-Key: 1",)
        seen = proxies.ask(port, "POST", "/all/post", *fields, body=b"pay")
        assert len(seen.took) == post.envoy


# -- time ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("behaviour", [silent, when(threading.Event())])
def test_a_timeout_is_the_end_at_both(proxies: Pair, behaviour: Behaviour) -> None:
    upstream_of(proxies).on("/short/x", behaviour)
    for seen in proxies.both("GET", "/short/x"):
        assert (seen.status, len(seen.took)) == (504, 1)
        assert "UT" in seen.flags


def test_a_timeout_counts_all_retries_at_both(proxies: Pair) -> None:
    upstream_of(proxies).on("/short-again/x", status(503), silent)
    for port in proxies.ports:
        upstream_of(proxies).on("/short-again/x", status(503), silent)
        seen = proxies.ask(port, "GET", "/short-again/x")
        assert (seen.status, len(seen.took)) == (504, 2), "and what ran out of time is not repeated"
        assert "UT" in seen.flags


@pytest.mark.parametrize(
    ("behaviours", "expected"),
    [((silent, echo), (200, 2)), ((silent,), (504, 3)), ((status(503), silent, echo), (200, 3))],
)
def test_one_try_has_a_time_of_its_own_at_both(
    proxies: Pair, behaviours: tuple[Behaviour, ...], expected: tuple[int, int]
) -> None:
    for port in proxies.ports:
        upstream_of(proxies).on("/try/x", *behaviours)
        seen = proxies.ask(port, "GET", "/try/x")
        assert (seen.status, len(seen.took)) == expected


# -- breakers --------------------------------------------------------------------------------------


class Held:
    """Requests that have reached the upstream and wait there."""

    def __init__(self, proxies: Pair, port: int, path: str) -> None:
        self._upstream = upstream_of(proxies)
        self._port = port
        self._path = path
        self._gate = threading.Event()
        self._connections: list[Connection] = []
        self._upstream.on(path, when(self._gate))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._gate.set()
        for connection in self._connections:
            connection.close()
        self._upstream.on(self._path, echo)

    def send(self, *fields: str) -> None:
        """One more, that may wait in the proxy."""
        connection = Connection(self._port)
        self._connections.append(connection)
        connection.request("GET", self._path, *fields)

    def hold(self) -> None:
        """One more, that waits in the upstream."""
        before = len(self._upstream.got(self._path))
        self.send()
        self._upstream.wait(
            lambda: len(self._upstream.got(self._path)) > before, "one more request"
        )

    def answers(self) -> list[int]:
        """Let them go; their statuses."""
        self._gate.set()
        return [connection.response().status for connection in self._connections]


def test_requests_past_the_limit_overflow_at_both(proxies: Pair) -> None:
    for port in proxies.ports:
        with Held(proxies, port, "/requests/x") as held:
            held.hold()
            held.hold()
            for _ in range(3):
                seen = proxies.ask(port, "GET", "/requests/y")
                assert (seen.status, seen.took) == (503, [])
                assert "UO" in seen.flags
            assert held.answers() == [200, 200]
        assert proxies.ask(port, "GET", "/requests/y").status == 200


def test_requests_past_those_that_wait_overflow_at_both(proxies: Pair) -> None:
    for port in proxies.ports:
        with Held(proxies, port, "/pending/x") as held:
            held.hold()
            held.send()  # waits for the one connection
            until(lambda: proxies.waiting(port, "pending") == 1, "request that waits")  # noqa: B023
            seen = proxies.ask(port, "GET", "/pending/y")
            assert (seen.status, seen.took) == (503, [])
            assert "UO" in seen.flags
            assert held.answers() == [200, 200]


def test_retries_past_the_limit_are_not_made_at_both(proxies: Pair) -> None:
    upstream = upstream_of(proxies)
    for port in proxies.ports:
        gate = threading.Event()
        path = upstream.on("/retries/held", status(503), when(gate))
        with Connection(port) as connection:
            before = len(upstream.got(path))
            connection.request("GET", path)
            upstream.wait(lambda: len(upstream.got(path)) == before + 2, "its retry")  # noqa: B023
            upstream.on("/retries/x", status(503), status(200))
            seen = proxies.ask(port, "GET", "/retries/x")
            assert (seen.status, len(seen.took)) == (503, 1)
            assert "URX" not in seen.flags
            gate.set()
            assert connection.response().status == 200
        upstream.on("/retries/x", status(503), status(200))
        assert proxies.ask(port, "GET", "/retries/x").status == 200


# -- ejection --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "behaviours", "statuses"),
    [
        ("5xx", (status(500),), [500, 500, 500, 503, 503]),
        ("gateway", (status(503),), [503, 503, 503, 503]),
        ("dead", (echo,), [503, 503, 503, 503]),
        (
            "mixed",
            (status(500), status(500), status(200), status(500), status(502), status(503)),
            [500, 500, 200, 500, 502, 503, 503],
        ),
    ],
)
def test_both_eject_after_as_many_failures(
    proxies: Pair, name: str, behaviours: tuple[Behaviour, ...], statuses: list[int]
) -> None:
    found = []
    for port in proxies.ports:
        upstream_of(proxies).on(f"/out/{name}", *behaviours)
        seen = [proxies.ask(port, "GET", f"/out/{name}") for _ in statuses]
        assert [one.status for one in seen] == statuses
        assert "UH" in seen[-1].flags
        found.append([(len(one.took), "UH" in one.flags) for one in seen])
    assert found[0] == found[1]


def test_both_take_an_endpoint_back(proxies: Pair) -> None:
    path = "/out/back"
    for port in proxies.ports:
        upstream_of(proxies).on(path, status(500))
        assert [proxies.ask(port, "GET", path).status for _ in range(3)] == [500, 500, 503]
        upstream_of(proxies).on(path, status(200))
        proxies.until(port, path, lambda seen: seen.status == 200, "it is back in use")
        assert proxies.ask(port, "GET", path).status == 200
