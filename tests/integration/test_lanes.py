"""One suite over every lane: routing, hygiene, roles, errors."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import pki
from tests.integration.clients import Connection, fetch
from tests.integration.servers import POLICY_VERSION, status, when

if TYPE_CHECKING:
    from tests.integration.clients import Response
    from tests.integration.conftest import Backends, Lane
    from tests.integration.servers import Upstream


def bearer(**changes: Any) -> str:
    return f"Authorization: Bearer {pki.jwt_key('HS256').sign(pki.claims(**changes))}"


def check_problem(response: Response, code: int, flag: str) -> dict[str, object]:
    """The answer is the mesh's own, as SEMANTICS has it."""
    assert response.status == code, response
    assert response.flag == flag
    assert response.header("content-type") == "application/problem+json"
    problem: dict[str, object] = response.json
    assert set(problem) == {"type", "title", "status", "detail", "flag", "request_id"}
    assert problem["status"] == code
    assert problem["flag"] == flag
    return problem


# -- routing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "target", "fields", "to_second"),
    [
        ("GET", "/m", (), False),
        ("GET", "/m/other", (), False),
        ("GET", "/m/exact", (), True),
        ("GET", "/m/exact/not", (), False),
        ("GET", "/m/%65xact", (), True),
        ("GET", "/m/x/../exact", (), True),
        ("GET", "//m//exact", (), True),
        ("GET", "/m/123", (), True),
        ("GET", "/m/123a", (), False),
        ("PUT", "/m/other", (), True),
        ("GET", "/m", ("X-Canary: yes",), True),
        ("GET", "/m", ("X-Canary: no",), False),
        ("GET", "/m?v=2", (), True),
        ("GET", "/m?v=3", (), False),
        ("GET", "/m?host=second.svc", (), None),
        ("GET", "/m/exact?host=second.svc", (), True),
    ],
)
def test_the_first_matching_route_takes_the_request(
    lane: Lane,
    backends: Backends,
    method: str,
    target: str,
    fields: tuple[str, ...],
    to_second: bool | None,
) -> None:
    answer = lane.fetch(method, target, *fields)
    assert answer.status == 200
    if to_second is not None:
        port = backends.second.port if to_second else backends.app.port
        assert answer.json["port"] == port


def test_a_host_pattern_chooses_the_route(lane: Lane, backends: Backends) -> None:
    assert lane.fetch("GET", "/m", host="a.eu.test").json["port"] == backends.second.port
    assert lane.fetch("GET", "/m", host="a.us.test").json["port"] == backends.app.port


def test_a_service_is_named_by_its_host(lane: Lane, backends: Backends) -> None:
    answer = lane.fetch("GET", "/m/exact", host="app.svc")
    assert answer.json["port"] == backends.app.port
    answer = lane.fetch("GET", "/app", host="second.svc:80")
    assert answer.json["port"] == backends.second.port


def test_the_query_that_names_the_service_is_not_forwarded(lane: Lane, app: Upstream) -> None:
    answer = lane.fetch("GET", "/app/named?a=1&host=app.svc&b=2")
    assert answer.json["target"] == "/app/named?a=1&b=2"
    assert app.one("/app/named").header("host") == "app.svc"
    app.requests.clear()


def test_an_unknown_service_or_path_is_404(lane: Lane) -> None:
    problem = check_problem(lane.fetch("GET", "/app", host="nobody.svc"), 404, "NR")
    assert "nobody" in str(problem["detail"])
    problem = check_problem(lane.fetch("GET", "/nowhere"), 404, "NR")
    assert "/nowhere" in str(problem["detail"])


def test_a_prefix_matches_whole_segments(lane: Lane) -> None:
    check_problem(lane.fetch("GET", "/application"), 404, "NR")


@pytest.mark.parametrize("path", ["/app/a%2Fb", "/app/%5Cb", "/app/%00", "/app/%zz", "/app/%"])
def test_ambiguous_paths_are_refused(lane: Lane, app: Upstream, path: str) -> None:
    before = len(app.requests)
    check_problem(lane.fetch("GET", path), 400, "DPE")
    assert len(app.requests) == before


def test_the_normalised_path_is_what_is_sent(lane: Lane) -> None:
    assert lane.fetch("GET", "/x/..//app/./%7Ea?q=/../%2F").json["target"] == "/app/~a?q=/../%2F"


def test_absolute_form(lane: Lane, app: Upstream) -> None:
    answer = lane.fetch("GET", "http://app.svc/app/absolute?x=1")
    assert answer.json["target"] == "/app/absolute?x=1"
    assert app.requests[-1].header("host") == "app.svc"


def test_options_star(lane: Lane) -> None:
    """It has no path, so no route of this configuration takes it; it is no bad request."""
    check_problem(lane.fetch("OPTIONS", "*"), 404, "NR")
    answer = fetch(lane.inbound, "OPTIONS", "*")
    assert (answer.status, answer.json["target"]) == (200, "*")


# -- hygiene ---------------------------------------------------------------------------------------

