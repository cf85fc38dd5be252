"""What is told of a flow."""

from __future__ import annotations

from hms_addons.engine import flow_view
from hms_addons.exchange import Attempt, Principal
from hms_addons.http_message import Answer
from hms_addons.window.flow_story import story
from hms_addons.window.redaction import Redactor
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange
from tests.fakes.flows import make_flow
from tests.fakes.hand import CONFIG


def test_what_happened_and_what_would() -> None:
    exchange = make_exchange("/verify-id?token=secret", headers=[("X-A", "1")])
    exchange.answer = Answer(403, b"", (), b"")
    exchange.deny(403, "RBAC", "policy 'nobody' denies it")
    exchange.attempts = [
        Attempt("127.0.0.1:9001", 0.0, 0.002, "503"),
        Attempt("127.0.0.1:9002", 0.0, 0.004, "403"),
    ]
    exchange.principal = Principal("joe", ("CLERK",))
    exchange.notes["fallback"] = {"what": "response"}
    exchange.notes["stamp"] = "blue"
    flow_view.annotate(exchange)
    flow = exchange.flow
    lines = story(flow, Redactor().shown(flow), snapshot_of(CONFIG))
    text = "\n".join(lines)
    assert lines[0].startswith("happened  GET /verify-id?token=[redacted-")
    assert lines[0].endswith(": no answer, inbound on peers")
    for line in (
        "          denied: 401, 403 or 429",
        "flag      RBAC: policy 'nobody' denies it",
        "route     to-auth-svc, to cluster none",
        "attempt   1. 127.0.0.1:9001: 503 in 2 ms",
        "attempt   2. 127.0.0.1:9002: 403 in 4 ms",
        "fallback  response",
        "caller    subject joe, role CLERK",
        "note      stamp: blue",
        "listener  out (outbound, 127.0.0.1:15001)",
        "route     verify, to the service auth-svc",
    ):
        assert line in lines, text
    assert "secret" not in text


def test_a_flow_that_the_mesh_knows_nothing_of() -> None:
    flow = make_flow()
    lines = story(flow, flow, None)
    assert lines == [
        "the mesh has not decided on this flow",
        "there is no configuration in force",
    ]
    flow.metadata["hms"] = {"listener": "out"}
    assert story(flow, flow, None)[0] == "the mesh has not decided on this flow"


def test_a_configuration_that_can_explain_nothing_says_why() -> None:
    flow = make_flow()
    lines = story(flow, flow, snapshot_of("{}"))
    assert lines[-1].startswith("the configuration in force cannot explain it: ")
