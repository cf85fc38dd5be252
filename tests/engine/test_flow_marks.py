"""Which exchanges are marked, and how."""

from __future__ import annotations

import pytest
from mitmproxy.utils.emoji import emoji

from hms_addons.engine import flow_view
from hms_addons.engine.flow_marks import DENIED, FAILED, MARKS, RETRIED, mark_of
from hms_addons.errors import Fault
from hms_addons.exchange import Attempt, Exchange
from hms_addons.http_message import Answer
from tests.fakes.exchange import make_exchange


def answered(status: int, *outcomes: str) -> Exchange:
    exchange = make_exchange()
    exchange.answer = Answer(status, b"", (), b"")
    exchange.attempts = [Attempt("127.0.0.1:1", 0.0, 0.1, outcome) for outcome in outcomes]
    return exchange


def test_mitmproxy_knows_every_mark() -> None:
    assert emoji.keys() >= MARKS.keys()


@pytest.mark.parametrize(
    ("exchange", "mark"),
    [
        (make_exchange(), ""),
        (answered(200, "200"), ""),
        (answered(404, "404"), ""),
        (answered(200, "503", "200"), RETRIED),
        (answered(200, "cancelled", "200"), ""),
        (answered(401), DENIED),
        (answered(403), DENIED),
        (answered(429, "503", "429"), DENIED),
        (answered(500, "500"), FAILED),
        (answered(503, "503", "503"), FAILED),
    ],
)
def test_the_mark_of_an_answer(exchange: Exchange, mark: str) -> None:
    assert mark_of(exchange) == mark


@pytest.mark.parametrize(
    ("fault", "mark"),
    [(Fault.NO_ROUTE, FAILED), (Fault.CLIENT_GONE, FAILED), (Fault.RATE_LIMITED, DENIED)],
)
def test_the_mark_of_a_failure(fault: Fault, mark: str) -> None:
    exchange = make_exchange()
    exchange.fail(fault, "it is so")
    assert mark_of(exchange) == mark


def test_a_fallbacks_answer_is_marked_as_a_retry_is() -> None:
    exchange = answered(200, "connect-failure")
    assert exchange.answer is not None
    exchange.mark_fallback(exchange.answer, "response", "UF", "gone")
    assert mark_of(exchange) == RETRIED


@pytest.mark.parametrize("theirs", [":heart:", ""])
def test_a_persons_mark_stays_and_so_does_its_removal(theirs: str) -> None:
    exchange = answered(503, "503")
    flow_view.annotate(exchange)
    exchange.flow.marked = theirs
    flow_view.annotate(exchange)
    assert exchange.flow.marked == theirs


def test_a_mark_follows_what_becomes_of_the_flow() -> None:
    exchange = answered(200, "503", "200")
    flow_view.annotate(exchange)
    assert exchange.flow.marked == RETRIED
    exchange.fail(Fault.CLIENT_GONE, "it has left")
    exchange.answer = None
    flow_view.annotate(exchange)
    assert exchange.flow.marked == FAILED
