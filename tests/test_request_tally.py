"""Requests are counted by what they have in common, whatever comes."""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.policy import Decision
from hms_addons.config.snapshot import Cluster, Direction
from hms_addons.errors import Failure, Fault, Flag
from hms_addons.exchange import Attempt
from hms_addons.http_message import Answer
from hms_addons.request_tally import BUCKETS, MAX_DECISIONS, MAX_KNOWN, RequestTally, Tally
from tests.fakes.exchange import make_exchange, make_listener, make_route

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
    board.tally.count_decisions()
    board.tally.count_decisions()
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


def test_a_request_is_looked_up_only_where_it_differs_from_the_last() -> None:
    board = Board()
    route, cluster, listener = make_route(), Cluster(name="v2", service="auth-svc"), make_listener()

    def like(**changes: Any) -> Exchange:
        exchange = ended(route=route, listener=listener)
        exchange.cluster = cluster
        for name, value in changes.items():
            setattr(exchange, name, value)
        return exchange

    def tried(outcome: str) -> list[Attempt]:
        return [Attempt("127.0.0.1:9001", 1000.0, 1000.1, outcome)]

    different: list[dict[str, Any]] = [
        {"route": make_route("other-svc")},
        {"route": None},
        {"cluster": Cluster(name="v3", service="auth-svc")},
        {"cluster": None},
        {"listener": make_listener(direction=Direction.OUTBOUND)},
        {"flag": Flag.FB},
        {"answer": Answer(204, b"", ())},
        {"answer": None},
        {"attempts": tried("reset")},
        {"attempts": []},
        {"attempts": tried("200") * 2},
        {"failure": Failure.of(Fault.NO_ROUTE, "no")},
    ]
    for changes in different:
        assert not board.tally.count(like(), 1000.25)
        several = board.tally.count(like(**changes), 1000.25)
        assert several == (len(changes.get("attempts", ())) > 1)
        assert not board.tally.count(like(), 1000.25)
    counts = sorted(tally.count for tally in board.tally.known.values())
    without_outcome = 2  # that had no try, or two
    alone = [1] * (len(different) - without_outcome)
    assert counts == [*alone, without_outcome, 2 * len(different)]


def test_what_was_known_may_be_forgotten_meanwhile() -> None:
    board = Board()
    exchange = ended()
    board.tally.count(exchange, 1001.0)
    board.tally.forget()
    board.tally.count(exchange, 1001.0)
    assert len(board.found) == 2


@given(st.floats(0, 100) | st.sampled_from(BUCKETS))
def test_a_duration_is_counted_below_the_first_bound_that_is_not_under_it(seconds: float) -> None:
    board = Board()
    exchange = ended()
    exchange.started = 0.0
    board.tally.count(exchange, seconds)
    (tally,) = board.tally.known.values()
    assert tally.buckets.index(1) == bisect_left(BUCKETS, seconds)
