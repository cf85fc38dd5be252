"""Spans over every lane, as a collector reads them: whose child each is, across hops and retries."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.integration.otlp_kit import sampled, spans_at, wait_spans
from tests.integration.servers import POLICY_VERSION, after, echo, status

if TYPE_CHECKING:
    from tests.integration.conftest import Backends, Lane
    from tests.integration.servers import Received, Upstream


def parent_of(request: Received) -> tuple[str, str, str]:
    """Trace, span and flags that a request was sent on with."""
    value = request.header("traceparent")
    assert value is not None
    found = re.fullmatch("00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})", value)
    assert found is not None, value
    return found[1], found[2], found[3]


def test_each_hop_hangs_below_the_try_that_has_reached_it(
    lane: Lane, backends: Backends, app: Upstream
) -> None:
    app.on("/hop/twice", status(503), echo)
    trace, caller, header = sampled()
    fields = (header, "tracestate: congo=t61rcWkgMzE")
    assert lane.fetch("GET", "/hop/twice?token=hunter2", *fields).status == 200
    spans = wait_spans(backends.collector, trace, 7)
    requests = [span for span in spans if not span.is_try]
    tries = [span for span in spans if span.is_try]
    (outer,) = [span for span in requests if span.attributes["hms.direction"] == "outbound"]
    inner = [span for span in requests if span.attributes["hms.direction"] == "inbound"]
    mine = [span for span in tries if span.parent == outer.id]
    assert outer.parent == caller
    assert [span.attributes["http.response.status_code"] for span in mine] == [503, 200]
    assert [span.attributes["hms.attempt"] for span in mine] == ["first", "retry"]
    assert [span.attributes.get("http.request.resend_count") for span in mine] == [None, 1]
    assert [span.failed for span in mine] == [True, False]
    # Each request of the inner hop, below the try that brought it.
    assert [span.parent for span in inner] == [span.id for span in mine]
    assert [span.attributes["http.response.status_code"] for span in inner] == [503, 200]
    last = [span for one in inner for span in tries if span.parent == one.id]
    assert len(last) == 2
    # The app's own span would hang below the try that has reached it.
    got = app.got("/hop/twice")
    assert [parent_of(request) for request in got] == [(trace, span.id, "01") for span in last]
    assert {request.header("tracestate") for request in got} == {"congo=t61rcWkgMzE"}
    assert len({span.id for span in spans}) == 7
    assert (outer.kind, inner[0].kind, mine[0].kind) == ("CLIENT", "SERVER", "CLIENT")
    assert (outer.failed, inner[0].failed, inner[1].failed) == (False, True, False)
    for span in spans:
        parent = next((one for one in spans if one.id == span.parent), None)
        assert span.start <= span.end
        # Two clocks are read one after the other.
        assert parent is None or parent.start - 1_000_000 <= span.start
        assert "hunter2" not in str(span)
    assert outer.name == f"GET {outer.attributes['hms.route']}"
    assert outer.resource["service.name"] == "claims-svc"
    assert outer.resource["service.instance.id"]
    assert {
        "http.request.method": "GET",
        "url.path": "/hop/twice",
        "url.scheme": "http",
        "server.address": "mesh.test",
        "client.address": "127.0.0.1",
        "hms.service": "hop",
        "hms.cluster": "hop",
        "hms.endpoint": f"127.0.0.1:{lane.inbound}",
        "hms.policy_version": POLICY_VERSION,
        "hms.attempts": 2,
    }.items() <= outer.attributes.items()
    assert {
        "url.full": f"http://127.0.0.1:{lane.inbound}/hop/twice",
        "server.address": "127.0.0.1",
        "server.port": lane.inbound,
        "hms.cluster": "hop",
    }.items() <= mine[0].attributes.items()


def test_what_the_mesh_answers_itself_is_shown_and_why(lane: Lane, backends: Backends) -> None:
    asked = (
        ("GET", "/guarded/x", 403, "RBAC", 0),
        ("GET", "/nowhere", 404, "NR", 0),
        ("GET", "/dead", 503, "UF", 1),
        ("GET", "/app/%2F", 400, "DPE", 0),
        ("PROPFIND", "/fixed", 418, None, 0),
    )
    traces = []
    for method, target, code, *_ in asked:
        traces.append(sampled())
        assert lane.fetch(method, target, traces[-1][2]).status == code
    for (method, _, code, flag, tries), (trace, caller, _) in zip(asked, traces, strict=True):
        first, *others = wait_spans(backends.collector, trace, 1 + tries)
        assert first.parent == caller
        assert first.attributes["http.response.status_code"] == code
        assert first.attributes.get("hms.flag") == first.attributes.get("error.type") == flag
        assert first.failed == bool(flag)
        assert bool(first.message) == bool(flag)
        assert [span.attributes["error.type"] for span in others] == ["connect-failure"] * tries
        original = first.attributes.get("http.request.method_original")
        assert original == (None if method == "GET" else method)


def test_a_try_beside_a_slow_one_is_shown(lane: Lane, backends: Backends, app: Upstream) -> None:
    for upstream in (backends.app, backends.second):
        upstream.on("/hedged/traced", after(0.4), echo)
    trace, _, header = sampled()
    assert lane.fetch("GET", "/hedged/traced", header).status == 200
    _, *tries = wait_spans(backends.collector, trace, 3)
    assert [span.attributes["hms.attempt"] for span in tries] == ["first", "hedge"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("00-12345678901234567890123456789012-1234567890123456-00", True),
        ("cc-12345678901234567890123456789012-1234567890123456-00-what-the-future-will-be", True),
        ("cc-12345678901234567890123456789012-1234567890123456-01.what-the-future-will-be", False),
        ("00-12345678901234567890123456789012-1234567890123456-01-more", False),
        ("ff-12345678901234567890123456789012-1234567890123456-01", False),
        ("00-00000000000000000000000000000000-1234567890123456-01", False),
        ("00-12345678901234567890123456789012-0000000000000000-01", False),
        ("00-1234567890123456789012345678901A-1234567890123456-01", False),
    ],
)
def test_a_trace_context_that_is_none_begins_anew(
    lane: Lane, app: Upstream, sent: str, kept: bool
) -> None:
    app.requests.clear()
    lane.fetch("GET", "/app/context", f"traceparent: {sent}", "tracestate: congo=1")
    got = app.one("/app/context")
    if kept:
        assert got.header("traceparent") == sent
        assert got.header("tracestate") == "congo=1"
    else:
        assert parent_of(got)[0] != sent[3:35]
        assert parent_of(got)[2] == "00"
        assert got.header("tracestate") is None


def test_two_trace_contexts_are_none(lane: Lane, app: Upstream) -> None:
    app.requests.clear()
    first, second = (sampled()[2] for _ in range(2))
    lane.fetch("GET", "/app/context", first, second, "tracestate: congo=1")
    got = app.one("/app/context")
    assert parent_of(got)[0] not in first + second
    assert got.header("tracestate") is None


def test_who_is_not_in_the_sample_leaves_no_span(
    lane: Lane, backends: Backends, app: Upstream
) -> None:
    trace, span, _ = sampled()
    unsampled = f"traceparent: 00-{trace}-{span}-00"
    app.requests.clear()
    lane.fetch("GET", "/app/unsampled", unsampled)
    assert parent_of(app.one("/app/unsampled")) == (trace, span, "00")
    later, _, header = sampled()
    lane.fetch("GET", "/app/later", header)
    wait_spans(backends.collector, later, 2)
    assert not spans_at(backends.collector, trace)
