from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hms_addons.up.run_state import RunState
from tests.fakes.cli import help_of, hms
from tests.integration.basics import free_port
from tests.integration.servers import Upstream, status
from tests.replay.kit import file_of, flow

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def server() -> Iterator[Upstream]:
    with Upstream() as upstream:
        kind = "Content-Type: application/json"
        upstream.on("/same", status(200, kind, body=b'{"a":1}'))
        upstream.on("/other", status(500, kind, body=b'{"a":2}'))
        yield upstream


def test_replay_tells_differences_and_its_exit_code(server: Upstream, tmp_path: Path) -> None:
    path = tmp_path / "x.flows"
    path.write_bytes(file_of(flow(path=b"/same")))
    to = f"http://127.0.0.1:{server.port}"
    good = hms("replay", path, "--to", to, "-H", "X-Tier: gold")
    assert (good.exit_code, "1 the same" in good.stdout) == (0, True), good.output
    assert server.one("/same").header("x-tier") == "gold"
    path.write_bytes(file_of(flow(path=b"/same"), flow(path=b"/other")))
    other = hms("replay", path, "--to", to)
    assert other.exit_code == 1
    assert "    status  200 → 500\n    body    $.a: 1 → 2\n" in other.stdout
    path.write_bytes(path.read_bytes()[:-7])
    cut = hms("replay", path, "--to", to, "--json")
    document = json.loads(cut.stdout)
    assert (cut.exit_code, document["same"], document["cut"]["flows"]) == (2, 1, 1)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--to", "nowhere:x"), "is no address"),
        (("--to", "a:1", "-H", "x"), "--header: 'x' is no 'Name: value'"),
        (("--to", "a:1", "-H", "x: a\nb"), "is no 'Name: value'"),
        (("--to", "a:1", "-H", "x: ☃"), "characters that no header can have"),
        (("--to", "a:1", "--query", "x"), "--query: 'x' is no NAME=VALUE"),
        (("--to", "a:1", "--ignore-body", "a..b"), "--ignore-body: 'a..b' is no path"),
        (("--to", "a:1", "--timeout", "5"), "--timeout: expected a duration"),
        (("--to", "a:1", "--timeout", "0s"), "--timeout: more than 0"),
        (("--to", "a:1"), "cannot read"),
    ],
)
def test_replay_tells_what_is_wrong(words: tuple[str, ...], why: str, tmp_path: Path) -> None:
    result = hms("replay", tmp_path / "x.flows", *words)
    assert result.exit_code == 2
    assert why in result.stderr


def test_what_is_no_flow_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text("services: {}\n")
    result = hms("replay", tmp_path / "mesh.yaml", "--to", "http://127.0.0.1:1")
    assert (result.exit_code, "no flow file" in result.stderr) == (2, True)


@pytest.mark.parametrize(
    ("words", "why", "code"),
    [
        (("--for", "5"), "--for: expected a duration", 2),
        (("--max-body", "x"), "--max-body: expected a size", 2),
        (("--max-size", "x"), "--max-size: expected a size", 2),
        (("--direction", "up"), "--direction: one of", 2),
        (("a-svc", "--admin", "127.0.0.1:1"), "not both", 2),
        (("a-svc",), "--admin HOST:PORT records a sidecar", 1),
    ],
)
def test_record_tells_what_is_wrong(
    words: tuple[str, ...], why: str, code: int, tmp_path: Path
) -> None:
    out = tmp_path / "x.flows"
    result = hms("record", *words, "--file", tmp_path / "mesh.yaml", "--out", out)
    assert (result.exit_code, why in result.stderr) == (code, True), result.stderr
    assert not out.exists()


def test_record_leaves_no_file_where_there_is_no_sidecar(tmp_path: Path) -> None:
    out = tmp_path / "x.flows"
    result = hms("record", "--admin", f"127.0.0.1:{free_port()}", "--out", out)
    assert (result.exit_code, "no sidecar answers" in result.stderr) == (1, True)
    assert not out.exists()
    out.write_bytes(b"precious")
    again = hms("record", "--admin", f"127.0.0.1:{free_port()}", "--out", out, "--force")
    assert (again.exit_code, out.read_bytes()) == (1, b"precious")


def test_what_has_no_sidecar_has_nothing_to_record(tmp_path: Path) -> None:
    state = RunState(tmp_path / "mesh.yaml")
    state.take()
    one = {"name": "hms-gov-1", "group": "hms-gov", "service": "hms-gov", "admin": None}
    state.tell({"instances": [one]})
    try:
        for name, why in (
            ("hms-gov", "hms-gov has no sidecar"),
            ("hms-gvo", "did you mean hms-gov"),
        ):
            wrong = hms("record", name, "--file", state.file, "--out", tmp_path / "x.flows")
            assert (wrong.exit_code, why in wrong.stderr) == (1, True), wrong.stderr
    finally:
        state.release()


def test_help_has_examples() -> None:
    assert "hms record claims-svc --for 30s --out claims.flows" in help_of("record")
    assert "hms replay claims.flows --to http://127.0.0.1:9002" in help_of("replay")
