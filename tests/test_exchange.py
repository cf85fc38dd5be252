from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mitmproxy.test.tflow import tflow, tserver_conn

from hms_addons.config.snapshot import Direction
from hms_addons.errors import ExchangeFailed, Fault, Flag
from hms_addons.exchange import ANONYMOUS, Draft, Exchange, Permit, Principal
from hms_addons.http_message import Answer
from hms_addons.trace_context import Trace
from tests.fakes.exchange import make_exchange, make_listener, make_snapshot, sent

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from hms_addons.http_message import Fields


def test_it_begins_unknown_unpermitted_and_unharmed() -> None:
    exchange = make_exchange("/verify-id?case=7", method="POST")
    assert (exchange.method, exchange.path, exchange.query) == ("POST", "/verify-id", "case=7")
    assert exchange.principal is ANONYMOUS
    assert exchange.permit is None
    assert exchange.failure is None
    assert exchange.attempts == []
    exchange.raise_failure()


def test_exchanges_share_no_memory() -> None:
    one, other = make_exchange(), make_exchange()
    one.notes["rbac"] = "seen"
    one.attempts.append(("10.0.0.1:80", 1.0, 2.0, "503"))  # type: ignore[arg-type]
    one.head[b"x-a"] = b"1"
    assert other.notes == {}
    assert other.attempts == []
    assert b"x-a" not in other.head


def test_deny_refuses_with_what_the_plugin_says() -> None:
    exchange = make_exchange()
    exchange.deny(403, Flag.RBAC, "claims-svc may not POST here")
    failure = exchange.failure
    assert failure is not None
    assert (failure.status, failure.flag, failure.title) == (403, Flag.RBAC, "Request refused")
    assert failure.detail == "claims-svc may not POST here"
    assert failure.headers == ()
    assert not failure.close


def test_deny_takes_a_flag_by_its_text() -> None:
    exchange = make_exchange()
    exchange.deny(429, "RL", "slow down")
    assert exchange.failure is not None
    assert exchange.failure.flag is Flag.RL


@pytest.mark.parametrize("status", [-1, 0, 101, 200, 204, 302, 399, 600])
def test_a_status_that_says_yes_is_an_error_and_no_refusal(status: int) -> None:
    """The caller would take a refusal for an answer."""
    exchange = make_exchange()
    with pytest.raises(ValueError, match=f"^{status} is no status to refuse"):
        exchange.deny(status, Flag.RBAC, "")
    assert exchange.failure is None


@pytest.mark.parametrize("status", [400, 599])
def test_statuses_that_refuse(status: int) -> None:
    exchange = make_exchange()
    exchange.deny(status, Flag.RBAC, "")
    assert exchange.failure is not None
    assert exchange.failure.status == status


def test_a_flag_outside_the_closed_set_is_an_error_and_no_refusal() -> None:
    """It would be a metric label that no dashboard knows."""
    exchange = make_exchange()
    with pytest.raises(ValueError, match="NOPE"):
        exchange.deny(403, "NOPE", "")
    assert exchange.failure is None


def test_fail_takes_the_table_and_what_the_caller_adds() -> None:
    exchange = make_exchange()
    exchange.fail(Fault.DRAINING, "leaving", retry_after=3, headers=((b"X-A", b"1"),), close=True)
    failure = exchange.failure
    assert failure is not None
    assert (failure.status, failure.flag) == (503, Flag.DRAIN)
    assert (failure.retry_after, failure.headers, failure.close) == (3, ((b"X-A", b"1"),), True)


@pytest.mark.parametrize("later", ["deny", "fail"])
@pytest.mark.parametrize("first", ["deny", "fail"])
def test_the_first_reason_counts(first: str, later: str) -> None:
    exchange = make_exchange()
    for kind, detail in ((first, "first"), (later, "later")):
        if kind == "deny":
            exchange.deny(403, Flag.RBAC, detail)
        else:
            exchange.fail(Fault.TIMEOUT, detail)
    assert exchange.failure is not None
    assert exchange.failure.detail == "first"


