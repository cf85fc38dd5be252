"""The built-in plugin `access_log`: what a line says, what it never says, and what it costs."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.access_line import UsualLines, UsualLog
from hms_addons.addons.access_log import (
    _MOST_KNOWN,
    AccessLog,
    _State,
    fields_of,
    line_of,
)
from hms_addons.config.snapshot import Cluster
from hms_addons.config.snapshot_access_log import DEFAULT_FIELDS, FIELDS
from hms_addons.config.snapshot_access_log import AccessLog as Spec
from hms_addons.errors import Fault, Flag
from hms_addons.exchange import Attempt, Principal
from hms_addons.http_message import Answer
from hms_addons.line_log import LineLog
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_snapshot
from tests.fakes.mesh import FakeMesh

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange

TRACE = "0af7651916cd43dd8448eb211c80319c"
ENDED, WALL = 1000.25, 1_800_000_000.75


def answered(status: int = 200, target: str = "/verify-id", **changes: Any) -> Exchange:
    """An exchange that was forwarded, begun at 1000 s."""
    exchange = make_exchange(target, **changes)
    exchange.cluster = Cluster(name="auth-svc-v2", service="auth-svc")
    exchange.endpoint = "127.0.0.1:9001"
    exchange.answer = Answer(status, b"", (), b"x")
    exchange.attempts.append(Attempt("127.0.0.1:9001", 1000.05, 1000.15, str(status)))
    exchange.bytes_out = 17
    return exchange


def state_of(**changes: Any) -> _State:
    spec = Spec(**changes)
    fields = fields_of(spec)
    return _State(make_snapshot(access_log=spec), spec, None, fields, None)


def json_line(exchange: Exchange, **changes: Any) -> str:
    return line_of(exchange, state_of(**changes), ENDED, WALL)


def line(exchange: Exchange, **changes: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(json_line(exchange, **changes))
    return found


def text_line(exchange: Exchange, **changes: Any) -> str:
    return line_of(exchange, state_of(as_json=False, **changes), ENDED, WALL)


# -- a line -------------------------------------------------------------------------------------


def test_a_line_says_what_happened() -> None:
    exchange = answered(
        headers=[("traceparent", f"00-{TRACE}-b7ad6b7169203331-00")],
        peer="spiffe://mpsa.mil/svc/claims",
    )
    exchange.peer = "spiffe://mpsa.mil/svc/claims"
    exchange.principal = Principal(subject="u-7", roles=("AUDITOR", "MANAGER"))
    exchange.bytes_in = 5
    assert line(exchange) == {
        "time": "2027-01-15T08:00:00.500Z",
        "direction": "inbound",
        "listener": "peers",
        "method": "GET",
        "path": "/verify-id",
        "status": 200,
        "request_id": "7f3c",
        "trace_id": TRACE,
        "client": "127.0.0.1",
        "caller": "spiffe://mpsa.mil/svc/claims",
        "role": "AUDITOR,MANAGER",
        "service": "auth-svc",
        "route": "to-auth-svc",
        "cluster": "auth-svc-v2",
        "endpoint": "127.0.0.1:9001",
        "attempts": 1,
        "duration_ms": 250.0,
        "upstream_ms": 100.0,
        "bytes_in": 5,
        "bytes_out": 17,
    }


def test_a_line_says_why_it_went_wrong_and_what_was_tried() -> None:
    exchange = answered(503)
    exchange.attempts.append(Attempt("127.0.0.1:9002", 1000.16, 1000.2, "reset"))
    exchange.answer = None
    exchange.fail(Fault.UPSTREAM_RESET, "cluster auth-svc-v2: it hung up")
    found = line(exchange)
    assert (found["status"], found["flag"]) == (503, "UC")
    assert found["detail"] == "cluster auth-svc-v2: it hung up"
    assert found["attempts"] == 2
    assert found["tries"] == ["127.0.0.1:9001 503 100.0ms", "127.0.0.1:9002 reset 40.0ms"]
    last = answered(503)
    last.flag = Flag.URX
    assert line(last)["flag"] == "URX"


def test_a_request_that_nothing_is_known_of_has_a_line_too() -> None:
    exchange = make_exchange()
    exchange.route = None
    exchange.path = ""
    found = line(exchange)
    assert found["status"] == 0
    assert not {"flag", "detail", "route", "cluster", "path", "role", "caller"} & set(found)


def test_a_line_as_text() -> None:
    exchange = answered(404)
    exchange.path = '/a path="x"'
    exchange.fail(Fault.NO_ROUTE, "no route\nmatches")
    assert text_line(exchange) == (
        r"time=2027-01-15T08:00:00.500Z direction=inbound listener=peers client=127.0.0.1 method=GET "
        r'path="/a path=\"x\"" status=404 flag=NR service=auth-svc route=to-auth-svc '
        r"cluster=auth-svc-v2 endpoint=127.0.0.1:9001 attempts=1 "
        r'detail="no route\nmatches" request_id=7f3c '
        r"duration_ms=250.000 upstream_ms=100.000 bytes_in=0 bytes_out=17"
    )


def test_the_fields_and_their_order_may_be_chosen() -> None:
    assert list(line(answered(), fields=("status", "method"))) == ["status", "method"]
    assert text_line(answered(), fields=("status", "method")) == "status=200 method=GET"


def test_every_field_there_is_can_be_written() -> None:
    exchange = answered(200, "/verify-id?a=1")
    exchange.attempts *= 2
    exchange.principal = Principal(subject="u-7")
    assert line(exchange, fields=FIELDS)["subject"] == "u-7"
    assert "subject=u-7" in text_line(exchange, fields=FIELDS)
    assert 'tries="127.0.0.1:9001 200 100.0ms, 127' in text_line(exchange, fields=FIELDS)
    assert set(DEFAULT_FIELDS) == set(FIELDS) - {"query", "subject"}


@given(
    st.text(),
    st.text(),
    st.none() | st.binary(max_size=60),
    st.sampled_from([200, 204, 404, 777]),
    st.lists(st.sampled_from(["AUDITOR", "a b"]), max_size=2),
    st.sampled_from([None, Flag.URX]),
    st.floats(0, 1e6),
)
def test_the_quick_way_to_a_line_leads_to_the_same_line(
    path: str,
    request_id: str,
    trace: bytes | None,
    status: int,
    roles: list[str],
    flag: Flag | None,
    seconds: float,
) -> None:
    exchange = answered(status)
    exchange.path, exchange.request_id, exchange.flag = path, request_id, flag
    exchange.principal = Principal(roles=tuple(roles))
    exchange.started -= seconds
    exchange.traceparent = trace
    clock = FakeClock(monotonic=ENDED, wall=WALL)
    log = LineLog("/dev/null", clock, form=UsualLines(clock).lines)
    assert UsualLog(exchange.snapshot, log, clock.monotonic).take(exchange)
    log._make_lines()
    assert log._lines == [json_line(exchange)]


def test_what_is_remembered_of_requests_is_bounded_and_right() -> None:
    state = state_of()
    for number in range(2 * _MOST_KNOWN + 10):
        exchange = answered(200 + number % 100, method=f"M{number}")
        found = json.loads(line_of(exchange, state, ENDED, WALL))
        assert (found["method"], found["status"]) == (f"M{number}", 200 + number % 100)
    again = json.loads(line_of(answered(204), state, ENDED, WALL))
    assert (again["method"], again["status"]) == ("GET", 204)
    runs = [get for prefix, get in state.fields if prefix is None]
    assert len(runs) == 2
    assert all(len(run._known) <= _MOST_KNOWN for run in runs)  # type: ignore[attr-defined] # runs


# -- secrets ------------------------------------------------------------------------------------


def test_no_token_no_cookie_and_no_query_is_in_a_line() -> None:
    exchange = answered(
        200,
        "/verify-id?password=hunter2",
        headers=[("Authorization", "Bearer hunter2"), ("Cookie", "session=hunter2")],
    )
    names = ("authorization", "cookie", "x-api-key", "referer", "x-absent")
    exchange.head[b"x-api-key"] = b"hunter2"
    exchange.head[b"referer"] = b"http://a/?token=hunter2"
    for text in (
        json.dumps(line(exchange, headers=names)),
        text_line(exchange, headers=names),
        json.dumps(line(exchange)),
    ):
        assert "hunter2" not in text
    assert line(exchange, headers=names)["headers"] == {
        "authorization": "[redacted]",
        "cookie": "[redacted]",
        "x-api-key": "[redacted]",
        "referer": "http://a/?token=[redacted]",
    }
    assert "header.cookie=[redacted]" in text_line(exchange, headers=names)


def test_a_header_that_is_no_secret_is_written_as_it_came() -> None:
    exchange = answered(headers=[("X-Tier", "gold é"), ("X-Long", "x" * 1000)])
    found = line(exchange, headers=("x-tier", "x-long"))["headers"]
    assert found == {"x-tier": "gold é", "x-long": "x" * 256 + "…"}


@pytest.mark.parametrize(
    ("query", "written"),
    [
        ("a=1&b=2", "a=1&b=2"),
        ("access_token=s3&a=1", "access_token=[redacted]&a=1"),
        ("a=1&user_password=s3", "a=1&user_password=[redacted]"),
        ("API_KEY=s3;sig=s3&x", "API_KEY=[redacted];sig=[redacted]&x"),
        ("code=s3", "code=[redacted]"),
    ],
)
def test_a_query_that_is_asked_for_comes_without_secrets(query: str, written: str) -> None:
    exchange = answered(200, f"/verify-id?{query}")
    assert line(exchange, fields=("query",)) == {"query": written}


@given(st.text(), st.text(), st.binary(max_size=200))
def test_whatever_a_caller_sends_makes_one_line_that_can_be_read(
    path: str, request_id: str, header: bytes
) -> None:
    exchange = answered()
    exchange.path = f"/{path}"
    exchange.request_id = request_id
    exchange.head[b"x-tier"] = header
    exchange.traceparent = header
    text = json_line(exchange, headers=("x-tier",))
    assert json.loads(text)["path"] in {f"/{path}", f"/{path}"[:1024] + "…"}
    for one in (text, text_line(exchange, headers=("x-tier",))):
        assert "\n" not in one
        assert one.isprintable()
        assert len(one) < 20_000


# -- the plugin ---------------------------------------------------------------------------------


class Bench:
    """The plugin under one configuration."""

    def __init__(self, **spec: Any) -> None:
        self.clock = FakeClock(monotonic=ENDED, wall=WALL)
        self.plugin = AccessLog(clock=self.clock, rng=random.Random(1))
        self.snapshot = self.configure(Spec(**spec))

    def configure(self, spec: Spec | None) -> Snapshot:
        snapshot = make_snapshot(access_log=spec)
        self.plugin.hms_configure(snapshot)
        self.snapshot = snapshot
        return snapshot

    def done(self, status: int = 200, snapshot: Snapshot | None = None) -> None:
        self.plugin.hms_complete(answered(status, snapshot=snapshot or self.snapshot))


def statuses(path: Path) -> list[int]:
    return [json.loads(text)["status"] for text in path.read_text().splitlines()]


async def test_each_request_has_a_line(tmp_path: Path) -> None:
    bench = Bench(path=str(tmp_path / "log"))
    mesh = FakeMesh()
    bench.plugin.hms_startup(mesh.mesh)
    for status in (200, 404, 200):
        bench.done(status)
    await bench.plugin.hms_shutdown()
    assert statuses(tmp_path / "log") == [200, 404, 200]
    assert mesh.shown("access_log") == {
        "path": str(tmp_path / "log"),
        "written": 3,
        "waiting_chars": 0,
        "dropped": 0,
        "failing": False,
    }
    assert str(tmp_path / "log") in repr(bench.plugin)


async def test_nothing_is_written_and_the_hook_is_left_out_where_nobody_asks() -> None:
    bench = Bench()
    mesh = FakeMesh()
    bench.plugin.hms_startup(mesh.mesh)
    snapshot = bench.configure(None)
    assert bench.plugin.hms_idle_hooks(snapshot) == ("hms_complete",)
    bench.done()
    assert mesh.shown("access_log") is None
    assert bench.clock.pending == 0
    assert bench.plugin.hms_idle_hooks(make_snapshot(access_log=Spec())) == ()


async def test_a_sample_is_a_share_but_for_what_went_wrong(tmp_path: Path) -> None:
    bench = Bench(path=str(tmp_path / "log"), sample=0.1)
    for _ in range(2000):
        bench.done(200)
    for _ in range(20):
        bench.done(404)
    flagged = answered(200, snapshot=bench.snapshot)
    flagged.fail(Fault.UPSTREAM_RESET, "cut short")
    bench.plugin.hms_complete(flagged)
    await bench.plugin.hms_shutdown()
    found = statuses(tmp_path / "log")
    assert found.count(404) == 20
    assert 150 < found.count(200) < 250


async def test_a_sample_of_none_is_errors_alone(tmp_path: Path) -> None:
    bench = Bench(path=str(tmp_path / "log"), sample=0.0)
    for status in (200, 500, 302, 400):
        bench.done(status)
    await bench.plugin.hms_shutdown()
    assert statuses(tmp_path / "log") == [500, 400]


async def test_a_request_is_logged_as_the_configuration_that_it_began_with_says(
    tmp_path: Path,
) -> None:
    bench = Bench(path=str(tmp_path / "old"), fields=("status",))
    old = bench.snapshot
    new = bench.configure(Spec(path=str(tmp_path / "new"), fields=("status", "method")))
    bench.done(201, old)
    bench.done(202, new)
    last = bench.configure(Spec(path=str(tmp_path / "new"), fields=("method",), as_json=False))
    bench.done(203, last)
    bench.plugin.hms_configure(new)  # another plugin has refused it: back on the one before
    bench.done(204, new)
    await bench.plugin.hms_shutdown()
    assert (tmp_path / "old").read_text() == '{"status":201}\n'
    assert (tmp_path / "new").read_text() == (
        '{"status":202,"method":"GET"}\nmethod=GET\n{"status":204,"method":"GET"}\n'
    )
    assert len(bench.plugin._tasks) == 0
