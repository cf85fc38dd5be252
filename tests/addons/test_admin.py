from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from hms_addons.addons.admin import Admin
from hms_addons.config.explain import explain
from hms_addons.errors import ConfigError, MeshError, NotAllowedError
from hms_addons.http_message import BodyStream
from hms_addons.metrics_registry import Exposition
from hms_addons.recording_wish import RecordingWish
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.hookspecs import AdminRequest
    from hms_addons.http_message import Answer
    from hms_addons.metrics_registry import Collector

CONFIG = """
listeners:
  - name: out
    port: 15001
    routes: [{match: {prefix: /verify-id, headers: {x-tier: gold}}, action: {cluster: auth-svc}}]
clusters: [{name: auth-svc, endpoints: ["127.0.0.1:9001"]}]
"""

CLUSTERS: list[dict[str, Any]] = [
    {
        "name": "auth-svc",
        "state": "closed",
        "retry_in_seconds": None,
        "circuit_breakers": {"requests": {"in_use": 2, "max": 1024}, "overflows": 0},
        "endpoints": [
            {"address": "127.0.0.1:9001", "state": "closed", "cause": None, "zones": ["a", "b"]},
            {"address": "127.0.0.1:9002", "state": "open", "cause": "5 of 5xx", "zones": []},
        ],
    },
    {
        "name": "payments-svc",
        "tls": True,
        "endpoints": [],
        "routes": [
            {
                "listener": "out",
                "route": "pay",
                "circuit_breakers": {"requests": {"in_use": 1, "max": 2}, "overflows": {}},
            }
        ],
    },
]


class FakeMesh:
    """A running sidecar, as far as `Mesh` goes."""

    def __init__(self, snapshot: Snapshot | None) -> None:
        self.snapshot = snapshot
        self.clock = FakeClock()
        self.not_ready: str | None = None
        self.draining = False
        self.drains = 0
        self.quits = 0
        self.bound = "127.0.0.1"
        self.wishes: list[RecordingWish] = []
        self.window = False
        self.windowless = False
        self.rejected: dict[str, str] | None = None
        self.control: dict[str, Any] | None = None
        self.providers: list[dict[str, Any]] = []
        self.errors: list[dict[str, Any]] = []
        self.certificate_list: list[dict[str, Any]] = [
            {"secret": "mesh_certs", "spiffe_id": "spiffe://mpsa.mil/svc/a", "problem": None}
        ]
        self.handler: Callable[[AdminRequest], Awaitable[Answer]] | None = None

    def status(self) -> dict[str, Any]:
        return {
            "version": self.snapshot.version if self.snapshot else None,
            "rejected": self.rejected,
            **({} if self.control is None else {"control": self.control}),
            "rbac": {"providers": self.providers},
            "plugins": [{"name": "mtls", "source": "built-in"}],
            "plugin_errors": self.errors,
        }

    def add_status(self, name: str, show: Callable[[], Any]) -> None:
        raise NotImplementedError

    def add_metrics(self, name: str, collector: Collector) -> None:
        raise NotImplementedError

    async def metrics(self, accept: str = "") -> Exposition:
        return Exposition("text/plain; version=0.0.4", f"accepts {accept}\n".encode())

    async def apply(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot

    def refuse(self, reason: str) -> None:
        self.rejected = {"reason": reason, "at": "now"}

    def clusters(self) -> list[dict[str, Any]]:
        return CLUSTERS

    def certificates(self) -> list[dict[str, Any]]:
        return self.certificate_list

    async def time_hooks(self, seconds: float) -> list[dict[str, Any]]:
        if self.draining:
            raise ConfigError("not now")
        return [{"plugin": "mtls", "hook": "hms_identify", "calls": int(seconds * 100)}]

    async def open_window(self) -> str:
        if self.draining:
            raise MeshError("no window here")
        if self.windowless:
            raise NotAllowedError("start it with --window")
        self.window = True
        return "http://127.0.0.1:8081/?token=t"

    async def close_window(self) -> bool:
        was, self.window = self.window, False
        return was

    async def record(self, wish: RecordingWish) -> BodyStream:
        if self.draining:
            raise MeshError("somebody records already")
        self.wishes.append(wish)
        return BodyStream(lambda: None, lambda: None)

    def recording(self) -> dict[str, Any]:
        last = {"recorded": 3, "dropped": 1} if self.wishes else None
        return {"recording": False, "last": last}

    def explain(
        self, request_line: str, headers: Mapping[str, str] | Iterable[tuple[str, str]]
    ) -> dict[str, Any]:
        if self.snapshot is None:
            raise ConfigError("there is no configuration yet")
        return explain(self.snapshot, request_line, headers)

    async def serve(
        self, host: str, port: int, handler: Callable[[AdminRequest], Awaitable[Answer]]
    ) -> tuple[str, int]:
        self.bound = host
        self.handler = handler
        return host, port or 54321

    def quit(self) -> None:
        self.quits += 1

    def drain(self) -> None:
        self.drains += 1
        self.draining = True
        self.not_ready = "the sidecar is draining"

    @property
    def ready(self) -> bool:
        return self.not_ready is None


class FakeRequest:
    """A request to the admin port."""

    def __init__(
        self, method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str]
    ) -> None:
        self.method = method
        self.path = path
        self.query_list: Sequence[tuple[str, str]] = query
        self.query: Mapping[str, str] = dict(query)
        self.headers: Mapping[str, str] = headers
        self.body = b""


