from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.benchmark.machine import Placement, available_cores, commit, describe, running_on

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("cores", "proxies", "load"),
    [({0}, {0}, {0}), ({0, 1}, {0}, {1}), ({2, 5, 7, 3}, {2}, {3, 5, 7})],
)
def test_the_proxies_have_a_core_to_themselves(
    cores: set[int], proxies: set[int], load: set[int]
) -> None:
    placement = Placement.on(frozenset(cores))
    assert (placement.proxies, placement.load) == (frozenset(proxies), frozenset(load))


def test_this_thread_comes_back_from_where_it_ran() -> None:
    before = available_cores()
    with running_on(frozenset({min(before)})):
        assert available_cores() == {min(before)}
    assert available_cores() == before


def test_a_description_is_json_and_names_the_cores() -> None:
    described = describe(Placement.on(available_cores()))
    assert described["cores"] == len(available_cores())
    assert described["versions"]["mitmproxy"]


def test_without_a_repository_the_commit_is_unknown(tmp_path: Path) -> None:
    assert commit(tmp_path) == "unknown"
