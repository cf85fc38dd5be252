from __future__ import annotations

from hms_addons.addons.own_answers import OwnAnswers
from hms_addons.config.local_answers import DirectResponse, Redirect
from hms_addons.config.shaping import Shaping
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange, make_route

FIXED = DirectResponse(status=503, body=b"closed", headers=((b"Content-Type", b"text/plain"),))


def test_a_fixed_answer_is_given() -> None:
    exchange = make_exchange(route=make_route(shaping=Shaping(answer=FIXED)))
    answer = OwnAnswers().hms_forward(exchange)
    assert answer is not None
    assert (answer.status, answer.reason, answer.body) == (503, b"Service Unavailable", b"closed")
    assert (answer.fields, answer.length, answer.local) == (FIXED.headers, 6, True)


def test_head_gets_the_length_without_the_body() -> None:
    exchange = make_exchange(method="HEAD", route=make_route(shaping=Shaping(answer=FIXED)))
    answer = OwnAnswers().hms_forward(exchange)
    assert answer is not None
    assert (answer.body, answer.length) == (b"", 6)


def test_a_redirect_leads_to_what_was_asked_for_elsewhere() -> None:
    route = make_route(shaping=Shaping(answer=Redirect(host="b.test", status=307)))
    exchange = make_exchange("/a?x=1", route=route)
    answer = OwnAnswers().hms_forward(exchange)
    assert answer is not None
    assert answer.status == 307
    # The port of the connection's own end, see `make_exchange`.
    assert answer.fields == ((b"Location", b"http://b.test:15006/a?x=1"),)


def test_other_routes_are_left_to_those_who_forward() -> None:
    for shaping in (None, Shaping()):
        exchange = make_exchange(route=make_route(shaping=shaping))
        assert OwnAnswers().hms_forward(exchange) is None


def test_it_is_idle_where_every_route_leads_to_a_cluster() -> None:
    text = "listeners: [{{name: l, port: 1, routes: [{{action: {}}}]}}]\nclusters: [{{name: c}}]"
    answers = OwnAnswers()
    assert answers.hms_idle_hooks(snapshot_of(text.format("{cluster: c}"))) == ("hms_forward",)
    assert answers.hms_idle_hooks(snapshot_of(text.format("{redirect: {}}"))) == ()