class Bench:
    def __init__(self) -> None:
        self.mesh = FakeMesh(snapshot_of(CONFIG))
        self.admin = Admin()

    async def ask(
        self, path: str, *query: tuple[str, str], method: str = "GET", **headers: str
    ) -> tuple[int, str]:
        answer = await self.answer(path, *query, method=method, **headers)
        assert isinstance(answer.body, bytes)
        return answer.status, answer.body.decode()

    async def answer(
        self, path: str, *query: tuple[str, str], method: str = "GET", **headers: str
    ) -> Answer:
        if self.mesh.handler is None:
            await self.admin.hms_open(self.mesh)
        assert self.mesh.handler is not None
        return await self.mesh.handler(
            FakeRequest(method, path, list(query), {"host": "localhost:15000"} | headers)
        )

    async def data(self, path: str, *query: tuple[str, str], **headers: str) -> Any:
        answer = await self.answer(path, *query, accept="application/json", **headers)
        assert isinstance(answer.body, bytes)
        assert (b"Content-Type", b"application/json") in answer.fields
        return json.loads(answer.body)


@pytest.fixture
def bench() -> Bench:
    return Bench()


# -- opening the port ---------------------------------------------------------------------------


async def test_it_listens_where_it_is_told(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.admin = Admin("::1", 0)
    with caplog.at_level(logging.INFO):
        await bench.admin.hms_open(bench.mesh)
    assert bench.admin.address == ("::1", 54321)
    assert "admin on http://[::1]:54321" in caplog.text
    assert "beyond this machine" not in caplog.text
    assert repr(bench.admin) == "<Admin http://[::1]:54321>"


async def test_it_can_be_left_closed(bench: Bench) -> None:
    bench.admin = Admin(port=None)
    await bench.admin.hms_open(bench.mesh)
    assert bench.mesh.handler is None
    assert repr(bench.admin) == "<Admin closed>"


async def test_opening_it_to_the_network_is_warned_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await Admin("0.0.0.0").hms_open(bench.mesh)
    assert "open beyond this machine" in caplog.text


async def test_nothing_is_shown_before_the_start(bench: Bench) -> None:
    answer = await bench.admin.handle(FakeRequest("GET", "/live", [], {}))
    assert answer.status == 503


# -- pages --------------------------------------------------------------------------------------


async def test_the_index_lists_every_endpoint_and_each_is_there(bench: Bench) -> None:
    status, text = await bench.ask("/")
    assert status == 200
    listed = await bench.data("/")
    assert set(listed) >= {
        "/live",
        "/ready",
        "/config",
        "/clusters",
        "/certs",
        "/metrics",
        "/explain",
        "/drain",
        "/quit",
    }
    for path, entry in listed.items():
        assert f"{entry['methods'][0]:<5}{path}" in text
        assert entry["about"] in text
        for form in ("text", "json"):
            query = [("format", form)]
            if path == "/explain":
                query.append(("request", "GET http://auth-svc.svc/"))
            answer = await bench.answer(path, *query, method=entry["methods"][0])
            assert answer.status < 300 or path == "/ready"


async def test_live_and_ready(bench: Bench) -> None:
    assert await bench.ask("/live") == (200, "live\n")
    assert await bench.ask("/ready") == (200, "ready\n")
    assert await bench.data("/ready") == {"ready": True, "reason": None}
    bench.mesh.not_ready = "the sidecar is starting"
    assert await bench.ask("/ready") == (503, "not ready: the sidecar is starting\n")
    bench.mesh.not_ready = "there is no configuration yet"
    assert await bench.data("/ready") == {
        "ready": False,
        "reason": "there is no configuration yet",
    }
    assert await bench.ask("/live") == (200, "live\n")


async def test_metrics_come_in_the_scrapers_own_format(bench: Bench) -> None:
    answer = await bench.answer("/metrics", accept="application/json")
    assert answer.body == b"accepts application/json\n"
    assert (b"Content-Type", b"text/plain; version=0.0.4") in answer.fields
    answer = await bench.answer("/metrics", method="HEAD")
    assert (answer.body, answer.length) == (b"", len(b"accepts \n"))
    assert (await bench.ask("/metrics", method="POST"))[0] == 405


async def test_config_is_the_document_in_force(bench: Bench) -> None:
    status, text = await bench.ask("/config")
    assert status == 200
    assert bench.mesh.snapshot is not None
    assert text.startswith(f"# version {bench.mesh.snapshot.version}, from 1.yaml\n")
    assert yaml.safe_load(text) == yaml.safe_load(CONFIG)
    data = await bench.data("/config")
    assert data["document"] == yaml.safe_load(CONFIG)
    assert data["rejected"] is None


async def test_config_shows_the_last_refused_change(bench: Bench) -> None:
    bench.mesh.rejected = {"reason": "1.yaml:3:5: bad\n1.yaml:4:5: worse", "at": "2027-01-15"}
    _, text = await bench.ask("/config")
    assert "a later change was refused at 2027-01-15" in text
    assert "#   1.yaml:4:5: worse\n" in text
    assert yaml.safe_load(text) == yaml.safe_load(CONFIG), "still YAML"


async def test_config_tells_whose_tokens_cannot_be_verified(bench: Bench) -> None:
    problem = "provider 'id': https://id.example/keys: ConnectError\nmore"
    bench.mesh.providers = [{"name": "ok", "problem": None}, {"name": "id", "problem": problem}]
    _, text = await bench.ask("/config")
    assert (
        "\n# tokens: provider 'id': https://id.example/keys: ConnectError\n# tokens: more\n" in text
    )
    assert yaml.safe_load(text) == yaml.safe_load(CONFIG), "still YAML"
    assert (await bench.data("/config"))["rbac"]["providers"][1]["problem"] == problem


async def test_config_tells_of_the_control_plane(bench: Bench) -> None:
    control = {"address": "https://c:1", "in_sync": True, "problem": None, "refused": None}
    bench.mesh.control = control
    _, text = await bench.ask("/config")
    assert "# in sync with https://c:1\n" in text
    control.update(in_sync=False, problem="nobody there", refused={"version": 7, "reason": "bad"})
    _, text = await bench.ask("/config")
    assert "# out of touch with https://c:1: nobody there\n" in text
    assert "# version 7 of https://c:1 is refused\n" in text
    assert yaml.safe_load(text) == yaml.safe_load(CONFIG), "still YAML"
    assert (await bench.data("/config"))["control"] == control


async def test_config_before_there_is_one(bench: Bench) -> None:
    bench.mesh.snapshot = None
    assert await bench.ask("/config") == (200, "# no configuration yet\n")
    assert (await bench.data("/config"))["document"] is None
    bench.mesh.rejected = {"reason": "1.yaml:3:5: bad", "at": "2027-01-15"}
    _, text = await bench.ask("/config")
    assert "# what came was refused at 2027-01-15:\n#   1.yaml:3:5: bad\n" in text


async def test_clusters_as_a_table(bench: Bench) -> None:
    status, text = await bench.ask("/clusters")
    assert status == 200
    assert text.splitlines() == [
        "auth-svc: state closed, circuit breakers (requests 2/1024, overflows 0)",
        "  ADDRESS         STATE   CAUSE     ZONES",
        "  127.0.0.1:9001  closed            a, b",
        "  127.0.0.1:9002  open    5 of 5xx",
        "payments-svc: tls yes",
        "  no endpoints",
        "  listener out, route pay, circuit breakers (requests 1/2)",
    ]
    assert await bench.data("/clusters") == CLUSTERS


async def test_certificates(bench: Bench) -> None:
    _, text = await bench.ask("/certs")
    assert text.splitlines() == [
        "SECRET      SPIFFE ID",
        "mesh_certs  spiffe://mpsa.mil/svc/a",
    ]
    assert await bench.data("/certs") == bench.mesh.certificate_list
    bench.mesh.certificate_list = []
    assert await bench.ask("/certs") == (200, "no certificates\n")


async def test_plugins_and_their_errors(bench: Bench) -> None:
    _, text = await bench.ask("/plugins")
    assert text.splitlines() == ["NAME  SOURCE", "mtls  built-in"]
    bench.mesh.errors = [{"plugin": "stamp", "hook": "hms_respond", "count": 3}]
    _, text = await bench.ask("/plugins")
    assert "errors since the start:\nPLUGIN  HOOK         COUNT\nstamp   hms_respond  3" in text
    assert (await bench.data("/plugins"))["errors"] == bench.mesh.errors


async def test_hooks_are_measured_only_where_that_is_asked_for(bench: Bench) -> None:
    assert "times" not in await bench.data("/plugins")
    found = await bench.data("/plugins", ("time", "500ms"))
    assert (found["seconds"], found["times"][0]["calls"]) == (0.5, 50)
    _, text = await bench.ask("/plugins", ("time", "2s"))
    assert text.endswith("hooks, in 2s:\nPLUGIN  HOOK          CALLS\nmtls    hms_identify  200\n")
    for wrong in ("0", "61s", "soon", "5"):
        status, text = await bench.ask("/plugins", ("time", wrong))
        assert (status, "time: " in text) == (400, True)
    bench.mesh.draining = True
    assert (await bench.ask("/plugins", ("time", "2s")))[0] == 409


async def test_explain(bench: Bench) -> None:
    asked = ("request", "GET http://auth-svc.svc/verify-id")
    found = await bench.data("/explain", asked)
    assert found["route"]["default"] is True
    assert "x-tier" in found["passed_over"][0]["reason"]
    headers = [("header", "X-Other: 1"), ("header", "X-Tier: gold")]
    found = await bench.data("/explain", asked, *headers)
    assert found["route"]["default"] is False
    status, text = await bench.ask("/explain", asked, *headers)
    assert status == 200
    assert "to the service auth-svc" in text
    found = await bench.data("/explain", asked, ("header", "Host: a"), ("header", "host: b"))
    assert found["failure"]["detail"] == "Host was sent more than once"


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ([], "say which request"),
        ([("request", "")], "say which request"),
        ([("request", "GET /"), ("header", "nonsense")], "'nonsense' is no 'Name: value'"),
        ([("request", "GET /"), ("header", ": x")], "is no 'Name: value'"),
    ],
)
async def test_explain_says_how_to_ask(
    bench: Bench, query: list[tuple[str, str]], reason: str
) -> None:
    status, text = await bench.ask("/explain", *query)
    assert status == 400
    assert reason in text


