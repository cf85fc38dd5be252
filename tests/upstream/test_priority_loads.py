"""Envoy's arithmetic, with the tables of its documentation as vectors.

https://www.envoyproxy.io/docs/envoy/latest/intro/arch_overview/upstream/load_balancing/priority and
…/panic_threshold. Health there is the share of usable endpoints, here of a hundred.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.upstream.priority_loads import availability, in_panic, loads, loads_by_size


def of_health(*percents: int) -> list[int]:
    return loads([availability(percent, 100) for percent in percents])


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        ((100, 100), [100, 0]),
        ((72, 100), [100, 0]),
        ((71, 100), [99, 1]),
        ((50, 100), [70, 30]),
        ((25, 100), [35, 65]),
        ((0, 100), [0, 100]),
        ((25, 25), [50, 50]),  # 35 + 35 scaled up
        ((100, 100, 100), [100, 0, 0]),
        ((72, 72, 100), [100, 0, 0]),
        ((71, 71, 100), [99, 1, 0]),
        ((50, 50, 100), [70, 30, 0]),
        ((25, 100, 100), [35, 65, 0]),
        ((25, 25, 100), [35, 35, 30]),
    ],
)
def test_envoys_table_of_priority_loads(health: tuple[int, ...], expected: list[int]) -> None:
    assert of_health(*health) == expected


@pytest.mark.parametrize(
    ("health", "expected"),
    [
        # 28 + 28 + 14 = 70. (Of 25, 25 and 20 its documentation says 36, 36, 28; its code, and we,
        # round down and give what is left to the first: 37, 35, 28.)
        ((20, 20, 10), [40, 40, 20]),
        ((25, 25, 20), [37, 35, 28]),
        ((20, 0, 30), [40, 0, 60]),
    ],
)
def test_what_is_missing_is_made_up_in_proportion(
    health: tuple[int, ...], expected: list[int]
) -> None:
    assert of_health(*health) == expected


@pytest.mark.parametrize(
    ("usable", "panics"),
    [
        # Envoy's table for a threshold of 50%.
        ((72, 72), [False, False]),
        ((71, 71), [False, False]),
        ((50, 60), [False, False]),
        ((25, 100), [False, False]),
        ((25, 25), [True, True]),
        ((5, 65), [True, False]),
    ],
)
def test_envoys_table_of_panic(usable: tuple[int, ...], panics: list[bool]) -> None:
    assert in_panic(usable, [100] * len(usable), 50) == panics


def test_panic_is_off_at_zero_and_total_where_nothing_is_left() -> None:
    assert in_panic([0, 0], [3, 3], 0) == [False, False]
    assert in_panic([0, 0], [3, 3], 1) == [True, True]


def test_with_one_level_the_threshold_is_taken_at_its_word() -> None:
    """*Ours*: Envoy would wait until 71%, as if there were another level to take the load."""
    assert in_panic([3], [4], 80) == [True]
    assert in_panic([4], [5], 80) == [False]
    assert in_panic([2], [4], 50) == [False]
    assert in_panic([1], [4], 50) == [True]


def test_in_total_panic_levels_share_by_size() -> None:
    assert loads_by_size([3, 1]) == [75, 25]
    assert loads_by_size([1, 1, 1]) == [34, 33, 33]
    assert loads_by_size([0, 0]) == [0, 0]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=6))
def test_loads_sum_to_a_hundred_or_nothing(levels: list[tuple[int, int]]) -> None:
    available = [availability(min(usable, total), total) for usable, total in levels]
    found = loads(available)
    assert sum(found) == (100 if any(available) else 0)
    assert all(share >= 0 for share in found)
    assert all(available[n] for n, share in enumerate(found) if share)


@given(st.integers(0, 100), st.integers(0, 100))
def test_a_level_takes_no_more_than_it_can_while_a_lower_one_has_room(one: int, other: int) -> None:
    first, second = availability(one, 100), availability(other, 100)
    found = loads([first, second])
    if first + second >= 100:
        assert found == [first, 100 - first]
