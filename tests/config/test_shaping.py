from __future__ import annotations

from typing import Any

from hms_addons.config.shaping import RateLimit, Shaping, shapings
from tests.fakes.configs import snapshot_of

LIMIT: dict[str, Any] = {"name": "a", "place": "here", "requests": 1, "per": 1.0, "burst": 1}


def test_a_limit_that_changes_in_any_way_has_another_key() -> None:
    one = RateLimit(**LIMIT)
    assert one.key == RateLimit(**LIMIT).key
    for change in ({"name": "b"}, {"place": "there"}, {"requests": 2}, {"per": 2.0}, {"burst": 2}):
        assert RateLimit(**LIMIT | change).key != one.key


def test_every_shaping_is_found_once_or_twice() -> None:
    snapshot = snapshot_of(
        """
        listeners:
          - name: out
            port: 1
            routes:
              - {match: {prefix: /a}, action: {cluster: c}}
              - {match: {prefix: /b}, action: {cluster: c, rewrite: {path: /x}}}
        clusters: [{name: c}]
        """
    )
    assert {item.rewrite is not None for item in shapings(snapshot)} == {True}


def test_a_listener_s_rules_are_found_though_it_has_no_routes() -> None:
    snapshot = snapshot_of(
        """
        listeners: [{name: out, port: 1, rate_limit: {requests: 1, per: 1s}}]
        clusters: [{name: c}]
        """
    )
    assert [len(item.rate_limits) for item in shapings(snapshot)] == [1]


def test_an_empty_shaping_is_equal_to_another() -> None:
    assert Shaping() == Shaping()