async def test_explain_without_a_configuration(bench: Bench) -> None:
    bench.mesh.snapshot = None
    status, text = await bench.ask("/explain", ("request", "GET /"))
    assert status == 400
    assert "there is no configuration yet" in text


async def test_drain(bench: Bench) -> None:
    status, text = await bench.ask("/drain", method="POST")
    assert status == 202
    assert text.startswith("draining")
    assert bench.mesh.drains == 1
    assert await bench.ask("/ready") == (503, "not ready: the sidecar is draining\n")
    assert (await bench.ask("/drain", method="POST"))[1] == "already draining\n"


async def test_quit(bench: Bench) -> None:
    assert (await bench.answer("/quit")).status == 405
    assert bench.mesh.quits == 0
    status, text = await bench.ask("/quit", method="POST")
    assert (status, text) == (202, "quitting: what was in flight is cut off\n")
    assert (bench.mesh.quits, bench.mesh.drains) == (1, 0)


async def test_drain_is_not_for_looking(bench: Bench) -> None:
    for method in ("GET", "HEAD"):
        answer = await bench.answer("/drain", method=method)
        assert answer.status == 405
        assert (b"Allow", b"POST") in answer.fields
    assert isinstance(answer.body, bytes)
    assert b"curl -X POST http://127.0.0.1:15000/drain" in answer.body
    assert bench.mesh.drains == 0


