from __future__ import annotations

from hms_addons.config.explain import explain
from hms_addons.config.explain_text import to_text
from tests.fakes.intercepted import transparent


def test_a_call_to_a_service_is_routed_as_any_other() -> None:
    found = explain(transparent(), "GET http://auth-svc.svc/verify-id?host=pay.svc")
    assert found["listener"]["intercepted"]
    assert found["request"]["service"] == "auth-svc"
    assert found["request"]["query"] == "host=pay.svc", "the query is auth-svc's"
    assert found["route"]["name"] == "any"


def test_what_is_not_the_meshs_is_refused_with_the_remedy() -> None:
    found = explain(transparent(), "GET http://example.com/verify-id")
    assert (found["failure"]["status"], found["failure"]["flag"]) == (502, "NR")
    assert "`unmatched: original`" in found["failure"]["detail"]
    reasons = {item["route"]: item["reason"] for item in found["passed_over"]}
    assert reasons["any"].startswith("it names no host")
    assert reasons["named"].startswith("the host example.com is not")


def test_or_passed_through() -> None:
    found = explain(transparent("original"), "GET http://example.com/verify-id")
    assert found["failure"] is None
    assert found["route"]["name"] == "original:caught"
    assert found["clusters"][0]["endpoints"] == ["wherever the call was meant to go"]
    assert "wherever the call was meant to go" in to_text(found)


def test_who_calls_the_listener_itself_is_not_intercepted() -> None:
    found = explain(transparent(), "GET http://localhost:15001/verify-id?host=partner.svc")
    assert "intercepted" not in found["listener"]
    assert found["request"]["service"] == "partner"
    assert found["request"]["query"] == ""
