"""The usual line of the access log: the same as the general one, and only where it is right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.access_line import (
    MAX_PATH,
    UsualLines,
    UsualLog,
    client_of,
    thousandths,
    trace_id_of,
)
from hms_addons.config.snapshot import Cluster
from hms_addons.errors import Fault, Flag
from hms_addons.exchange import Attempt
from hms_addons.http_message import Answer
from hms_addons.line_log import LineLog
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_snapshot

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange

PARENT = "00-12345678901234567890123456789012-1234567890123456-01"
WALL = 1_800_000_000.25


class Kit:
    """A log that stays in memory, and tells of what its lines were made."""

    def __init__(self) -> None:
        self.clock = FakeClock(monotonic=1000.5, wall=WALL)
        self.lines = UsualLines(self.clock)
        self.log = self.empty_log()

    def empty_log(self) -> LineLog:
        return LineLog("/dev/null", self.clock, form=self.lines.lines)

    def text(self, exchange: Exchange) -> str | None:
        self.log = self.empty_log()
        if not UsualLog(exchange.snapshot, self.log, self.clock.monotonic).take(exchange):
            assert not self.log._entries
            return None
        self.log._make_lines()
        return self.log._lines.pop()

    def line(self, exchange: Exchange) -> Any:
        text = self.text(exchange)
        return None if text is None else json.loads(text)


def usual(**changes: Any) -> Exchange:
    exchange = make_exchange(**{"headers": [("traceparent", PARENT)], **changes})
    exchange.cluster = Cluster(name="auth-svc", service="auth-svc")
    exchange.answer = Answer(200, b"OK", ())
    exchange.endpoint = "127.0.0.1:9001"
    exchange.attempts.append(Attempt("127.0.0.1:9001", 1000.0, 1000.0025, "200"))
    exchange.bytes_in, exchange.bytes_out = 3, 42
    return exchange


def test_its_members_in_their_order() -> None:
    exchange = usual()
    exchange.peer = "spiffe://mpsa.mil/svc/claims-svc"
    exchange.principal = exchange.principal._replace(roles=("AUDITOR", "MANAGER"))
    exchange.flag = Flag.FB
    assert list(Kit().line(exchange).items()) == [
        ("time", "2027-01-15T07:59:59.750Z"),
        ("direction", "inbound"),
        ("listener", "peers"),
        ("client", "127.0.0.1"),
        ("caller", "spiffe://mpsa.mil/svc/claims-svc"),
        ("role", "AUDITOR,MANAGER"),
        ("method", "GET"),
        ("path", "/verify-id"),
        ("status", 200),
        ("flag", "FB"),
        ("service", "auth-svc"),
        ("route", "to-auth-svc"),
        ("cluster", "auth-svc"),
        ("endpoint", "127.0.0.1:9001"),
        ("attempts", 1),
        ("request_id", "7f3c"),
        ("trace_id", "12345678901234567890123456789012"),
        ("duration_ms", 500.0),
        ("upstream_ms", 2.5),
        ("bytes_in", 3),
        ("bytes_out", 42),
    ]


def test_what_is_not_known_is_left_out() -> None:
    exchange = usual(headers=[])
    exchange.path, exchange.route, exchange.cluster = "", None, None
    exchange.endpoint = exchange.downstream = None
    found = Kit().line(exchange)
    assert not {"path", "route", "service", "cluster", "endpoint", "client", "trace_id"} & set(
        found
    )
    assert found["status"] == 200


def test_what_is_alike_is_made_once() -> None:
    kit = Kit()
    for n in range(5):
        assert kit.line(usual(target=f"/{n}"))["path"] == f"/{n}"
    assert len(kit.lines._known) == 1
    different = [usual() for _ in range(7)]
    different[0].peer = "spiffe://mpsa.mil/svc/claims-svc"
    different[1].answer = Answer(404, b"", ())
    different[2].flag = Flag.FB
    different[3].endpoint = "127.0.0.1:9002"
    different[4].cluster = None
    different[5].route = None
    different[6].principal = different[6].principal._replace(roles=("AUDITOR",))
    for exchange in different:
        kit.line(exchange)
    assert len(kit.lines._known) == 8
    for n in range(2000):
        exchange = usual()
        exchange.endpoint = f"127.0.0.1:{n}"
        assert kit.line(exchange)["endpoint"] == f"127.0.0.1:{n}"
    assert len(kit.lines._known) <= 1024


def test_requests_are_noted_as_they_were_when_they_ended() -> None:
    kit = Kit()
    log = kit.log
    for n in range(3):
        exchange = usual(target=f"/{n}")
        assert UsualLog(exchange.snapshot, log, kit.clock.monotonic).take(exchange)
        exchange.path, exchange.request_id = "/later", "later"
        kit.clock.tick(0.03)  # sooner than the lines are handed over
    log.write("a line that is made already")
    log._make_lines()
    *lines, last = log._lines
    found = [json.loads(line) for line in lines]
    assert [line["path"] for line in found] == ["/0", "/1", "/2"]
    assert [line["duration_ms"] for line in found] == [500.0, 530.0, 560.0]
    assert {line["time"] for line in found} == {"2027-01-15T07:59:59.750Z"}
    assert last == "a line that is made already"


def test_requests_of_another_configuration_are_left_to_others() -> None:
    kit = Kit()
    assert not UsualLog(make_snapshot(), kit.log, kit.clock.monotonic).take(usual())
    assert not kit.log._entries


def test_what_is_not_usual_is_left_to_others() -> None:
    kit = Kit()
    failed, unanswered, untried, tried = (usual() for _ in range(4))
    failed.fail(Fault.NO_ROUTE, "no")
    unanswered.answer = None
    untried.attempts.clear()
    tried.attempts.append(tried.attempts[0])
    for exchange in (failed, unanswered, untried, tried):
        assert kit.line(exchange) is None


@given(path=st.text(max_size=3000), request_id=st.text(max_size=400))
def test_no_text_of_a_stranger_breaks_it(path: str, request_id: str) -> None:
    exchange = usual()
    exchange.path, exchange.request_id = path, request_id
    text = Kit().text(exchange)
    assert text is not None
    assert text.isascii()
    assert "\n" not in text
    assert "\r" not in text
    found = json.loads(text)
    assert found.get("path", "") == (path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}…")
    assert len(found["request_id"]) <= 257


@pytest.mark.parametrize(
    ("traceparent", "told"),
    [
        (None, None),
        (PARENT.encode(), "12345678901234567890123456789012"),
        (b"", None),
        (b"none", None),
        (b"a-b", "b"),
        (b"00-" + b"x" * 99, "x" * 32 + "…"),
    ],
)
def test_the_trace_of_a_request(traceparent: bytes | None, told: str | None) -> None:
    assert trace_id_of(traceparent) == told


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.000"),
        (0.0004, "0.000"),
        (0.0006, "0.001"),
        (0.25, "0.250"),
        (1.0, "1.000"),
        (12.3456, "12.346"),
        (1e9, "1000000000.000"),
    ],
)
def test_three_digits_after_the_point(value: float, text: str) -> None:
    assert thousandths(value) == text


@given(st.floats(0, 1e7))
def test_it_is_the_number_but_for_what_is_rounded(value: float) -> None:
    assert float(thousandths(value)) == pytest.approx(value, abs=0.00051)


def test_the_client_is_an_address_without_its_port() -> None:
    exchange = usual()
    assert client_of(exchange.downstream) == "127.0.0.1"
    assert client_of(None) is None
