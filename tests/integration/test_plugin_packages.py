"""The packages in `plugins/`, all together in one real sidecar, each before a service of its own."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tomllib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.basics import free_port, plugin_packages
from tests.integration.clients import fetch
from tests.integration.processes import Program, hms_sidecar, mitmdump_reverse
from tests.integration.servers import Upstream, chunks, says, status, trickle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.clients import Response
    from tests.integration.servers import Behaviour, Visit

PACKAGES = plugin_packages()
CACHES = any(package.name == "hms-plugin-cache" for package in PACKAGES)


# -- the sidecar -----------------------------------------------------------------------------------


@dataclass
class Sidecar:
    """A sidecar with all plugins, and the service that is behind each of its paths."""

    port: int
    admin: int
    app: Upstream
    program: Program

    def fetch(self, method: str, target: str, *fields: str, **options: Any) -> Response:
        return fetch(self.port, method, target, *fields, **options)


def installed(folder: Path) -> str:
    """A PYTHONPATH on which the packages count as installed; pip's part is tested elsewhere."""
    for package in PACKAGES:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        info = folder / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n"
        (info / "METADATA").write_text(head)
        entries = "".join(f"{k} = {v}\n" for k, v in project["entry-points"]["hms_addons"].items())
        (info / "entry_points.txt").write_text(f"[hms_addons]\n{entries}")
    return os.pathsep.join(map(str, (folder, *PACKAGES)))


def configuration(port: int, app: int, opa: int, folder: Path) -> dict[str, Any]:
    services = ("guarded", "records", "described", "catalog")
    return {
        "listeners": [
            {
                "name": "outbound",
                "port": port,
                "routes": [
                    {"match": {"prefix": f"/{name}"}, "action": {"cluster": name}}
                    for name in services
                ],
            }
        ],
        "clusters": [{"name": name, "endpoints": [f"127.0.0.1:{app}"]} for name in services],
        "plugins": {
            "opa": {
                "url": f"http://127.0.0.1:{opa}",
                "path": "mesh/allow",
                "services": ["guarded"],
                "headers": ["X-Team"],
                "timeout": "30s",
                "cache": {"ttl": 0},
            },
            "redact": {
                "rules": [
                    {"name": "card", "regex": "[0-9]{13,19}", "replace": "****", "keep_last": 4},
                    {"name": "person", "json_paths": ["$..ssn"]},
                ],
                "services": ["records"],
                "requests": True,
                "max_size": "4KiB",
            },
            "openapi": {"services": {"described": {"file": "described.yaml"}}},
            **({"cache": {"services": ["catalog"]}} if CACHES else {}),
        },
    }


@pytest.fixture(scope="module")
def sidecar(tmp_path_factory: pytest.TempPathFactory, opa: int) -> Iterator[Sidecar]:
    folder = tmp_path_factory.mktemp("plugins")
    port, admin = free_port(), free_port()
    path = installed(folder)
    with Upstream() as app:
        file = folder / "mesh.yaml"
        (folder / "described.yaml").write_text(DESCRIPTION)
        file.write_text(json.dumps(configuration(port, app.port, opa, folder)))
        arguments = ("--config", file, "--admin", f"127.0.0.1:{admin}")
        with hms_sidecar(*arguments, env={"PYTHONPATH": path}) as program:
            program.wait_listening(port, admin)
            yield Sidecar(port, admin, app, program)


# -- opa -------------------------------------------------------------------------------------------

POLICY = """\
package mesh

import rego.v1

allow := {"allow": false, "reason": "only claims may look"} if input.headers["x-team"] != "claims"

allow := true if {
    input.headers["x-team"] == "claims"
    input.method == "GET"
    input.service == "guarded"
}
"""


