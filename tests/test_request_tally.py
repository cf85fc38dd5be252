"""Requests are counted by what they have in common, whatever comes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.policy import Decision
from hms_addons.config.snapshot import Cluster, Direction
from hms_addons.errors import Fault, Flag
from hms_addons.exchange import Attempt
from hms_addons.http_message import Answer
from hms_addons.request_tally import BUCKETS, MAX_DECISIONS, MAX_KNOWN, RequestTally, Tally
from tests.fakes.exchange import make_exchange, make_listener

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange
    from hms_addons.request_tally import Key


class Board:
    def __init__(self) -> None:
        self.found: list[Key] = []
        self.full = 0
        self.tally = RequestTally(self.find, self.empty)

    def find(self, key: Key) -> Tally:
        self.found.append(key)
        return Tally()

    def empty(self) -> None:
        self.full += 1
        self.tally.decided.clear()


def ended(status: int = 200, **changes: Any) -> Exchange:
    exchange = make_exchange(**changes)
    exchange.cluster = Cluster(name="auth-svc-v2", service="auth-svc")
    exchange.answer = Answer(status, b"", ())
    exchange.attempts.append(Attempt("127.0.0.1:9001", 1000.0, 1000.1, str(status)))
    return exchange


def test_requests_that_are_alike_share_a_tally() -> None:
    board = Board()
    for seconds in (0.0005, 0.001, 0.3, 60.0):
        board.tally.count(ended(), 1000.0 + seconds)
    assert board.found == [(True, "auth-svc", "auth-svc-v2", 200, None, "200")]
    (tally,) = board.tally.known.values()
    assert tally.count == 4
    assert tally.seconds == pytest.approx(60.3015)
    assert [n for n, number in enumerate(tally.buckets) if number] == [0, 8, len(BUCKETS)]
    assert repr(tally) == "<Tally 4 in 60.3015s>"
    assert repr(board.tally) == "<RequestTally known=1 decided=0>"


def test_what_sets_them_apart() -> None:
    board = Board()
    outbound = make_listener(direction=Direction.OUTBOUND)
    others = [ended(), ended(500), ended(listener=outbound)]
    others.append(ended())
    others[-1].flag = Flag.URX
    others.append(ended())
    others[-1].attempts.append(others[-1].attempts[0])
    others.append(ended())
    others[-1].fail(Fault.NO_ROUTE, "no")
    others[-1].answer = others[-1].route = others[-1].cluster = None
    for exchange in others:
        board.tally.count(exchange, 1001.0)
    assert board.found == [
        (True, "auth-svc", "auth-svc-v2", 200, None, "200"),
        (True, "auth-svc", "auth-svc-v2", 500, None, "500"),
        (False, "auth-svc", "auth-svc-v2", 200, None, "200"),
        (True, "auth-svc", "auth-svc-v2", 200, Flag.URX, "200"),
        (True, "auth-svc", "auth-svc-v2", 200, None, None),
        (True, None, None, 404, Flag.NR, "200"),
    ]


def test_tallies_add_up() -> None:
    board = Board()
    for exchange in (ended(), ended(500)):
        board.tally.count(exchange, 1000.25)
    one, other = board.tally.known.values()
    one.add(other)
    assert (one.count, one.seconds) == (2, 0.5)
    assert (other.count, other.seconds) == (1, 0.25)


def test_what_policies_said_is_counted_but_never_of_endless_kinds() -> None:
    board = Board()
    exchange = ended()
    decisions = [
        Decision(allowed=True, policy="managers", reason="a"),
        Decision(allowed=True, policy="managers", reason="b"),
        Decision(allowed=False, policy=None, reason="c", would_deny="d", audit_policy="trial"),
    ]
    for exchange.decision in decisions:
        board.tally.count(exchange, 1001.0)
    assert board.tally.decided == {
        (True, "managers", False, None): 2,
        (False, None, True, "trial"): 1,
    }
    for number in range(MAX_DECISIONS):
        exchange.decision = Decision(allowed=True, policy=f"policy-{number}", reason="")
        board.tally.count(exchange, 1001.0)
    assert board.full == 1
    assert len(board.tally.decided) <= MAX_DECISIONS


def test_kinds_are_remembered_but_not_for_ever() -> None:
    board = Board()
    exchange = ended()
    for number in range(MAX_KNOWN + 5):
        exchange.attempts = [Attempt("a", 0.0, 0.0, f"outcome-{number}")]
        board.tally.count(exchange, 1001.0)
    assert len(board.tally.known) == 5
