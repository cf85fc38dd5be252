"""The access log over every lane: what is written, what never is; then what a stop leaves of it."""

from __future__ import annotations

import json
import os
import signal
import threading
from typing import TYPE_CHECKING, Any

import httpx

from tests.fakes.cli import hms
from tests.integration.basics import free_port, until
from tests.integration.clients import fetch
from tests.integration.processes import hms_sidecar
from tests.integration.servers import echo, status
from tests.integration.test_lanes import bearer

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.conftest import Backends, ConfigFile, Lane
    from tests.integration.servers import Upstream


def lines_of(log: Path, path: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    return [line for line in found if line.get("path") == path]


def line_of(log: Path, path: str) -> dict[str, Any]:
    """The one line about `path`, once it is written."""
    until(lambda: lines_of(log, path), f"a line about {path}")
    (line,) = lines_of(log, path)
    return line


def test_a_request_that_failed_is_logged_without_its_secrets(
    lane: Lane, backends: Backends
) -> None:
    secret = bearer(sub="jane@mpsa.mil")
    fields = ("X-Request-ID: find-me", "Cookie: id=hunter2", "X-Tier: gold", secret)
    assert lane.fetch("GET", "/dead/logged?password=hunter2", *fields).status == 503
    line = line_of(lane.access_log, "/dead/logged")
    assert {
        "direction": "outbound",
        "listener": "outbound",
        "client": "127.0.0.1",
        "method": "GET",
        "status": 503,
        "flag": "UF",
        "service": "dead",
        "cluster": "dead",
        "endpoint": f"127.0.0.1:{backends.dead}",
        "attempts": 1,
        "request_id": "find-me",
        "headers": {"authorization": "[redacted]", "x-tier": "gold"},
    }.items() <= line.items()
    assert "cluster dead" in line["detail"]
    assert len(line["trace_id"]) == 32
    assert line["role"]
    assert line["duration_ms"] >= line["upstream_ms"] >= 0
    text = lane.access_log.read_text()
    for told in ("hunter2", "jane@", secret.rpartition(" ")[2]):
        assert told not in text


def test_tries_are_logged_and_the_trace_is_the_callers(lane: Lane, app: Upstream) -> None:
    app.on("/tries/logged", status(503), echo)
    app.on("/tries/lost-log", status(503))
    trace = "0af7651916cd43dd8448eb211c80319c"
    lane.fetch("GET", "/tries/lost-log", f"traceparent: 00-{trace}-b7ad6b7169203331-01")
    line = line_of(lane.access_log, "/tries/lost-log")
    assert (line["status"], line["flag"], line["trace_id"]) == (503, "URX", trace)
    assert line["attempts"] == 3
    assert [told.split()[:2] for told in line["tries"]] == [[f"127.0.0.1:{app.port}", "503"]] * 3
    app.requests.clear()


def test_a_sample_of_those_that_went_well_is_logged(lane: Lane) -> None:
    for _ in range(40):
        assert lane.fetch("GET", "/app/sampled").status == 200
    until(lambda: len(lines_of(lane.access_log, "/app/sampled")) >= 6, "some lines")
    assert len(lines_of(lane.access_log, "/app/sampled")) <= 34


def test_what_is_recorded_can_be_replayed_to_another_version(
    lane: Lane, backends: Backends, tmp_path: Path
) -> None:
    """Here, as it is of the same kind, and these lanes run."""
    app, second, flows = backends.app, backends.second, tmp_path / "x.flows"
    kind = "Content-Type: application/json"
    for path, before, after in (("/app/r1", b"1", b"1"), ("/app/r2", b'{"a":[1]}', b'{"a":[2]}')):
        app.on(path, status(200, kind, "Set-Cookie: id=hunter2", body=before))
        second.on(path, status(200, kind, "Set-Cookie: id=other", body=after))
    url = f"http://127.0.0.1:{lane.admin}/record"

    def calls() -> None:
        until(lambda: httpx.get(url, params={"format": "json"}).json()["recording"], "recording")
        secret = bearer(sub="jane@mpsa.mil")
        for method, target in (("GET", "r1?n=[1]"), ("POST", "r1"), ("GET", "r2")):
            assert lane.fetch(method, f"/app/{target}", secret).status == 200
        assert lane.fetch("GET", "/nowhere-at-all").status == 404
        until(lambda: flows.read_bytes().count(b"8:response;") >= 4, "four flows")
        os.kill(os.getpid(), signal.SIGINT)  # as Ctrl-C does

    caller = threading.Thread(target=calls)
    caller.start()
    said = hms("record", "--admin", f"127.0.0.1:{lane.admin}", "--direction", "outbound",
               "--out", flows)  # fmt: skip
    caller.join()
    assert (said.exit_code, said.stdout) == (0, f"4 requests in {flows}\n"), said.output
    assert b"hunter2" not in flows.read_bytes()
    app.requests.clear()

    to = f"http://127.0.0.1:{second.port}"
    replayed = hms("replay", flows, "--to", to, "-H", "Authorization: Bearer new")
    assert replayed.exit_code == 1, replayed.output
    assert "    body    $.a[0]: 1 → 2\n" in replayed.stdout
    assert f"2 requests compared with {to}: 1 the same, 1 different\n" in replayed.stdout
    assert "1 left out: the mesh itself answered them" in replayed.stdout
    assert "1 left out: their methods may change something" in replayed.stdout
    first = second.one("/app/r1")
    assert first.target == "/app/r1?n=[1]"
    assert first.header("authorization") == "Bearer new"
    assert first.header("x-policy-version"), "as the app would have got it"
    second.requests.clear()


def test_nothing_of_the_access_log_is_lost_on_sigterm_and_it_follows_a_rename(
    config: ConfigFile, app: Upstream, tmp_path: Path
) -> None:
    port = free_port()
    config.write(f"""
        listeners:
          - {{name: out, port: {port}, routes: [{{match: {{prefix: /}}, action: {{cluster: a}}}}]}}
        clusters: [{{name: a, endpoints: ["127.0.0.1:{app.port}"]}}]
        access_log: {{path: access.log, format: text, fields: [path, status]}}
        """)
    log = tmp_path / "access.log"
    with hms_sidecar("--config", config.path) as sidecar:
        sidecar.wait_listening(port)
        assert fetch(port, "GET", "/first").status == 200
        until(log.exists, "a log")
        until(lambda: "/first" in log.read_text(), "a line")
        os.replace(log, tmp_path / "access.log.1")  # noqa: PTH105 - as logrotate does
        for number in range(20):
            fetch(port, "GET", f"/{number}")
        assert sidecar.stop() == 0
    assert (tmp_path / "access.log.1").read_text() == "path=/first status=200\n"
    assert log.read_text() == "".join(f"path=/{number} status=200\n" for number in range(20))
    app.requests.clear()


def test_a_log_that_hangs_delays_no_request_and_no_stop(
    config: ConfigFile, app: Upstream, tmp_path: Path
) -> None:
    port = free_port()
    os.mkfifo(tmp_path / "access.log")  # nobody reads it: to open it waits for ever
    config.write(f"""
        listeners:
          - {{name: out, port: {port}, routes: [{{match: {{prefix: /}}, action: {{cluster: a}}}}]}}
        clusters: [{{name: a, endpoints: ["127.0.0.1:{app.port}"]}}]
        access_log: {{path: access.log}}
        """)
    with hms_sidecar("--config", config.path) as sidecar:
        sidecar.wait_listening(port)
        for number in range(20):
            assert fetch(port, "GET", f"/{number}").status == 200
        assert sidecar.stop() == 0
        assert "takes no lines" in sidecar.output
    app.requests.clear()