class OpaHandler(BaseHTTPRequestHandler):
    """OPA's Data API with `POLICY` loaded, where there is no OPA."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/v1/data/mesh/allow"
        told = body["input"]
        reply: dict[str, Any] = {}  # undefined
        team = told["headers"].get("x-team")
        if team is not None and team != "claims":
            reply = {"result": {"allow": False, "reason": "only claims may look"}}
        elif team == "claims" and (told["method"], told["service"]) == ("GET", "guarded"):
            reply = {"result": True}
        text = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def opa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of an Open Policy Agent: the real one if it is on PATH."""
    if (program := shutil.which("opa")) is not None:
        policy = tmp_path_factory.mktemp("opa") / "mesh.rego"
        policy.write_text(POLICY)
        port = free_port()
        with Program(program, "run", "--server", "--addr", f"127.0.0.1:{port}", policy) as real:
            real.wait_listening(port)
            yield port
        return
    server = ThreadingHTTPServer(("127.0.0.1", 0), OpaHandler)
    server.daemon_threads = True
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def test_opa_lets_through_what_its_policy_allows(sidecar: Sidecar) -> None:
    answer = sidecar.fetch("GET", "/guarded/1", "X-Team: claims")
    assert (answer.status, answer.json["target"]) == (200, "/guarded/1")


@pytest.mark.parametrize(
    ("method", "fields", "why"),
    [
        ("GET", ["X-Team: sales"], "only claims may look"),
        ("DELETE", ["X-Team: claims"], "the policy does not say that it may (undefined)"),
        ("GET", [], "the policy does not say that it may (undefined)"),
    ],
)
def test_opa_keeps_out_the_rest(sidecar: Sidecar, method: str, fields: list[str], why: str) -> None:
    answer = sidecar.fetch(method, "/guarded/out", *fields)
    assert (answer.status, answer.flag, answer.json["detail"]) == (403, "RBAC", why)
    assert not sidecar.app.got("/guarded/out")


# -- redact ----------------------------------------------------------------------------------------

CARD = "4111111111111111"


def answer(body: bytes, *fields: str, kind: str = "application/json") -> Behaviour:
    return status(200, f"Content-Type: {kind}", *fields, body=body)


async def event_stream(visit: Visit) -> bool:
    """One event, and no end."""
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    await visit.send(head + b"9\r\ndata: 1\n\n\r\n")
    await visit.until_gone()
    return False


def test_redact_takes_personal_data_out_of_answers(sidecar: Sidecar) -> None:
    body = b'{"ssn": "1-2", "paid": "%b"}' % CARD.encode()
    path = sidecar.app.on("/records/1", answer(body))
    got = sidecar.fetch("GET", path)
    assert got.json == {"ssn": "[redacted]", "paid": "****1111"}
    assert got.header("content-length") == str(len(got.body))
    assert sidecar.fetch("HEAD", path).header("content-length") is None


def test_redact_looks_into_gzip_and_asks_for_nothing_else(sidecar: Sidecar) -> None:
    path = sidecar.app.on(
        "/records/gzip", answer(gzip.compress(b'{"ssn": 1}'), "Content-Encoding: gzip")
    )
    got = sidecar.fetch("GET", path, "Accept-Encoding: br, gzip", "Range: bytes=0-3")
    assert gzip.decompress(got.body) == b'{"ssn":"[redacted]"}'
    assert got.header("content-length") == str(len(got.body))
    asked = sidecar.app.one(path)
    assert (asked.all("accept-encoding"), asked.header("range")) == (["gzip"], None)


def test_redact_holds_an_answer_that_comes_in_pieces(sidecar: Sidecar) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
    text = head + b"d\r\ncard 41111111\r\n8\r\n11111111\r\n0\r\n\r\n"
    path = sidecar.app.on("/records/pieces", trickle(text, 0.01, size=len(head) + 12))
    assert sidecar.fetch("GET", path).body == b"card ****1111"