def test_raise_failure_carries_it() -> None:
    exchange = make_exchange()
    exchange.fail(Fault.TIMEOUT, "auth-svc took over 1 s")
    with pytest.raises(ExchangeFailed, match="auth-svc took over 1 s") as raised:
        exchange.raise_failure()
    assert raised.value.failure is exchange.failure


def test_header_is_the_callers_in_any_spelling() -> None:
    exchange = make_exchange(headers=[("X-Channel", "portal"), ("X-Name", "Jos\xe9")])
    assert exchange.header("x-channel") == exchange.header("X-CHANNEL") == "portal"
    assert exchange.header("X-Name") == "Jos\xe9"
    assert exchange.header("X-Other") is None
    assert exchange.header("X-\N{SNOWMAN}") is None


def test_header_does_not_see_what_plugins_set() -> None:
    """A condition must not hold because of what the mesh itself has added."""
    exchange = make_exchange(headers=[("X-Channel", "portal")])
    exchange.set_request_header(b"X-Caller-Role", b"ADMIN")
    exchange.flow.request.headers["X-Channel"] = "other"
    assert exchange.header("X-Caller-Role") is None
    assert exchange.header("X-Channel") == "portal"


def test_set_request_header_adds_at_the_end_and_takes_nothing_away() -> None:
    exchange = make_exchange(headers=[("X-A", "1")])
    exchange.set_request_header(b"X-A", b"2")
    exchange.set_request_header(b"X-B", b"3")
    assert sent(exchange, "x-a") == ["1", "2"]
    assert exchange.flow.request.data.headers.fields[-1] == (b"X-B", b"3")


def test_direction_is_the_listeners() -> None:
    listener = make_listener(direction=Direction.OUTBOUND)
    assert make_exchange(listener=listener).direction == "outbound"


def test_repr_tells_how_far_it_got() -> None:
    exchange = make_exchange("/verify-id")
    assert repr(exchange) == "<Exchange GET /verify-id route=to-auth-svc open>"
    exchange.permit = Permit()
    assert repr(exchange).endswith("permitted>")
    exchange.answer = Answer(200, b"OK", (), b"four")
    assert repr(exchange).endswith("<Answer 200 4 bytes>>")
    exchange.fail(Fault.TIMEOUT, "too late")
    assert "too late" in repr(exchange)
    exchange.route = None
    assert "route=None" in repr(exchange)


# -- the flow is made when it is asked for ---------------------------------------------------------


def drafted(fields: Fields = ((b"Host", b"a"),)) -> tuple[Exchange, list[Draft]]:
    """An exchange without a flow, and the drafts of which one was made."""
    made: list[Draft] = []

    def make_flow(exchange: Exchange, draft: Draft) -> HTTPFlow:
        made.append(draft)
        flow = tflow()
        flow.request.data.method = draft.method
        flow.request.data.path = draft.target
        flow.request.data.headers.fields = draft.fields
        flow.request.data.content = draft.content
        return flow

    draft = Draft(b"POST", b"/a", fields, b"body", None, make_flow)
    like = make_exchange()
    return Exchange(None, like.snapshot, like.listener, 1000.0, draft, "id-1"), made


def test_a_request_is_read_and_changed_without_a_flow() -> None:
    exchange, made = drafted()
    exchange.target = b"/b"
    exchange.set_request_header(b"X-A", b"1")
    assert (exchange.method_bytes, exchange.method) == (b"POST", "POST")
    assert exchange.target == b"/b"
    assert exchange.fields == ((b"Host", b"a"), (b"X-A", b"1"))
    assert (exchange.content, exchange.trailers, exchange.id) == (b"body", (), "id-1")
    assert exchange.made_flow is None
    assert not made