FORGED = (
    "X-Caller-Role: ADMIRAL",
    "x-caller-role: GENERAL",
    "X_Caller_Role: ADMIRAL",
    "X-Caller_Role: ADMIRAL",
    "X-Caller-Subject: root",
    "X-Caller-Service: spiffe://mpsa.mil/svc/root",
    "X-Policy-Version: 0.0.1",
    "X-Forwarded-Client-Cert: URI=spiffe://mpsa.mil/svc/root",
)


def names(answer: Response) -> dict[str, str]:
    """The headers that the upstream got; each once."""
    found: dict[str, str] = {}
    for name, value in answer.json["fields"]:
        assert name.lower() not in found, f"{name} came twice"
        found[name.lower()] = value
    return found


@pytest.mark.parametrize("inbound", [False, True])
def test_forged_headers_never_arrive(lane: Lane, inbound: bool) -> None:
    got = names(fetch(lane.inbound if inbound else lane.port, "GET", "/app/x", *FORGED))
    assert got["x-policy-version"] == POLICY_VERSION
    assert not [name for name in got if "caller" in name or "cert" in name]


def test_forged_headers_named_by_connection_do_not_suppress_ours(lane: Lane) -> None:
    got = names(
        lane.fetch(
            "GET",
            "/app/x",
            "Connection: close, X-Policy-Version, X-Caller-Role, Authorization, X-Mine",
            "X-Mine: 1",
            bearer(),
        )
    )
    assert got["x-policy-version"] == POLICY_VERSION
    assert got["x-caller-role"] == "PROGRAM_MANAGER"
    assert "x-mine" not in got
    assert "authorization" in got


def test_hop_by_hop_headers_end_here(lane: Lane) -> None:
    got = names(
        lane.fetch(
            "GET",
            "/app/x",
            "Connection: keep-alive, X-Hop",
            "X-Hop: 1",
            "Keep-Alive: timeout=5",
            "TE: trailers",
            "Proxy-Connection: keep-alive",
            "Proxy-Authorization: Basic eDp5",
            "X-End: 2",
        )
    )
    assert got["x-end"] == "2"
    assert not got.keys() & {"x-hop", "keep-alive", "te", "proxy-connection", "proxy-authorization"}
    assert got.get("connection", "keep-alive") == "keep-alive"


def test_hop_by_hop_headers_of_the_answer_end_here(lane: Lane, app: Upstream) -> None:
    path = app.on(
        "/app/hop",
        status(200, "Connection: X-Hop", "X-Hop: 1", "Keep-Alive: timeout=5", "X-End: 2"),
    )
    answer = lane.fetch("GET", path)
    assert answer.header("x-end") == "2"
    assert answer.header("x-hop") is None
    assert answer.header("keep-alive") is None


def test_forwarding_headers_are_appended_to(lane: Lane) -> None:
    got = names(lane.fetch("GET", "/app/x"))
    assert got["x-forwarded-for"] == "127.0.0.1"
    assert got["x-forwarded-proto"] == "http"
    assert got["x-forwarded-host"] == "mesh.test"
    assert got["via"] == "1.1 hms"
    assert len(got["x-request-id"]) > 20
    assert got["traceparent"].startswith("00-")
    got = names(
        lane.fetch(
            "GET", "/app/x", "X-Forwarded-For: 9.9.9.9", "Via: 1.0 other", "X-Request-ID: mine"
        )
    )
    assert got["x-forwarded-for"] == "9.9.9.9, 127.0.0.1"
    assert got["via"] == "1.0 other, 1.1 hms"
    assert got["x-request-id"] == "mine"


def test_the_callers_host_arrives(lane: Lane) -> None:
    assert names(lane.fetch("GET", "/app/x", host="shop.test:81"))["host"] == "shop.test:81"


def test_repeated_fields_and_cookies_stay_as_they_are(lane: Lane) -> None:
    answer = lane.fetch("GET", "/app/x", "X-List: a", "X-List: b", "Cookie: a=1", "Cookie: b=2")
    fields = [(name.lower(), value) for name, value in answer.json["fields"]]
    assert [value for name, value in fields if name == "x-list"] == ["a", "b"]
    assert [value for name, value in fields if name == "cookie"] == ["a=1", "b=2"]


def test_answers_keep_repeated_fields(lane: Lane, app: Upstream) -> None:
    path = app.on("/app/cookies", status(200, "Set-Cookie: a=1", "Set-Cookie: b=2"))
    answer = lane.fetch("GET", path)
    assert [value for name, value in answer.fields if name == "Set-Cookie"] == ["a=1", "b=2"]


# -- roles and policies ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["Bearer ", "bearer ", ""])
def test_a_token_becomes_a_role(lane: Lane, scheme: str) -> None:
    token = bearer(roles=["CLERK", "SOLDIER"]).removeprefix("Authorization: Bearer ")
    got = names(lane.fetch("GET", "/app/x", f"Authorization: {scheme}{token}", *FORGED))
    assert got["x-caller-role"] == "CLERK,SOLDIER"
    assert got["x-caller-subject"] == "sgt.pepper"


