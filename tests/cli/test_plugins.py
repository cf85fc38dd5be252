from __future__ import annotations

import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from hms_addons.cli import app
from tests.integration.basics import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

PAGE = {
    "plugins": [{"name": "freeze", "source": "hms-plugin-freeze 1.0"}],
    "errors": [{"plugin": "freeze", "hook": "hms_respond", "count": 3}],
}
TIMES = {"seconds": 5.0, "times": [{"plugin": "freeze", "hook": "hms_respond", "mean_us": 7.5}]}


class AdminHandler(BaseHTTPRequestHandler):
    """Says PAGE on /plugins, and something else elsewhere."""

    pages: dict[str, bytes] = {  # noqa: RUF012 - a table
        "/plugins?format=json": json.dumps(PAGE).encode(),
        "/plugins?format=json&time=5s": json.dumps(PAGE | TIMES).encode(),
    }

    def do_GET(self) -> None:
        body = self.pages.get(self.path, b"[]")
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Quiet."""


class OtherHandler(AdminHandler):
    """A server that is no sidecar."""

    pages: dict[str, bytes] = {}  # noqa: RUF012 - a table


@pytest.fixture(params=[AdminHandler])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), request.param)
    thread = Thread(target=server.serve_forever)
    thread.start()
    yield f"127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def run(*arguments: str) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["plugins", *arguments], env={"HMS_ADMIN": ""})
    return done.exit_code, done.output


def test_a_running_sidecar_says_what_it_has(address: str) -> None:
    code, text = run("--admin", address)
    assert code == 0
    assert f"in the sidecar at {address}" in text
    assert ["freeze", "hms-plugin-freeze", "1.0"] in [line.split() for line in text.splitlines()]
    assert ["freeze", "hms_respond", "3"] in [line.split() for line in text.splitlines()]
    code, text = run("--admin", address, "--json")
    assert (code, json.loads(text)) == (0, {"sidecar": address} | PAGE)


def test_hooks_are_measured_where_that_is_wanted(address: str) -> None:
    code, text = run("--admin", address, "--time", "5s")
    assert code == 0
    assert "hooks, in 5s:" in text
    assert ["freeze", "hms_respond", "7.5"] in [line.split() for line in text.splitlines()]


@pytest.mark.parametrize("address", [OtherHandler], indirect=True)
def test_what_is_no_sidecar_is_told_from_one(address: str) -> None:
    code, text = run("--admin", address)
    assert code == 1
    assert "no sidecar's admin port" in text


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "no address:{}"])
def test_a_sidecar_that_was_asked_for_must_answer(address: str) -> None:
    code, text = run("--admin", address.format(free_port()))
    assert code == 1
    assert "no sidecar answers" in text


def test_without_one_it_tells_what_a_sidecar_would_have(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not by its name: `hms_addons.cli.plugins` is the command.
    command = sys.modules["hms_addons.cli.plugins"]
    monkeypatch.setattr(command, "DEFAULT_ADMIN", f"127.0.0.1:{free_port()}")
    code, text = run("--json")
    assert code == 0
    found = json.loads(text)
    assert found["sidecar"] is None
    assert found["plugins"][0]["name"] == "mtls"
    assert {"source": "built-in", "name": "rbac"} in found["plugins"]
    code, text = run()
    assert "one started here would have" in text