async def test_pages_are_not_for_changing(bench: Bench) -> None:
    assert (await bench.ask("/config", method="DELETE"))[0] == 405
    assert (await bench.ask("/ready", method="POST"))[0] == 405


async def test_an_unknown_path_is_told_what_there_is(bench: Bench) -> None:
    status, text = await bench.ask("/stats")
    assert status == 404
    assert "there is no /stats; there are /, /live, /ready, /config" in text
    problem = await bench.answer("/stats", accept="application/json")
    assert isinstance(problem.body, bytes)
    assert json.loads(problem.body)["status"] == 404
    assert (b"Content-Type", b"application/problem+json") in problem.fields


async def test_forms(bench: Bench) -> None:
    kinds = {}
    for name, query, accept in [
        ("plain", [], "*/*"),
        ("accept", [], "text/html, application/json;q=0.9"),
        ("query", [("format", "json")], "*/*"),
        ("query wins", [("format", "text")], "application/json"),
    ]:
        answer = await bench.answer("/ready", *query, accept=accept)
        kinds[name] = dict(answer.fields)[b"Content-Type"]
        assert dict(answer.fields)[b"Cache-Control"] == b"no-store"
    assert kinds == {
        "plain": b"text/plain; charset=utf-8",
        "accept": b"application/json",
        "query": b"application/json",
        "query wins": b"text/plain; charset=utf-8",
    }


