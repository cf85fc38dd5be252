"""Beside Envoy: the same routes, the same requests, and where the two differ, why."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.integration.basics import free_port
from tests.integration.clients import Connection, fetch
from tests.integration.in_process import InProcess
from tests.integration.processes import Program
from tests.integration.servers import Upstream, hang_up, reset_at_once, says, silent, status, when

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.integration.servers import Behaviour, Received

pytestmark = pytest.mark.envoy

TYPES = "type.googleapis.com/envoy.extensions"
RETRY_ON = "connect-failure,refused-stream,reset,gateway-error"


# -- one intent, written for both ------------------------------------------------------------------


class Intent(NamedTuple):
    """A route: its conditions as we write them, and the cluster it leads to."""

    cluster: str
    match: dict[str, Any]
    retries: int = 0
    timeout: str = "5s"


INTENTS = [
    Intent("a", {"path": "/exact"}),
    Intent("b", {"regex": "/n/[0-9]+"}),
    Intent("b", {"prefix": "/m", "methods": ["PUT"]}),
    Intent("b", {"prefix": "/m", "headers": {"x-canary": {"exact": "yes"}}}),
    Intent("b", {"prefix": "/m", "headers": {"x-any": {"present": True}}}),
    Intent("b", {"prefix": "/m", "query": {"v": {"exact": "2"}}}),
    Intent("a", {"prefix": "/m"}),
    Intent("a", {"prefix": "/try"}, retries=2),
    Intent("a", {"prefix": "/short"}, timeout="0.3s"),
    Intent("dead", {"prefix": "/dead"}),
    Intent("tight", {"prefix": "/tight"}),
    Intent("b", {"prefix": "/m/never"}),
]


def envoy_match(match: dict[str, Any]) -> dict[str, Any]:
    """Our conditions in Envoy's words."""
    found: dict[str, Any] = {}
    if "path" in match:
        found["path"] = match["path"]
    elif "regex" in match:
        found["safe_regex"] = {"regex": match["regex"]}
    elif match.get("prefix", "/") == "/":
        found["prefix"] = "/"
    else:
        found["path_separated_prefix"] = match["prefix"]
    headers = [
        {"name": name, "present_match": True}
        if "present" in value
        else {"name": name, "string_match": value}
        for name, value in match.get("headers", {}).items()
    ]
    if "methods" in match:
        headers.append({"name": ":method", "string_match": {"exact": match["methods"][0]}})
    query = [
        {"name": name, "string_match": value} for name, value in match.get("query", {}).items()
    ]
    return (
        found
        | ({"headers": headers} if headers else {})
        | ({"query_parameters": query} if query else {})
    )


def envoy_config(port: int, intents: Sequence[Intent], clusters: dict[str, int]) -> str:
    routes = []
    for intent in intents:
        action: dict[str, Any] = {"cluster": intent.cluster, "timeout": intent.timeout}
        if intent.retries:
            action["retry_policy"] = {"retry_on": RETRY_ON, "num_retries": intent.retries}
        routes.append({"match": envoy_match(intent.match), "route": action})
    manager = {
        "@type": f"{TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "test",
        "codec_type": "HTTP1",
        "normalize_path": True,
        "merge_slashes": True,
        "path_with_escaped_slashes_action": "REJECT_REQUEST",
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": f"{TYPES}.filters.http.router.v3.Router"},
            }
        ],
    }
    listener = {
        "name": "l",
        "address": address(port),
        "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}],
    }
    return json.dumps(
        {
            "static_resources": {
                "listeners": [listener],
                "clusters": [
                    {
                        "name": name,
                        "type": "STATIC",
                        "connect_timeout": "2s",
                        "circuit_breakers": {"thresholds": [thresholds(name)]},
                        "load_assignment": {
                            "cluster_name": name,
                            "endpoints": [
                                {"lb_endpoints": [{"endpoint": {"address": address(to)}}]}
                            ],
                        },
                    }
                    for name, to in clusters.items()
                ],
            }
        }
    )


def thresholds(cluster: str) -> dict[str, int]:
    """The same words in both languages."""
    return {"max_requests": 1 if cluster == "tight" else 1024}


def address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def our_config(intents: Sequence[Intent], clusters: dict[str, int]) -> str:
    routes = [
        {
            "match": intent.match,
            "action": {
                "cluster": intent.cluster,
                "timeout": intent.timeout,
                "retries": {"attempts": intent.retries, "on": RETRY_ON.split(",")},
            },
        }
        for intent in intents
    ]
    return json.dumps(
        {
            "listeners": [{"name": "l", "port": 0, "routes": routes}],
            "clusters": [
                {
                    "name": name,
                    "endpoints": [f"127.0.0.1:{to}"],
                    "outlier_detection": False,
                    "circuit_breakers": thresholds(name),
                }
                for name, to in clusters.items()
            ],
        }
    )


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
        clusters = {"a": a.port, "b": b.port, "dead": 1, "tight": a.port}
        yield from both(tmp_path_factory.mktemp("envoy"), INTENTS, clusters, a, b)


def both(
    folder: Path, intents: Sequence[Intent], clusters: dict[str, int], a: Upstream, b: Upstream
) -> Iterator[Beside]:
    port = free_port()
    file = folder / "envoy.json"
    file.write_text(envoy_config(port, intents, clusters))
    with ExitStack() as stack:
        envoy = stack.enter_context(
            Program(
                "envoy", "-c", file, "--disable-hot-restart", "--concurrency", "1", "-l", "error"
            )
        )
        sidecar = stack.enter_context(InProcess(our_config(intents, clusters)))
        envoy.wait_listening(port)
        yield Beside(port, sidecar.port, a, b)


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

ENVOYS_OWN = "x-envoy-expected-rq-timeout-ms"
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
