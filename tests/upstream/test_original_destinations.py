"""Endpoints that callers bring along: made when met, a bounded number of them."""

from __future__ import annotations

from typing import Any

import pytest

from hms_addons.config.snapshot_interception import ORIGINAL_DESTINATION
from hms_addons.errors import ExchangeFailed
from hms_addons.upstream.original_destinations import OriginalDestinations
from tests.fakes.upstream import World, make_cluster


def world() -> World:
    return World(0, load_balancer=ORIGINAL_DESTINATION, outlier_detection=None)


def there(number: int) -> tuple[str, int]:
    return f"203.0.113.{number}", 80


async def test_an_endpoint_for_each_destination_that_is_met() -> None:
    w = world()
    w.manager.reach("auth-svc", there(1))
    first = w.cluster.endpoints[there(1)]
    w.manager.reach("auth-svc", there(2))
    w.manager.reach("auth-svc", there(1))
    assert list(w.cluster.endpoints) == [there(1), there(2)]
    assert w.cluster.endpoints[there(1)] is first, "its connections are kept"
    w.manager.reach("gone", there(3))  # forwarding will say so
    await w.close()


async def test_requests_go_there_over_pooled_connections() -> None:
    w = world()
    for number in (1, 2, 1):
        w.manager.reach("auth-svc", there(number))
        exchange = w.exchange()
        downstream: Any = type("Downstream", (), {"original": there(number)})
        exchange.downstream = downstream
        assert (await w.forward(exchange)).status == 200
        assert exchange.endpoint == f"203.0.113.{number}:80"
    assert w.connector.attempts == ["203.0.113.1:80", "203.0.113.2:80"]
    w.check_quiet()
    await w.close()


async def test_a_plugins_choice_of_endpoint_does_not_count() -> None:
    """Another original destination is another's: what was meant for one must not reach the other."""
    w = world()
    w.manager.pick_endpoint = lambda exchange, candidates: candidates[0]
    for number in (1, 2):
        w.manager.reach("auth-svc", there(number))
    exchange = w.exchange()
    downstream: Any = type("Downstream", (), {"original": there(2)})
    exchange.downstream = downstream
    await w.forward(exchange)
    assert exchange.endpoint == "203.0.113.2:80"
    await w.close()


async def test_the_oldest_that_nothing_uses_make_room() -> None:
    w = world()
    originals = OriginalDestinations(most=4)
    for number in range(1, 5):
        originals.reach(w.cluster, there(number))
    w.cluster.endpoints[there(1)].active = 1
    originals.reach(w.cluster, there(5))
    assert list(w.cluster.endpoints) == [there(1), there(4), there(5)]
    await w.close()


async def test_when_all_are_in_use_it_is_said() -> None:
    w = world()
    originals = OriginalDestinations(most=2)
    for number in (1, 2):
        originals.reach(w.cluster, there(number))
        w.cluster.endpoints[there(number)].active = 1
    with pytest.raises(ExchangeFailed, match="2 original destinations are in use") as failed:
        originals.reach(w.cluster, there(3))
    assert failed.value.failure.flag == "UO"
    originals.reach(w.cluster, there(2))
    await w.close()


async def test_a_change_of_the_cluster_forgets_them_and_they_are_met_again() -> None:
    w = world()
    w.manager.reach("auth-svc", there(1))
    w.apply(
        make_cluster(
            endpoints=(),
            connect_timeout=1.0,
            load_balancer=ORIGINAL_DESTINATION,
            outlier_detection=None,
        )
    )
    assert not w.cluster.endpoints
    w.manager.reach("auth-svc", there(1))
    assert list(w.cluster.endpoints) == [there(1)]
    await w.close()


async def test_no_configuration_can_name_the_balancer() -> None:
    w = world()
    assert ORIGINAL_DESTINATION not in w.manager.balancers
    assert w.manager.unknown_balancers(w.snapshot) == []
    await w.close()


async def test_the_sidecars_own_connections_are_known() -> None:
    w = world()
    assert not w.manager.is_own(("127.0.0.1", 40000))

    class Transport:
        def get_extra_info(self, name: str) -> Any:
            return ("127.0.0.1", 40000) if name == "sockname" else None

    connection: Any = type("Connection", (), {"transport": Transport()})
    w.manager.connections.add(connection)
    assert w.manager.is_own(("127.0.0.1", 40000))
    assert not w.manager.is_own(("127.0.0.1", 40001))
    w.manager.connections.clear()
    await w.close()