async def test_head_has_the_length_of_get(bench: Bench) -> None:
    got = await bench.answer("/clusters")
    head = await bench.answer("/clusters", method="HEAD")
    assert head.status == 200
    assert head.body == b""
    assert head.length == got.length


# -- web pages in a browser on this machine -----------------------------------------------------

OWN_HOSTS = ["localhost", "LOCALHOST:15000", "127.0.0.1:15000", "[::1]:15000", "hms.localhost", ""]
FOREIGN_HOSTS = ["evil.example:15000", "127.0.0.1.evil.example", "localhost.evil.example", "[", "@"]


@pytest.mark.parametrize("host", OWN_HOSTS)
async def test_own_names_are_served(bench: Bench, host: str) -> None:
    assert (await bench.ask("/config", host=host))[0] == 200
    assert (await bench.ask("/drain", method="POST", host=host))[0] == 202


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
async def test_foreign_names_are_refused(bench: Bench, host: str) -> None:
    for path, method in (("/config", "GET"), ("/", "HEAD"), ("/drain", "POST")):
        status, text = await bench.ask(path, method=method, host=host)
        assert status == 403
        assert "DNS rebinding" in text
    assert bench.mesh.drains == 0


async def test_probes_may_use_any_name(bench: Bench) -> None:
    for path in ("/live", "/ready"):
        assert (await bench.ask(path, host="claims-svc-sidecar:15000"))[0] == 200
        assert (await bench.ask(path, host="claims-svc-sidecar:15000", method="POST"))[0] == 403


