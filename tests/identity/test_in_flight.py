from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.identity import in_flight
from hms_addons.identity.in_flight import LINGER, MAX_LINGERING, InFlight
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from hms_addons.identity.in_flight import Held

ALICE, BOB = b"Bearer alice", b"Bearer bob"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def requests(clock: FakeClock) -> InFlight:
    return InFlight(clock)


def token_of(requests: InFlight, *identifiers: bytes) -> bytes | None:
    return requests.find(identifiers).token


def test_each_identifier_of_a_request_stands_for_its_token_while_it_is_in_flight(
    requests: InFlight,
) -> None:
    held = requests.add([b"r1", b"t1"], ALICE)
    assert token_of(requests, b"r1") == token_of(requests, b"t1", b"r1") == ALICE
    assert token_of(requests, b"t1", b"unknown") == ALICE
    assert token_of(requests, b"unknown") is token_of(requests) is None
    assert len(requests) == 1
    requests.remove(held)
    assert token_of(requests, b"r1") is token_of(requests, b"t1") is None
    assert len(requests) == 0


def test_several_requests_of_one_caller_share_an_identifier(requests: InFlight) -> None:
    first, second = requests.add([b"t"], ALICE), requests.add([b"t"], ALICE)
    requests.remove(first)
    assert token_of(requests, b"t") == ALICE
    requests.remove(second)
    assert token_of(requests, b"t") is None


@pytest.mark.parametrize("other", [BOB, None])
def test_an_identifier_that_two_callers_have_stands_for_neither(
    requests: InFlight, other: bytes | None
) -> None:
    first = requests.add([b"x", b"a"], ALICE)
    second = requests.add([b"x", b"b"], other)
    assert requests.find([b"x"]) == (None, True)
    assert token_of(requests, b"a") == ALICE
    requests.remove(second)
    assert token_of(requests, b"x") is None, "the other may still be at work"
    requests.remove(first)
    third = requests.add([b"x"], ALICE)
    assert token_of(requests, b"x") is None
    requests.remove(third)


def test_identifiers_of_two_callers_together_stand_for_neither(requests: InFlight) -> None:
    requests.add([b"a"], ALICE)
    requests.add([b"b"], BOB)
    requests.add([b"n"], None)
    assert requests.find([b"a", b"b"]) == (None, True)
    assert requests.find([b"a", b"n"]) == requests.find([b"n", b"a"]) == (None, True)
    assert requests.find([b"n"]) == (None, False)


def test_an_identifier_stays_its_callers_for_a_minute(requests: InFlight, clock: FakeClock) -> None:
    """The app may go on working for a request that it has answered, and must not for another."""
    requests.remove(requests.add([b"x"], BOB))
    clock.tick(LINGER - 1)
    requests.remove(requests.add([b"x"], ALICE))
    assert requests.find([b"x"]) == (None, True)
    clock.tick(LINGER)
    requests.add([b"x"], ALICE)
    assert token_of(requests, b"x") == ALICE


def test_the_same_caller_again_is_known_at_once(requests: InFlight) -> None:
    requests.remove(requests.add([b"x"], ALICE))
    requests.add([b"x"], ALICE)
    assert token_of(requests, b"x") == ALICE


def test_what_lingers_is_bounded_and_holds_no_token(requests: InFlight) -> None:
    for number in range(MAX_LINGERING + 100):
        requests.remove(requests.add([b"%d" % number], ALICE))
    assert f"identifiers={MAX_LINGERING} lingering={MAX_LINGERING}" in repr(requests)
    assert all(holder.token is None for holder in requests._lingering.values())


def test_while_there_are_too_many_requests_nothing_stands_for_anything(
    requests: InFlight, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_flight, "MAX_REQUESTS", 2)
    first = requests.add([b"a"], ALICE)
    requests.add([b"b"], BOB)
    third = requests.add([b"a"], BOB)
    assert requests.overflowing
    assert requests.find([b"a"]) == requests.find([b"b"]) == (None, True)
    requests.remove(third)
    assert not requests.overflowing
    assert token_of(requests, b"a") == ALICE
    requests.remove(first)
    assert len(requests) == 1


def test_a_request_without_identifiers_is_only_counted(requests: InFlight) -> None:
    held = requests.add([], ALICE)
    assert len(requests) == 1
    requests.remove(held)
    assert (len(requests), requests.overflowing) == (0, False)


def test_long_identifiers_are_kept_by_digest(requests: InFlight) -> None:
    long = b"x" * 60_000
    requests.add([long], ALICE)
    requests.add([long + b"y"], BOB)
    assert token_of(requests, long) == ALICE
    assert max(map(len, requests._holders)) == 32


IDS = st.sampled_from([b"1", b"2", b"3"])


@given(
    st.lists(
        st.one_of(
            st.tuples(st.sets(IDS, max_size=2), st.sampled_from([ALICE, BOB, None])),
            st.integers(0, 20),
            st.just("minute"),
        ),
        max_size=40,
    )
)
def test_nobody_ever_gets_anothers_token(steps: list[object]) -> None:
    """An identifier gives a token only if all who have had it, in flight or lately, brought it."""
    clock = FakeClock()
    requests = InFlight(clock)
    live: list[tuple[Held, set[bytes], bytes | None]] = []
    for step in steps:
        if isinstance(step, tuple):
            live.append((requests.add(step[0], step[1]), *step))
        elif isinstance(step, int) and live:
            requests.remove(live.pop(step % len(live))[0])
        elif step == "minute":
            clock.tick(LINGER)
        for identifier in (b"1", b"2", b"3"):
            callers = {token for _, ids, token in live if identifier in ids}
            found = token_of(requests, identifier)
            assert found is None or callers == {found}
    for held, _, _ in live:
        requests.remove(held)
    clock.tick(LINGER)
    requests.remove(requests.add([], None))
    assert repr(requests) == "<InFlight requests=0 unknown=0 identifiers=0 lingering=0>"
