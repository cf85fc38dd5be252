from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.control.store.leases import Leases
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping


class Ended(list[str]):
    def __call__(self, leases: Mapping[str, float]) -> None:
        self.extend(leases)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def leases_of(clock: FakeClock, **ttls: float) -> tuple[Leases, Ended]:
    leases, ended = Leases(clock, ttls), Ended()
    leases.on_end = ended
    return leases, ended


def test_each_ends_when_its_time_is_up(clock: FakeClock) -> None:
    leases, ended = leases_of(clock, a=10, b=20)
    leases.add("c", 5)
    clock.tick(5)
    assert ended == ["c"]
    clock.tick(10)
    assert ended == ["c", "a"]
    clock.tick(100)
    assert ended == ["c", "a", "b"]
    assert len(leases) == 0
    assert clock.pending == 0


def test_those_that_end_together_are_told_together(clock: FakeClock) -> None:
    calls: list[Mapping[str, float]] = []
    leases = Leases(clock, {"a": 10, "b": 10})
    leases.on_end = calls.append
    clock.tick(10)
    assert calls == [{"a": 10, "b": 10}]


def test_renewing_sets_no_timer(clock: FakeClock) -> None:
    leases, ended = leases_of(clock, a=10)
    for _ in range(100):
        clock.tick(1)
        assert leases.renew("a")
        assert clock.pending == 1
    assert ended == []
    clock.tick(10)
    assert ended == ["a"]
    assert not leases.renew("a")


def test_one_that_is_removed_does_not_end(clock: FakeClock) -> None:
    leases, ended = leases_of(clock, a=10)
    assert leases.remove("a") == 10
    assert leases.remove("a") is None
    clock.tick(20)
    assert ended == []


def test_closed_it_ends_nothing(clock: FakeClock) -> None:
    leases, ended = leases_of(clock, a=10)
    leases.close()
    assert clock.pending == 0
    clock.tick(20)
    assert ended == []
    assert repr(leases) == "<Leases 1>"


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("tick"), st.integers(0, 12)),
            st.tuples(st.just("step"), st.integers(-120, 120)),
            st.tuples(st.sampled_from(["add", "renew", "remove"]), st.integers(0, 3)),
        ),
        max_size=60,
    )
)
def test_exactly_what_was_not_renewed_in_time_has_ended(actions: list[tuple[str, int]]) -> None:
    clock = FakeClock()
    leases, ended = leases_of(clock)
    model: dict[str, float] = {}
    over: list[str] = []
    for n, (action, argument) in enumerate(actions):
        match action:
            case "add":
                leases.add(f"{n}", argument + 1)
                model[f"{n}"] = clock.monotonic() + argument + 1
            case "renew" | "remove" if model:
                lease = sorted(model)[argument % len(model)]
                if action == "remove":
                    assert leases.remove(lease)
                    del model[lease]
                else:
                    assert leases.renew(lease)
                    model[lease] = clock.monotonic() + leases._ttls[lease]
            case "tick":
                clock.tick(argument)
                gone = [lease for lease, end in model.items() if end <= clock.monotonic()]
                over += gone
                for lease in gone:
                    del model[lease]
            case "step":
                clock.step(argument)
        assert sorted(ended) == sorted(over)
        assert set(leases._ends) == set(model)