def test_the_flow_is_made_once_of_what_the_request_is_by_then() -> None:
    exchange, made = drafted()
    exchange.target = b"/b"
    exchange.set_request_header(b"X-A", b"1")
    flow = exchange.flow
    assert exchange.flow is flow is exchange.made_flow
    assert len(made) == 1
    assert flow.request.path == "/b"
    assert flow.request.headers["X-A"] == "1"
    assert flow.request.content == b"body"


def test_from_then_on_the_flow_is_what_counts() -> None:
    exchange, _ = drafted()
    request = exchange.flow.request
    request.path = "/edited"
    request.method = "PUT"
    request.headers["X-B"] = "2"
    request.content = b"other"
    assert (exchange.target, exchange.method_bytes, exchange.content) == (
        b"/edited",
        b"PUT",
        b"other",
    )
    assert (b"X-B", b"2") in exchange.fields
    exchange.target = b"/again"
    exchange.fields = ((b"Host", b"b"),)
    assert request.path == "/again"
    assert request.headers.fields == ((b"Host", b"b"),)


def test_vouched_fields_stay_so_until_somebody_else_touches_them() -> None:
    exchange, _ = drafted()
    exchange.vouched = exchange.fields
    exchange.add_vouched(((b"X-Caller-Role", b"R"),))
    assert exchange.fields is exchange.vouched
    exchange.set_request_header(b"X-A", b"1")
    exchange.add_vouched(((b"X-B", b"2"),))
    assert exchange.fields[-2:] == ((b"X-A", b"1"), (b"X-B", b"2"))
    assert exchange.fields is not exchange.vouched


def test_the_upstream_connection_is_the_flows_whenever_that_is_made() -> None:
    early, _ = drafted()
    early_flow = early.flow
    server = tserver_conn()
    early.use_server(server)
    assert early_flow.server_conn is server
    late, _ = drafted()
    late.use_server(server)
    assert late.server is server


def test_another_configuration_judges_the_same_request_apart() -> None:
    exchange = make_exchange("/a?b=c", peer="spiffe://d/svc/x")
    exchange.principal = Principal(subject="doe")
    exchange.fail(Fault.TIMEOUT, "over")
    snapshot, listener = make_snapshot(version="2"), make_listener(name="other")
    other = exchange.under(snapshot, listener)
    assert (other.snapshot, other.listener) == (snapshot, listener)
    assert (other.method, other.path, other.query) == (exchange.method, "/a", "b=c")
    assert other.principal.subject == "doe"
    assert other.route is exchange.route
    assert (other.failure, other.permit, other.decision) == (None, None, None)
    other.fail(Fault.POLICY_DENIED, "no")
    other.notes["x"] = 1
    assert exchange.failure is not None
    assert exchange.failure.detail == "over"
    assert exchange.notes == {}


def test_a_field_that_is_removed_leaves_the_rest_vouched_for() -> None:
    exchange = make_exchange(headers=[("Authorization", "x"), ("AUTHORIZATION", "y"), ("X-A", "z")])
    exchange.vouched = exchange.fields
    exchange.remove_field(b"authorization")
    assert [name for name, _ in exchange.fields] == [b"Host", b"X-A"]
    assert exchange.vouched is exchange.fields
    exchange.vouched = None
    exchange.remove_field(b"x-a")
    assert exchange.vouched is None


def test_who_is_traced_is_sent_on_with_that_trace_and_stays_vouched_for() -> None:
    exchange = make_exchange()
    exchange.fields = ((b"Host", b"a"), (b"TraceParent", b"00-old"), (b"X-A", b"b"))
    exchange.vouched = exchange.fields
    trace = Trace()
    exchange.follow(trace)
    assert exchange.trace is trace
    assert exchange.fields == ((b"Host", b"a"), (b"traceparent", trace.value), (b"X-A", b"b"))
    assert exchange.vouched is exchange.fields
    exchange.vouched = None
    exchange.follow(Trace())
    assert exchange.vouched is None
