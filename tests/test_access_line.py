"""The usual line of the access log: the same as the general one, and only where it is right."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.access_line import MAX_PATH, UsualLines, client_of, trace_id_of
from hms_addons.config.snapshot import Cluster
from hms_addons.errors import Fault, Flag
from hms_addons.exchange import Attempt
from hms_addons.http_message import Answer
from tests.fakes.exchange import make_exchange

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange

PARENT = "00-12345678901234567890123456789012-1234567890123456-01"
WALL = 1_800_000_000.25


class Kit:
    """Lines whose parts say how often they were made."""

    def __init__(self) -> None:
        self.made = 0
        self.lines = UsualLines(self.before, self.after)

    def before(self, exchange: Exchange, now: float, wall: float) -> str:
        self.made += 1
        return f',"method":"{exchange.method}"'

    def after(self, exchange: Exchange, now: float, wall: float) -> str:
        answer = exchange.answer
        return f',"status":{answer.status if answer else 0}'

    def line(self, exchange: Exchange, now: float = 1000.5, wall: float = WALL) -> Any:
        text = self.lines.line(exchange, now, wall)
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
    found = Kit().line(usual())
    assert list(found.items()) == [
        ("time", "2027-01-15T07:59:59.750Z"),
        ("method", "GET"),
        ("path", "/verify-id"),
        ("status", 200),
        ("request_id", "7f3c"),
        ("trace_id", "12345678901234567890123456789012"),
        ("duration_ms", 500.0),
        ("upstream_ms", 2.5),
        ("bytes_in", 3),
        ("bytes_out", 42),
    ]


def test_what_is_alike_is_made_once() -> None:
    kit = Kit()
    for n in range(5):
        assert kit.line(usual(target=f"/{n}"), 1000.5 + n, WALL + n)["path"] == f"/{n}"
    assert kit.made == 1
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
    assert kit.made == 8
    for n in range(2000):
        exchange = usual()
        exchange.endpoint = f"127.0.0.1:{n}"
        kit.line(exchange)
    assert len(kit.lines._known) <= 1024


def test_what_is_not_usual_is_left_to_others() -> None:
    kit = Kit()
    failed, unanswered, untried, tried = (usual() for _ in range(4))
    failed.fail(Fault.NO_ROUTE, "no")
    unanswered.answer = None
    untried.attempts.clear()
    tried.attempts.append(tried.attempts[0])
    for exchange in (failed, unanswered, untried, tried):
        assert kit.line(exchange) is None
    assert kit.made == 0


@given(path=st.text(max_size=3000), request_id=st.text(max_size=400))
def test_no_text_of_a_stranger_breaks_it(path: str, request_id: str) -> None:
    exchange = usual()
    exchange.path, exchange.request_id = path, request_id
    text = Kit().lines.line(exchange, 1000.5, WALL)
    assert text is not None
    assert text.isascii()
    assert "\n" not in text
    assert "\r" not in text
    found = json.loads(text)
    assert found.get("path", "") == (path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}…")
    assert len(found["request_id"]) <= 257


def test_the_trace_of_a_request() -> None:
    assert trace_id_of(usual()) == "12345678901234567890123456789012"
    made = usual(headers=[])
    assert trace_id_of(made) is None
    made.set_request_header(b"traceparent", PARENT.encode())
    assert trace_id_of(made) == "12345678901234567890123456789012"
    for value, told in ((b"", None), (b"none", None), (b"a-b", "b"), (b"00-" + b"x" * 99, 33)):
        made.head[b"traceparent"] = value
        found = trace_id_of(made)
        assert (len(found) if isinstance(told, int) and found else found) == told


def test_the_client_is_an_address_without_its_port() -> None:
    exchange = usual()
    assert client_of(exchange) == "127.0.0.1"
    exchange.downstream = None
    assert client_of(exchange) is None
