"""An ordinary mitmproxy script beside the mesh: what it edits, kills, answers and breaks."""

from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.integration.basics import free_port, until
from tests.integration.clients import Connection, fetch
from tests.integration.mitm_kit import App, MeshFiles, mitm, read_flows

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from mitmproxy.http import HTTPFlow

    from tests.integration.clients import Response
    from tests.integration.processes import Program

MINE = """
from mitmproxy import ctx, http

VERSION = "first"


def load(loader):
    loader.add_option("greeting", str, "hello", "What answers carry.")


def request(flow):
    want = flow.request.headers.get("x-want")
    if want == "edit":
        flow.request.path = "/plain/edited?by=script"
        flow.request.headers["x-edited"] = "yes"
        flow.request.content = b"other content"
    elif want == "forge":
        flow.request.headers["x-caller-role"] = "ADMIRAL"
        flow.request.path = "/verify-id/no"
    elif want == "kill":
        flow.kill()
    elif want == "answer":
        flow.response = http.Response.make(418, b"from the script", {"X-Kind": "teapot"})
    elif want == "raise":
        raise RuntimeError("the script is broken")


def response(flow):
    if flow.request.headers.get("x-want") == "kill answer":
        flow.kill()
    flow.response.headers["x-mine"] = f"{VERSION} {ctx.options.greeting}"
    if flow.request.headers.get("x-want") == "edit answer":
        flow.response.status_code = 202
        flow.response.text = "the script's words"
"""


class Desk(NamedTuple):
    app: App
    files: MeshFiles
    program: Program
    script: Path
    saved: Path

    def call(self, want: str = "", path: str = "/plain/x") -> Response:
        return fetch(self.files.out, "POST", path, f"X-Want: {want}", body=b"content")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("scripts")
    script, saved = folder / "mine.py", folder / "saved.flows"
    script.write_text(dedent(MINE))
    with App() as app:
        files = MeshFiles(folder, app)
        config = files.write("mesh.yaml", files.outbound())
        options = ("--set", "greeting=good day", "-w", str(saved))
        with mitm("mitmdump", folder, config, *options, scripts=[script]) as program:
            yield Desk(app, files, program, script, saved)
            assert program.stop() == 0


@pytest.fixture
def desk(running: Desk) -> Desk:
    running.app.requests.clear()
    return running


def test_its_edits_of_a_request_are_what_is_sent(desk: Desk) -> None:
    assert desk.call("edit").status == 200
    seen = desk.app.last
    assert (seen.target, seen.body) == ("/plain/edited?by=script", b"other content")
    assert seen.header("x-edited") == "yes"
    assert seen.header("content-length") == "13"


def test_the_mesh_judges_what_it_has_edited(desk: Desk) -> None:
    answer = desk.call("forge")
    assert (answer.status, answer.flag) == (403, "RBAC")
    assert not desk.app.seen


def test_its_edits_of_an_answer_reach_the_caller(desk: Desk) -> None:
    answer = desk.call("edit answer")
    assert (answer.status, answer.body) == (202, b"the script's words")
    assert answer.header("x-mine") == "first good day"


def test_it_sees_the_meshs_own_answers_too(desk: Desk) -> None:
    answer = desk.call(path="/nowhere")
    assert (answer.status, answer.flag) == (404, "NR")
    assert answer.header("x-mine") == "first good day"


@pytest.mark.parametrize(("want", "sent"), [("kill", 0), ("kill answer", 1)])
def test_it_kills_a_flow(desk: Desk, want: str, sent: int) -> None:
    with Connection(desk.files.out) as connection:
        connection.request("GET", "/plain/x", f"X-Want: {want}")
        assert connection.ended
    assert len(desk.app.seen) == sent


def test_it_answers_itself(desk: Desk) -> None:
    answer = desk.call("answer")
    assert (answer.status, answer.body) == (418, b"from the script")
    assert answer.header("x-kind") == "teapot"
    assert not desk.app.seen


