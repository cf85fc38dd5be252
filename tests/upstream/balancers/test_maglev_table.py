"""Maglev's table: even, in proportion, and little disturbed."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import TYPE_CHECKING

from hms_addons.upstream.balancers.maglev_table import SIZE, fill, orders, turns

if TYPE_CHECKING:
    from array import array
    from collections.abc import Sequence


def table(names: Sequence[str], weights: Sequence[int] | None = None) -> array[int]:
    for made in fill(names, weights or [1] * len(names)):
        if made is not None:
            return made
    raise AssertionError("it never ends")


NAMES = [f"10.0.0.{n}:80" for n in range(5)]


def test_every_order_is_a_way_through_all_places() -> None:
    first, step = orders(NAMES[0])
    assert len({(first + n * step) % SIZE for n in range(SIZE)}) == SIZE


def test_shares_are_even_to_within_a_place() -> None:
    counts = Counter(table(NAMES))
    assert set(counts) == set(range(5))
    assert max(counts.values()) - min(counts.values()) <= 1


def test_shares_follow_weights() -> None:
    counts = Counter(table(NAMES[:3], [1, 2, 7]))
    for index, weight in enumerate([1, 2, 7]):
        assert abs(counts[index] - SIZE * weight / 10) <= 3


def test_turns_are_taken_in_proportion() -> None:
    taken = Counter(itertools.islice(turns([1, 3, 2]), 600))
    assert taken == {0: 100, 1: 300, 2: 200}
    assert list(itertools.islice(turns([4, 4]), 4)) == [0, 1, 0, 1]


def test_a_light_one_among_many_heavy_ones_gets_its_turn() -> None:
    assert 0 in Counter(itertools.islice(turns([1, 1_000_000]), 1_000_001))


def test_one_that_goes_moves_little_but_its_own() -> None:
    before, after = table(NAMES), table(NAMES[:4])
    moved = sum(a != b for a, b in zip(before, after, strict=True) if a != 4)
    assert moved / SIZE < 0.1
    assert all(b < 4 for b in after)


def test_it_stops_for_a_breath_every_thousand_places() -> None:
    steps = list(fill(NAMES, [1] * 5))
    assert len(steps) > 60
    assert all(step is None for step in steps[:-1])
    assert steps[-1] is not None
