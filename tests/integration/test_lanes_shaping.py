"""One suite over every lane: rewrites, header rules, own answers, rate limits, injected faults."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.integration.servers import says, status
from tests.integration.test_lanes import bearer, check_problem

if TYPE_CHECKING:
    from tests.integration.clients import Response
    from tests.integration.conftest import Lane
    from tests.integration.servers import Upstream


def sent(answer: Response, name: str) -> list[str]:
    """What the upstream got under a name."""
    fields: list[tuple[str, str]] = answer.json["fields"]
    return [value for found, value in fields if found.lower() == name.lower()]


def got(answer: Response, name: str) -> list[str]:
    """What the client got under a name."""
    return [value for found, value in answer.fields if found.lower() == name.lower()]


# -- answers of a route's own ----------------------------------------------------------------------


@pytest.mark.parametrize("service", ["", "&host=app.svc"])
def test_a_redirect_leads_to_the_rewritten_path_with_the_query(
    lane: Lane, app: Upstream, service: str
) -> None:
    before = len(app.requests)
    answer = lane.fetch("GET", f"/old/a?x=1{service}", host=f"mesh.test:{lane.port}")
    assert (answer.status, answer.body) == (301, b"")
    location = urlsplit(answer.header("location") or "")
    assert location.geturl() == f"http://mesh.test:{lane.port}/app/new/a?x=1"
    assert len(app.requests) == before


def test_a_redirect_names_the_port_that_was_connected_to(lane: Lane) -> None:
    answer = lane.fetch("POST", "/old", host="mesh.test", body=b"x" * 100)
    assert answer.header("location") == f"http://mesh.test:{lane.port}/app/new"


def test_a_fixed_answer_is_as_it_is_written(lane: Lane) -> None:
    with lane.connect() as connection:
        for _ in range(2):
            answer = connection.exchange("GET", "/fixed/x")
            assert (answer.status, answer.body) == (418, b"short and stout")
            assert answer.header("content-type") == "text/plain; charset=utf-8"
            assert (answer.header("x-fixed"), answer.header("x-rule")) == ("1", "edited")
            assert answer.flag is None


def test_a_fixed_answer_to_head_has_no_body(lane: Lane) -> None:
    with lane.connect() as connection:
        answer = connection.exchange("HEAD", "/fixed")
        assert (answer.status, answer.header("content-length")) == (418, "15")
        assert connection.exchange("GET", "/fixed").body == b"short and stout"


# -- rewrites --------------------------------------------------------------------------------------


def test_a_rewritten_request_arrives_as_rewritten(lane: Lane) -> None:
    answer = lane.fetch("GET", "/moved/a/b?x=1", host="shop.test:81")
    assert answer.json["target"] == "/app/new/a/b?x=1"
    assert sent(answer, "host") == ["legacy.test:81"]
    assert sent(answer, "x-forwarded-host") == ["shop.test:81"]


@pytest.mark.parametrize("path", ["/around/closed", "/around/closed/x", "/around//closed"])
def test_policies_judge_the_path_as_it_is_sent(lane: Lane, app: Upstream, path: str) -> None:
    before = len(app.requests)
    check_problem(lane.fetch("GET", path), 403, "RBAC")
    assert len(app.requests) == before
    assert lane.fetch("GET", "/around/open").json["target"] == "/app/open"


# -- header rules ----------------------------------------------------------------------------------


def test_headers_of_a_request_are_removed_set_and_added(lane: Lane) -> None:
    answer = lane.fetch("GET", "/edited", "x-set: old", "X-Add: a", "x-gone: 1", "X-Keep: k")
    assert sent(answer, "x-set") == ["new"]
    assert sent(answer, "x-add") == ["a", "b", "c"]
    assert sent(answer, "x-gone") == []
    assert sent(answer, "x-keep") == ["k"]


def test_headers_of_a_held_and_of_a_streaming_answer_are_edited(lane: Lane, app: Upstream) -> None:
    fields = ("X-From: upstream", "Set-Cookie: a=1", "X-Gone: 1")
    app.on("/edited/held", status(200, *fields, body=b"hello"))
    head = "\r\n".join(["HTTP/1.1 200 OK", "Transfer-Encoding: chunked", *fields]).encode()
    app.on("/edited/streams", says(head + b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"))
    for path in ("/edited/held", "/edited/streams"):
        answer = lane.fetch("GET", path)
        assert (answer.status, answer.body) == (200, b"hello")
        assert got(answer, "x-from") == ["mesh"]
        assert got(answer, "set-cookie") == ["a=1", "b=2", "c=3"]
        assert got(answer, "x-gone") == []


def test_headers_of_the_mesh_s_own_answer_are_edited(lane: Lane) -> None:
    answer = lane.fetch("GET", "/edited-dead")
    check_problem(answer, 503, "UF")
    assert answer.header("x-rule") == "edited"


def test_other_routes_answers_are_not_edited(lane: Lane) -> None:
    assert got(lane.fetch("GET", "/app/x"), "x-from") == ["upstream"]


# -- rate limits -----------------------------------------------------------------------------------


def test_exactly_the_limit_is_admitted_under_load(lane: Lane, app: Upstream) -> None:
    path = "/limited/load"
    before = len(app.got(path))
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: lane.fetch("GET", path, "X-Key: load"), range(40)))
    assert sorted(answer.status for answer in answers) == [200] * 7 + [429] * 33
    assert len(app.got(path)) - before == 7
    refused = next(answer for answer in answers if answer.status == 429)
    problem = check_problem(refused, 429, "RL")
    assert "the limit 'keyed'" in str(problem["detail"])
    assert "load" not in str(problem["detail"])
    assert 500 <= int(refused.header("retry-after") or 0) <= 515  # a seventh of an hour
    assert refused.header("ratelimit-policy") == '"keyed";q=7;w=3600, "all";q=1000;w=3600'
    assert (refused.header("ratelimit") or "").startswith('"keyed";r=0;t=5')
    assert lane.fetch("GET", path, "X-Key: another").status == 200


def test_what_is_denied_does_not_count(lane: Lane) -> None:
    for _ in range(3):
        check_problem(lane.fetch("GET", "/guarded-limit"), 403, "RBAC")
    assert lane.fetch("GET", "/guarded-limit", bearer()).status == 200
    check_problem(lane.fetch("GET", "/guarded-limit", bearer()), 429, "RL")


# -- faults ----------------------------------------------------------------------------------------


def test_an_injected_abort_is_for_those_who_meet_its_condition(lane: Lane, app: Upstream) -> None:
    before = len(app.requests)
    problem = check_problem(lane.fetch("GET", "/faulty", "X-Fault: abort"), 503, "FI")
    assert "on purpose" in str(problem["detail"])
    assert len(app.requests) == before
    assert lane.fetch("GET", "/faulty", "X-Fault: no").status == 200


def test_an_injected_delay_does_not_count_for_the_route_s_timeout(lane: Lane) -> None:
    started = time.monotonic()
    assert lane.fetch("GET", "/delayed").status == 200
    assert time.monotonic() - started >= 0.7
