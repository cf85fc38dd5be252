"""What is kept of a traced request: plain, bounded values."""

from __future__ import annotations

from hms_addons.config.snapshot import Direction
from hms_addons.errors import Fault, Flag
from hms_addons.http_message import Answer
from hms_addons.spans.record import MAX_PATH, MAX_TEXT, record_of
from hms_addons.trace_context import Trace
from tests.fakes.exchange import make_exchange, make_listener


def test_of_a_request_that_was_answered() -> None:
    exchange = make_exchange("/verify-id?token=hunter2", peer="spiffe://mpsa.mil/svc/claims-svc")
    exchange.peer = "spiffe://mpsa.mil/svc/claims-svc"
    exchange.answer = Answer(200, b"OK", ())
    exchange.endpoint = "127.0.0.1:9001"
    exchange.flag = Flag.URX
    exchange.set_request_header(b"X-Policy-Version", b"1.3.4")
    trace = Trace()
    record = record_of(exchange, trace, 1000.5, 1_800_000_000.0)
    assert record.trace is trace
    assert (record.started, record.ended, record.epoch) == (1000.0, 1000.5, 1_799_998_999.5)
    assert record.inbound
    assert (record.method, record.path, record.scheme) == ("GET", "/verify-id", "http")
    assert (record.host, record.client) == ("auth-svc.svc", "127.0.0.1")
    assert record.caller == "spiffe://mpsa.mil/svc/claims-svc"
    assert (record.status, record.flag, record.detail) == (200, "URX", None)
    assert (record.route, record.service) == ("to-auth-svc", "auth-svc")
    assert (record.endpoint, record.policy_version) == ("127.0.0.1:9001", "1.3.4")
    assert record.request_id == "7f3c"
    assert record.spans == 1
    trace.begin("127.0.0.1:9001", "auth-svc", 1000.0, hedged=False)
    assert record.spans == 2
    assert "hunter2" not in repr(record)


def test_of_one_that_the_mesh_has_refused() -> None:
    listener = make_listener(direction=Direction.OUTBOUND)
    exchange = make_exchange(listener=listener)
    exchange.fail(Fault.NO_ROUTE, "there is no such service")
    record = record_of(exchange, Trace(), 1001.0, 1_800_000_000.0)
    assert not record.inbound
    assert (record.status, record.flag) == (404, "NR")
    assert record.detail == "there is no such service"


def test_nothing_that_strangers_send_makes_it_large() -> None:
    exchange = make_exchange("/" + "a" * 5000, method="M" * 5000, headers=[("Host", "h" * 5000)])
    exchange.head[b"host"] = b"h" * 5000
    exchange.request_id = "r" * 5000
    exchange.set_request_header(b"X-Policy-Version", b"v" * 5000)
    exchange.deny(403, Flag.RBAC, "d" * 5000)
    record = record_of(exchange, Trace(), 1001.0, 1_800_000_000.0)
    lengths = {len(value) for value in record if isinstance(value, str) and len(value) > 100}
    assert lengths == {MAX_TEXT, MAX_PATH}