@pytest.mark.parametrize(
    ("name", "behave"),
    [
        ("no-json", answer(b'{"ssn": 1')),
        ("brotli", answer(b"x", "Content-Encoding: br")),
        ("long", answer(b"x" * 5000, kind="text/plain")),
        ("long-pieces", chunks(b"x" * 5000, fields=b"Content-Type: text/plain\r\n")),
        ("events", event_stream),
    ],
)
def test_redact_withholds_what_it_cannot_look_at(
    sidecar: Sidecar, name: str, behave: Behaviour
) -> None:
    got = sidecar.fetch("GET", sidecar.app.on(f"/records/{name}", behave))
    assert (got.status, got.flag, got.json["title"]) == (502, "RBAC", "Answer withheld")


def test_redact_takes_personal_data_out_of_requests(sidecar: Sidecar) -> None:
    body = b'{"card": %b, "ssn": 1}' % CARD.encode()
    sidecar.fetch("POST", "/records/in", "Content-Type: application/json", body=body)
    arrived = sidecar.app.one("/records/in")
    assert arrived.body == b'{"card":"****1111","ssn":"[redacted]"}'
    assert arrived.header("content-length") == str(len(arrived.body))
    refused = sidecar.fetch("POST", "/records/in", "Content-Type: application/json", body=b"{")
    assert refused.status == 400
    assert len(sidecar.app.got("/records/in")) == 1


# -- openapi ---------------------------------------------------------------------------------------

DESCRIPTION = """\
openapi: 3.1.0
info: { title: described, version: "1" }
servers: [{ url: /described }]
paths:
  /claims/{id}:
    put:
      parameters: [{ name: id, in: path, required: true, schema: { type: integer } }]
      requestBody:
        content:
          application/json:
            schema: { type: object, properties: { amount: { type: number, minimum: 1 } } }
"""


def test_openapi_lets_through_what_the_document_describes(sidecar: Sidecar) -> None:
    answer = sidecar.fetch(
        "PUT", "/described/claims/7", "Content-Type: application/json", body=b'{"amount": 5}'
    )
    assert (answer.status, answer.json["body"]) == (200, '{"amount": 5}')


@pytest.mark.parametrize(
    ("method", "target", "body", "status", "why"),
    [
        ("PUT", "/described/claims/x", b"{}", 400, "path parameter 'id'"),
        ("PUT", "/described/claims/8", b'{"amount": 0}', 400, "body: at /amount: "),
        ("PUT", "/described/claims/8", b"x" * 2_000_000, 413, "too long"),
        ("GET", "/described/claims/8", None, 405, "no such method"),
        ("GET", "/described/other", None, 404, "no such path"),
    ],
)
def test_openapi_refuses_the_rest(
    sidecar: Sidecar, method: str, target: str, body: bytes | None, status: int, why: str
) -> None:
    answer = sidecar.fetch(method, target, "Content-Type: application/json", body=body)
    assert answer.status == status
    assert why in answer.json["detail"]
    assert not sidecar.app.got(target)


# -- cache -----------------------------------------------------------------------------------------

needs_cache = pytest.mark.skipif(not CACHES, reason="hms-plugin-cache needs Python 3.13")


@needs_cache
def test_cache_gives_a_fresh_answer_again_until_it_is_changed(sidecar: Sidecar) -> None:
    path = sidecar.app.on("/catalog/fresh", status(200, "Cache-Control: max-age=600", body=b"x"))
    first, second = sidecar.fetch("GET", path), sidecar.fetch("GET", path)
    assert first.header("cache-status") == "hms; fwd=uri-miss; fwd-status=200; stored"
    assert (second.body, second.header("content-length")) == (b"x", "1")
    assert (second.header("cache-status") or "").startswith("hms; hit; ttl=")
    assert second.header("age") is not None
    assert len(sidecar.app.got(path)) == 1
    sidecar.fetch("PUT", path, body=b"y")
    sidecar.fetch("GET", path)
    assert len(sidecar.app.got(path)) == 3


