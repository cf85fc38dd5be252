from __future__ import annotations

from random import Random

from hms_addons.control_client.backoff import FIRST, LONGEST, Backoff


def test_pauses_double_up_to_thirty_seconds() -> None:
    backoff = Backoff(Random(1))
    pauses = [backoff.next() for _ in range(200)]
    for count, pause in enumerate(pauses):
        whole = min(LONGEST, FIRST * 2.0 ** min(count, 16))
        assert whole / 2 <= pause <= whole
    assert pauses[-1] <= 30
    assert repr(backoff) == "<Backoff failures=200>"


def test_two_sidecars_do_not_come_back_at_one_moment() -> None:
    assert Backoff(Random(1)).next() != Backoff(Random(2)).next()


def test_a_success_begins_anew() -> None:
    backoff = Backoff(Random(1))
    for _ in range(10):
        backoff.next()
    backoff.reset()
    assert backoff.next() <= FIRST


def test_what_the_other_side_asks_for_is_honoured_within_bounds() -> None:
    assert Backoff(Random(1)).next(at_least=7) == 7
    assert Backoff(Random(1)).next(at_least=3600) == LONGEST
