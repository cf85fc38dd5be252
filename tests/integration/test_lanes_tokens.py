"""One suite over every lane: fetched keys, tokens that end here, identity that is carried on."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.fakes import pki
from tests.integration.basics import until
from tests.integration.clients import Connection
from tests.integration.servers import when
from tests.integration.test_lanes import bearer, check_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import Lane
    from tests.integration.servers import Upstream


def test_a_token_is_verified_with_fetched_keys_and_ends_here(lane: Lane, app: Upstream) -> None:
    key = pki.jwt_key("ES256")
    claims = pki.claims(iss="https://fetched.test", aud=None, sub="pvt-doe")
    answer = lane.fetch("GET", "/app/fetched", f"Authorization: Bearer {key.sign(claims)}")
    assert answer.status == 200, answer
    request = app.one("/app/fetched")
    assert request.header("authorization") is None
    assert request.header("x-caller-role") == "PROGRAM_MANAGER"
    assert request.header("x-caller-subject") == "pvt-doe"
    unknown = pki.jwt_key("ES256", "invented").sign(claims)
    check_problem(lane.fetch("GET", "/app/x", f"Authorization: Bearer {unknown}"), 401, "JWT")
    app.requests.clear()


@contextmanager
def with_the_app(
    lane: Lane, app: Upstream, path: str, *fields: str, leave: bool = False
) -> Iterator[None]:
    """An inbound request that the app works on meanwhile; then it is answered, or its caller leaves."""
    gate = threading.Event()
    app.on(path, when(gate))
    before = len(app.got(path))
    with Connection(lane.inbound) as connection:
        connection.request("GET", path, *fields)
        app.wait(lambda: len(app.got(path)) > before, "the inbound request")
        try:
            yield
            if not leave:
                gate.set()
                assert connection.response().status == 200
        finally:
            if not leave:
                gate.set()
    if leave:
        gate.set()


def test_an_apps_call_carries_on_the_identity_that_it_works_for(lane: Lane, app: Upstream) -> None:
    name = f"X-Request-ID: carried-{lane.name}"
    with with_the_app(lane, app, "/carried", bearer(sub="alice"), name):
        answer = lane.fetch("GET", "/guarded/carried", name)
        assert answer.status == 200, answer
        request = app.one("/guarded/carried")
        assert (request.header("authorization") or "").startswith("Bearer ey")
        assert request.header("x-caller-subject") == "alice"
        check_problem(lane.fetch("GET", "/guarded/x", "X-Request-ID: other"), 403, "RBAC")
    until(lambda: lane.fetch("GET", "/guarded/x", name).status == 403, "the end of it")
    app.requests.clear()


def test_a_call_within_the_trace_carries_it_on_too(lane: Lane, app: Upstream) -> None:
    trace = f"{pki.jwt_key('HS256').kid}{lane.name}".encode().hex().ljust(32, "7")[:32]
    with with_the_app(
        lane, app, "/traced", bearer(), f"traceparent: 00-{trace}-00f067aa0ba902b7-01"
    ):
        field = f"traceparent: 00-{trace}-b7ad6b7169203331-00"
        assert lane.fetch("GET", "/guarded/traced", field).status == 200
    app.requests.clear()


def test_whoever_takes_anothers_identifier_gets_nothing(lane: Lane, app: Upstream) -> None:
    name = f"X-Request-ID: taken-{lane.name}"
    with (
        with_the_app(lane, app, "/taken", bearer(sub="alice"), name),
        with_the_app(lane, app, "/taking", name),
    ):
        assert app.one("/taking").header("authorization") is None
        assert app.one("/taking").header("x-caller-subject") is None
        check_problem(lane.fetch("GET", "/guarded/x", name), 403, "RBAC")
    app.requests.clear()


def test_a_caller_that_leaves_takes_its_identity_along(lane: Lane, app: Upstream) -> None:
    name = f"X-Request-ID: left-{lane.name}"
    with with_the_app(lane, app, "/left", bearer(), name, leave=True):
        assert lane.fetch("GET", "/guarded/x", name).status == 200
    until(lambda: lane.fetch("GET", "/guarded/x", name).status == 403, "the end of it")
    app.requests.clear()