@needs_cache
def test_cache_validates_what_is_stale(sidecar: Sidecar) -> None:
    fields = ("Cache-Control: no-cache", 'ETag: "1"')
    unchanged = says(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
    path = sidecar.app.on("/catalog/stale", status(200, *fields, body=b"kept"), unchanged)
    sidecar.fetch("GET", path)
    got = sidecar.fetch("GET", path)
    assert (got.status, got.body) == (200, b"kept")
    assert got.header("cache-status") == "hms; fwd=stale; fwd-status=304; stored"
    assert sidecar.app.got(path)[1].header("if-none-match") == '"1"'
    assert sidecar.fetch("GET", path, 'If-None-Match: "1"').status == 304


@needs_cache
def test_cache_keeps_credentials_apart(sidecar: Sidecar) -> None:
    path = sidecar.app.on(
        "/catalog/mine",
        status(200, "Cache-Control: max-age=600", body=b"a"),
        status(200, "Cache-Control: max-age=600", body=b"b"),
    )
    for name in (b"a", b"b", b"a", b"b"):
        got = sidecar.fetch("GET", path, f"Authorization: Basic {name.decode()}")
        assert got.body == name
    assert len(sidecar.app.got(path)) == 2


@needs_cache
def test_cache_keeps_a_body_that_streamed(sidecar: Sidecar) -> None:
    head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=600\r\nTransfer-Encoding: chunked\r\n\r\n"
    path = sidecar.app.on(
        "/catalog/pieces", trickle(head + b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n", 0.01, 90)
    )
    assert [sidecar.fetch("GET", path).body for _ in range(2)] == [b"ab", b"ab"]
    assert len(sidecar.app.got(path)) == 1


# -- all together ----------------------------------------------------------------------------------


def test_each_is_listed_with_its_package(sidecar: Sidecar) -> None:
    listed = fetch(sidecar.admin, "GET", "/plugins", host="127.0.0.1").body.decode().splitlines()
    for package in PACKAGES:
        name = package.name.removeprefix("hms-plugin-")
        assert [name, package.name, "1.0.0"] in [line.split()[:3] for line in listed]


def test_the_time_of_each_hook_is_told(sidecar: Sidecar) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(fetch, sidecar.admin, "GET", "/plugins?time=1s", host="127.0.0.1")
        while not asked.done():
            sidecar.fetch("GET", "/guarded/timed", "X-Team: claims")
    lines = [line.split() for line in asked.result().body.decode().splitlines()]
    (found,) = (line for line in lines if line[:2] == ["opa", "hms_authorize"])
    assert int(found[2]) > 0
    assert float(found[3]) > 0
    assert not any(line[:2] == ["opa", "hms_respond"] for line in lines)


def test_nothing_of_a_body_was_logged(sidecar: Sidecar) -> None:
    assert CARD not in sidecar.program.output


# -- in mitmproxy's own modes ----------------------------------------------------------------------


def test_the_native_lane_redacts_and_keeps_answers_too(tmp_path: Path, opa: int) -> None:
    port = free_port()
    path = installed(tmp_path)
    with Upstream() as app:
        (tmp_path / "described.yaml").write_text(DESCRIPTION)
        file = tmp_path / "mesh.yaml"
        file.write_text(json.dumps(configuration(port, app.port, opa, tmp_path)))
        env = {"PYTHONPATH": path}
        with mitmdump_reverse(app.port, port, config=file, env=env) as program:
            program.wait_listening(port)
            app.on("/records/1", answer(b'{"ssn": "1-2"}'))
            assert fetch(port, "GET", "/records/1").json == {"ssn": "[redacted]"}
            if CACHES:
                app.on("/catalog/1", status(200, "Cache-Control: max-age=600", body=b"x"))
                assert [fetch(port, "GET", "/catalog/1").body for _ in range(2)] == [b"x", b"x"]
                assert len(app.got("/catalog/1")) == 1