async def test_on_a_network_address_reading_is_free_and_acting_is_not(bench: Bench) -> None:
    bench.admin = Admin("0.0.0.0")
    assert (await bench.ask("/config", host="sidecar:15000"))[0] == 200
    assert (await bench.ask("/drain", method="POST", host="sidecar:15000"))[0] == 403
    assert (await bench.ask("/drain", method="POST", host="10.0.0.7:15000"))[0] == 202


async def test_on_a_name_that_it_was_given_it_may_be_called_by_it(bench: Bench) -> None:
    bench.admin = Admin("Sidecar.internal")
    assert (await bench.ask("/drain", method="POST", host="sidecar.internal:15000"))[0] == 202


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost:15000", 202),
        ("http://evil.example", 403),
        ("http://localhost:8081", 403),
        ("null", 403),
        ("http://[", 403),
        ("http://[::1", 403),
        ("http://[v1.evil]x", 403),
        ("http://localhost:15000\u2100", 403),
    ],
)
async def test_a_page_of_another_origin_may_not_drain(
    bench: Bench, origin: str, status: int
) -> None:
    assert (await bench.ask("/drain", method="POST", origin=origin))[0] == status
    assert bench.mesh.drains == (status == 202)


# -- recordings ---------------------------------------------------------------------------------


async def test_a_recording_is_a_stream(bench: Bench) -> None:
    assert (await bench.ask("/record"))[1] == "nobody records; nothing yet\n"
    answer = await bench.answer("/record", ("for", "5s"), method="POST")
    assert (answer.status, answer.length) == (200, None)
    assert isinstance(answer.body, BodyStream)
    assert bench.mesh.wishes == [RecordingWish(5.0)]
    assert (await bench.ask("/record"))[1] == "nobody records; recorded 3, dropped 1\n"
    assert (await bench.data("/record"))["last"] == {"recorded": 3, "dropped": 1}


async def test_a_recording_that_cannot_be_is_refused(bench: Bench) -> None:
    status, text = await bench.ask("/record", ("for", "5"), method="POST")
    assert (status, "for: expected a duration" in text) == (400, True)
    bench.mesh.draining = True
    assert (await bench.ask("/record", method="POST"))[0] == 409
    status, text = await bench.ask("/record", method="POST", origin="http://evil.example")
    assert (status, "Origin refused" in text) == (403, True)


async def test_whole_requests_are_shown_to_this_machine_only(bench: Bench) -> None:
    bench.admin = Admin("0.0.0.0", 15000)
    status, text = await bench.ask("/record", method="POST")
    assert (status, "Only for this machine" in text) == (403, True)
    assert not bench.mesh.wishes


# -- a window -----------------------------------------------------------------------------------


async def test_a_window_is_opened_and_closed(bench: Bench) -> None:
    status, text = await bench.ask("/window", method="POST")
    assert (status, text) == (200, "http://127.0.0.1:8081/?token=t\n")
    assert await bench.ask("/window", ("open", "no"), method="POST") == (
        200,
        "the window is closed\n",
    )
    assert await bench.ask("/window", ("open", "no"), method="POST") == (
        200,
        "no window was open\n",
    )


async def test_a_window_that_cannot_be_is_refused(bench: Bench) -> None:
    assert (await bench.ask("/window"))[0] == 405
    assert (await bench.ask("/window", ("open", "1"), method="POST"))[0] == 400
    assert (await bench.ask("/window", method="POST", origin="http://evil.example"))[0] == 403
    bench.mesh.windowless = True
    status, text = await bench.ask("/window", method="POST")
    assert status == 403
    assert text == "Window not allowed: start it with --window\n"
    bench.mesh.draining = True
    status, text = await bench.ask("/window", method="POST")
    assert status == 409
    assert "no window here" in text
