"""Beside Envoy: the same routes, the same requests, and where the two differ, why."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.clients import Connection, fetch
from tests.integration.envoy_kit import ENVOYS_OWN, pair
from tests.integration.servers import Upstream, hang_up, reset_at_once, says, silent, status, when

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Behaviour, Received

pytestmark = pytest.mark.envoy

RETRY_ON = ["connect-failure", "refused-stream", "reset", "gateway-error"]


def route(cluster: str, match: dict[str, Any], timeout: str = "5s", retries: int = 0) -> Any:
    action = {"cluster": cluster, "timeout": timeout}
    return {
        "match": match,
        "action": action | {"retries": {"attempts": retries, "on": RETRY_ON}},
    }


ROUTES = [
    route("a", {"path": "/exact"}),
    route("b", {"regex": "/n/[0-9]+"}),
    route("b", {"prefix": "/m", "methods": ["PUT"]}),
    route("b", {"prefix": "/m", "headers": {"x-canary": {"exact": "yes"}}}),
    route("b", {"prefix": "/m", "headers": {"x-any": {"present": True}}}),
    route("b", {"prefix": "/m", "query": {"v": {"exact": "2"}}}),
    route("a", {"prefix": "/m"}),
    route("a", {"prefix": "/try"}, retries=2),
    route("a", {"prefix": "/short"}, timeout="0.3s"),
    route("dead", {"prefix": "/dead"}),
    route("tight", {"prefix": "/tight"}),
    route("b", {"prefix": "/m/never"}),
]


class Beside(NamedTuple):
    """Both proxies with the same routes before the same upstreams."""

    envoy: int
    ours: int
    a: Upstream
    b: Upstream

    def took(self) -> list[tuple[str, Received]]:
        """What has arrived, and where; forgets it."""
        found = [(name, r) for name, up in (("a", self.a), ("b", self.b)) for r in up.requests]
        self.a.requests.clear()
        self.b.requests.clear()
        return found


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beside]:
    with Upstream() as a, Upstream() as b:
        clusters: list[dict[str, Any]] = [
            {"name": name, "endpoints": [f"127.0.0.1:{port}"], "outlier_detection": False}
            for name, port in {"a": a.port, "b": b.port, "dead": 1, "tight": a.port}.items()
        ]
        clusters[-1]["circuit_breakers"] = {"max_requests": 1}
        listener = {"name": "l", "port": 0, "routes": ROUTES}
        config = {"listeners": [listener], "clusters": clusters}
        for proxies in pair(tmp_path_factory.mktemp("envoy"), config, a, b):
            yield Beside(proxies.envoy, proxies.ours, a, b)


# -- routing ---------------------------------------------------------------------------------------

REQUESTS = [
    ("GET", "/exact", ()),
    ("GET", "/exact/", ()),
    ("GET", "/n/12", ()),
    ("GET", "/n/12x", ()),
    ("GET", "/m", ()),
    ("GET", "/m/x?y=1", ()),
    ("GET", "/mm", ()),
    ("PUT", "/m/x", ()),
    ("GET", "/m/x", ("X-Canary: yes",)),
    ("GET", "/m/x", ("X-Canary: no",)),
    ("GET", "/m/x", ("x-ANY: whatever",)),
    ("GET", "/m/x?v=2", ()),
    ("GET", "/m/x?v=3", ()),
    ("GET", "/m/never/reached", ()),
    ("GET", "//m//x", ()),
    ("GET", "/x/../m/./y", ()),
    ("GET", "/m/a%2Fb", ()),
    ("GET", "/nowhere", ()),
    ("GET", "/dead/x", ()),
]


@pytest.mark.parametrize(("method", "target", "fields"), REQUESTS)
def test_both_route_alike(
    beside: Beside, method: str, target: str, fields: tuple[str, ...]
) -> None:
    found = []
    for port in (beside.envoy, beside.ours):
        answer = fetch(port, method, target, *fields)
        found.append((answer.status, [(to, r.method, r.target) for to, r in beside.took()]))
    assert found[0] == found[1]


segments = st.lists(
    st.sampled_from(["m", "n", "exact", "12", "x", "never"]), min_size=1, max_size=4
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=segments.map(lambda parts: "/" + "/".join(parts)),
    method=st.sampled_from(["GET", "PUT", "POST"]),
    fields=st.sets(st.sampled_from(["X-Canary: yes", "X-Canary2: yes", "X-Any: 1"])),
    query=st.sampled_from(["", "?v=2", "?v=1", "?w=2&v=2"]),
)
def test_both_route_generated_requests_alike(
    beside: Beside, path: str, method: str, fields: set[str], query: str
) -> None:
    test_both_route_alike(beside, method, path + query, tuple(sorted(fields)))


# -- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "behaviour", "statuses", "calls"),
    [
        ("/try/503", status(503), (503, 503), (3, 3)),
        ("/try/502", status(502), (502, 502), (3, 3)),
        ("/try/500", status(500), (500, 500), (1, 1)),
        ("/try/404", status(404), (404, 404), (1, 1)),
        # SEMANTICS, Retries: the end of a kept connection is repeated once outside the count.
        ("/try/reset", reset_at_once, (503, 503), (3, 4)),
        ("/try/hang-up", hang_up, (503, 503), (3, 4)),
        ("/m/503", status(503), (503, 503), (1, 1)),
        ("/short/silent", silent, (504, 504), (1, 1)),
    ],
)
def test_both_fail_and_retry_alike(
    beside: Beside,
    target: str,
    behaviour: Behaviour,
    statuses: tuple[int, int],
    calls: tuple[int, int],
) -> None:
    beside.a.on(target, behaviour)
    for port, code, count in zip((beside.envoy, beside.ours), statuses, calls, strict=True):
        assert fetch(port, "GET", "/try/first").status == 200  # leaves a kept connection
        beside.took()
        assert fetch(port, "GET", target).status == code
        assert len(beside.took()) == count


def test_hop_by_hop_headers_end_at_both(beside: Beside) -> None:
    lines = ("Connection: close, X-Hop", "X-Hop: 1", "Keep-Alive: 5", "TE: gzip", "X-End: 1")
    for port in (beside.envoy, beside.ours):
        assert fetch(port, "GET", "/m/hop", *lines).status == 200
        ((_, seen),) = beside.took()
        assert seen.header("x-end") == "1"
        for name in ("connection", "keep-alive", "te", "x-hop"):
            assert seen.header(name) is None, name


# -- what is malformed -----------------------------------------------------------------------------

STRICTER = "SEMANTICS, HTTP/1.1 safety: 400, connection closed, nothing forwarded"


class Raw(NamedTuple):
    """A request byte by byte, Envoy's status, ours, and why they differ if they do."""

    data: bytes
    envoy: int
    ours: int
    why: str = ""


CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
RAW = {
    "length and chunks": Raw(
        b"POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n" + CHUNKED + b"0\r\n\r\n", 400, 400
    ),
    "two lengths": Raw(
        b"POST /m HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", 400, 400
    ),
    "bad chunk": Raw(b"POST /m HTTP/1.1\r\nHost: a\r\n" + CHUNKED + b"zz\r\nab\r\n", 400, 400),
    "folded field": Raw(b"GET /m HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", 200, 400, STRICTER),
    "NUL": Raw(b"GET /m HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400, 400),
    "space before colon": Raw(b"GET /m HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", 400, 400),
    "no host": Raw(b"GET /m HTTP/1.1\r\n\r\n", 400, 400),
    "two hosts": Raw(b"GET /m HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 200, 400, STRICTER),
    "bare LF": Raw(b"GET /m HTTP/1.1\nHost: a\n\n", 200, 400, STRICTER),
    "not http": Raw(b"\x16\x03\x01\x02\x00\r\n\r\n", 400, 400),
    "absolute form": Raw(b"GET http://b.test/m HTTP/1.1\r\nHost: a\r\n\r\n", 200, 200),
    "HTTP/1.0": Raw(
        b"GET /m HTTP/1.0\r\nHost: a\r\n\r\n",
        426,
        200,
        "SEMANTICS, HTTP/1.1 safety: HTTP/1.0 works; Envoy asks for `accept_http_10`",
    ),
    "100-continue": Raw(
        b"POST /m HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
        200,
        200,
    ),
}


@pytest.mark.parametrize("name", RAW)
def test_raw_requests(beside: Beside, name: str) -> None:
    raw = RAW[name]
    assert (raw.envoy == raw.ours) is not bool(raw.why)
    beside.took()
    for port, code in ((beside.envoy, raw.envoy), (beside.ours, raw.ours)):
        with Connection(port) as connection:
            connection.send(raw.data)
            assert connection.response().status == code
    # Envoy may answer before it has ended what it had begun to send, so that this arrives whenever
    # it will; its requests are told by a header that only Envoy adds.
    ours = [seen for _, seen in beside.took() if seen.header(ENVOYS_OWN) is None]
    assert bool(ours) is (raw.ours == 200)


@pytest.mark.parametrize("code", [204, 304])
def test_answers_without_a_body(beside: Beside, code: int) -> None:
    beside.a.on(f"/m/{code}", says(b"HTTP/1.1 %d X\r\n\r\n" % code))
    for port in (beside.envoy, beside.ours):
        with Connection(port) as connection:
            for _ in range(2):
                assert connection.exchange("GET", f"/m/{code}").status == code
    beside.took()


def test_head(beside: Beside) -> None:
    lengths = []
    for port in (beside.envoy, beside.ours):
        with Connection(port) as connection:
            answer = connection.exchange("HEAD", "/m/head")
            lengths.append((answer.status, answer.header("content-length") is not None))
            assert connection.exchange("GET", "/m/head").status == 200
    assert lengths == [(200, True)] * 2
    beside.took()


def test_a_full_breaker_overflows_at_both(beside: Beside) -> None:
    for port in (beside.envoy, beside.ours):
        gate = threading.Event()
        beside.a.on("/tight/slow", when(gate))
        with Connection(port) as first:
            first.request("GET", "/tight/slow")
            beside.a.wait(lambda: beside.a.got("/tight/slow"), "the first request")
            assert fetch(port, "GET", "/tight/other").status == 503
            gate.set()
            assert first.response().status == 200
        assert [seen.path for _, seen in beside.took()] == ["/tight/slow"]