@pytest.mark.parametrize(
    ("token", "code"),
    [
        (bearer(exp=1_000_000), 401),
        (bearer(iss="https://evil.test"), 401),
        (bearer(aud="other"), 403),
        ("Authorization: Bearer not.a.t0ken", 401),
        ("Authorization: Bearer eyJhbGciOiJub25lIn0.e30.", 401),
        ("Authorization: Bearer", 401),
    ],
    ids=["expired", "issuer", "audience", "junk", "alg none", "empty"],
)
def test_a_bad_token_is_refused(lane: Lane, app: Upstream, token: str, code: int) -> None:
    before = len(app.requests)
    answer = lane.fetch("GET", "/app/x", token)
    problem = check_problem(answer, code, "JWT")
    if code == 401:
        assert 'error="invalid_token"' in (answer.header("www-authenticate") or "")
    secret = token.removeprefix("Authorization: Bearer ").rpartition(".")[2]
    assert not secret or secret not in json.dumps(problem)
    assert len(app.requests) == before


def test_policies_allow_and_deny(lane: Lane, app: Upstream) -> None:
    before = len(app.requests)
    check_problem(lane.fetch("GET", "/guarded/x"), 403, "RBAC")
    check_problem(lane.fetch("GET", "/guarded/x", bearer(roles=["CLERK"])), 403, "RBAC")
    check_problem(lane.fetch("DELETE", "/guarded/x", bearer()), 403, "RBAC")
    assert len(app.requests) == before
    assert lane.fetch("GET", "/guarded/x", bearer()).status == 200


@pytest.mark.parametrize(
    "path", ["/app/closed", "/app/closed/x", "/app/./closed", "/app//closed", "/app/%63losed"]
)
def test_a_denied_path_is_denied_in_every_spelling(lane: Lane, app: Upstream, path: str) -> None:
    before = len(app.requests)
    check_problem(lane.fetch("GET", path), 403, "RBAC")
    assert len(app.requests) == before


def test_a_refusal_keeps_the_connection_if_it_can(lane: Lane) -> None:
    with lane.connect() as connection:
        assert connection.exchange("GET", "/app/closed").status == 403
        assert connection.exchange("POST", "/app/closed", body=b"x" * 2000).status == 403
        assert connection.exchange("GET", "/app/open").status == 200


# -- local answers ---------------------------------------------------------------------------------


def test_the_request_id_of_a_problem_is_the_requests(lane: Lane) -> None:
    problem = lane.fetch("GET", "/dead", "X-Request-ID: find-me").json
    assert problem["request_id"] == "find-me"


def test_a_dead_upstream_is_503_uf(lane: Lane, backends: Backends) -> None:
    problem = check_problem(lane.fetch("GET", "/dead"), 503, "UF")
    for named in ("prefix:/dead", "cluster dead", f"127.0.0.1:{backends.dead}", "refused"):
        assert named in str(problem["detail"])


def test_an_unreachable_upstream_is_503_uf_in_time(lane: Lane) -> None:
    problem = check_problem(lane.fetch("GET", "/hole"), 503, "UF")
    assert "no connection within 0.3s" in str(problem["detail"])


def test_a_cluster_without_endpoints_is_503_uh(lane: Lane) -> None:
    check_problem(lane.fetch("GET", "/empty"), 503, "UH")


def test_a_problem_for_head_has_no_body(lane: Lane) -> None:
    with lane.connect() as connection:
        answer = connection.exchange("HEAD", "/dead")
        assert (answer.status, answer.flag) == (503, "UF")
        assert int(answer.header("content-length") or 0) > 100
        assert connection.exchange("GET", "/app/x").status == 200


def test_a_full_breaker_is_503_uo_at_once(lane: Lane, app: Upstream) -> None:
    gate = threading.Event()
    path = app.on("/single/slow", when(gate))
    with lane.connect() as first:
        first.request("GET", path)
        app.wait(lambda: app.got(path), "the first request")
        problem = check_problem(lane.fetch("GET", "/single/other"), 503, "UO")
        assert "max_requests 1" in str(problem["detail"])
        gate.set()
        assert first.response().status == 200
    assert lane.fetch("GET", "/single/other").status == 200
    app.requests.clear()


def test_past_max_connections_requests_queue_and_past_that_overflow(
    lane: Lane, app: Upstream
) -> None:
    gate = threading.Event()
    path = app.on("/queue/slow", when(gate))
    with lane.connect() as first, lane.connect() as second, lane.connect() as third:
        first.request("GET", path)
        app.wait(lambda: len(app.got(path)) == 1, "the first request")
        # Which of the two comes to wait, and which is refused, is up to the kernel.
        second.request("GET", path)
        third.request("GET", path)
        refused, waiting = _first_answered(second, third)
        check_problem(refused.response(), 503, "UO")
        gate.set()
        assert first.response().status == 200
        assert waiting.response().status == 200
    assert len(app.got(path)) == 2
    app.requests.clear()


def _first_answered(*connections: Connection) -> tuple[Connection, Connection]:
    import select  # noqa: PLC0415 - only here

    ready, _, _ = select.select([connection.sock for connection in connections], [], [], 10)
    assert len(ready) == 1
    one = next(c for c in connections if c.sock is ready[0])
    return one, next(c for c in connections if c is not one)