def test_its_exception_is_logged_and_the_mesh_still_decides(desk: Desk) -> None:
    assert desk.call("raise").status == 200
    desk.program.wait_for("the script is broken")
    answer = desk.call("raise", "/verify-id/no")
    assert (answer.status, answer.flag) == (403, "RBAC")


def test_it_is_reloaded_when_its_file_changes(desk: Desk) -> None:
    desk.script.write_text(MINE.replace('"first"', '"second"'))
    until(lambda: desk.call().header("x-mine") == "second good day", "the second script")
    desk.script.write_text("def request(flow")
    desk.program.wait_for("SyntaxError")
    assert desk.call().status == 200
    desk.script.write_text(MINE)
    until(lambda: desk.call().header("x-mine") == "first good day", "the first script again")


def test_flows_are_written_to_a_file_and_read_back(desk: Desk, tmp_path: Path) -> None:
    assert desk.call(path="/plain/saved").status == 200

    def found() -> list[dict[str, object]]:
        flows = read_flows(desk.saved.read_bytes())
        return [flow.metadata["hms"] for flow in flows if flow.request.path == "/plain/saved"]

    (saved,) = until(found, "the saved flow")
    assert (saved["listener"], saved["cluster"]) == ("out", "plain")
    files = MeshFiles(tmp_path, desk.app)
    config = files.write("mesh.yaml", files.outbound())
    with mitm("mitmdump", tmp_path, config, "-r", str(desk.saved), ready=None) as reader:
        reader.wait_for("/plain/saved")


def test_what_streams_is_saved_once_it_is_over_whole_or_cut(desk: Desk) -> None:
    with Connection(desk.files.out) as connection:
        assert len(connection.exchange("GET", "/plain/big").body) == 3 << 19
        connection.request("GET", "/plain/cut")
        assert connection.head().status == 200
        with pytest.raises((EOFError, ConnectionError)):
            connection.read_exactly(3_000_000)

    def found() -> list[HTTPFlow]:
        flows = [
            flow
            for flow in read_flows(desk.saved.read_bytes())
            if flow.request.path in {"/plain/big", "/plain/cut"}
        ]
        return flows if len(flows) == 2 else []

    whole, cut = until(found, "both flows")
    assert whole.response is not None
    assert cut.response is not None
    assert whole.error is None
    assert whole.response.timestamp_end is not None
    assert (whole.response.headers["x-mine"], whole.response.raw_content) == (
        "first good day",
        None,
    ), "its `response` has been told"
    assert cut.error is not None
    assert "cut short" in cut.error.msg
    assert cut.response.timestamp_end is None
    assert "x-mine" not in cut.response.headers


def test_a_regular_and_an_upstream_proxy_beside_the_mesh_go_through_it(
    desk: Desk, tmp_path: Path
) -> None:
    """Neither is an open proxy: what no route takes is refused, also where the host is real."""
    regular, chained = free_port(), free_port()
    files = MeshFiles(tmp_path, desk.app)
    config = files.write("mesh.yaml", files.outbound())
    modes = (
        *("--mode", f"regular@127.0.0.1:{regular}"),
        *("--mode", f"upstream:http://127.0.0.1:{regular}@127.0.0.1:{chained}"),
    )
    app = f"127.0.0.1:{desk.app.port}"
    with mitm("mitmdump", tmp_path, config, *modes) as program:
        program.wait_listening(regular, chained, files.out)
        assert fetch(files.out, "GET", "/plain/mesh").status == 200
        for port in (regular, chained):
            assert (
                fetch(port, "GET", "http://any.test/plain/proxied", host="any.test").status == 200
            )
            assert desk.app.last.header("host") == "any.test"
            desk.app.requests.clear()
            refused = fetch(port, "GET", f"http://{app}/beside", host=app)
            assert (refused.status, refused.flag) == (404, "NR")
            assert not desk.app.seen
        assert program.stop() == 0
