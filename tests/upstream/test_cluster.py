"""A running cluster: membership, who may be used, identity, and room for connections."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.hash_on import HashKey, HashOn
from hms_addons.config.installed import BALANCERS
from hms_addons.config.snapshot import OutlierDetection, RetryPolicy, Thresholds, UpstreamTls
from hms_addons.errors import ExchangeFailed, Flag
from hms_addons.identity.spiffe_id import SpiffeId
from hms_addons.upstream.balancers.round_robin import RoundRobin
from hms_addons.upstream.endpoint import EndpointState
from tests.fakes.upstream import OK, REFUSED, SILENCE, World, make_cluster, settle, specs

if TYPE_CHECKING:
    from hms_addons.upstream.endpoint import Endpoint

TLS = UpstreamTls(secret="mesh_certs", peers=frozenset({"svc/auth-svc"}))


def identity() -> Any:
    return SimpleNamespace(trust_domain="mpsa.mil")


def eject(world: World, number: int) -> None:
    for _ in range(5):
        world.cluster.detector.record(world.endpoint(number), 503, "test", probe=False)


# -- membership ------------------------------------------------------------------------------------


async def test_endpoints_that_stay_keep_pool_counts_and_breaker() -> None:
    world = World(3)
    await world.get(3)
    eject(world, 1)
    kept = [world.endpoint(1), world.endpoint(2)]
    pools = [endpoint.pool for endpoint in kept]
    world.apply(make_cluster(endpoints=specs(2, weight=5, zone="b")))
    assert [world.endpoint(1), world.endpoint(2)] == kept
    assert [endpoint.pool for endpoint in kept] == pools
    assert [endpoint.spec.weight for endpoint in kept] == [5, 5]
    assert kept[0].state is EndpointState.OPEN
    assert world.cluster.candidates == [kept[1]]
    assert kept[1].requests == 1
    assert len(kept[1].pool.idle) == 1
    await world.close()


async def test_an_unchanged_cluster_is_left_alone() -> None:
    world = World(2)
    candidates = world.cluster.candidates
    world.apply(make_cluster(endpoints=specs(2)))
    assert world.cluster.candidates is candidates
    await world.close()


async def test_the_order_of_the_configuration_is_kept() -> None:
    world = World(2)
    world.apply(make_cluster(endpoints=specs(3)[::-1]))
    assert [key[0] for key in world.cluster.endpoints] == ["10.0.0.3", "10.0.0.2", "10.0.0.1"]
    await world.close()


async def test_settings_change_in_place() -> None:
    world = World(2)
    await world.get(2)
    eject(world, 1)
    world.apply(
        make_cluster(
            endpoints=specs(2),
            load_balancer="random",
            idle_timeout=5.0,
            thresholds=Thresholds(max_requests=0),
            outlier_detection=None,
        )
    )
    assert world.endpoint(1).state is EndpointState.CLOSED
    assert world.cluster.describe()["load_balancer"] == "random"
    assert world.endpoint(1).pool.idle_timeout == 5.0
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward()
    assert caught.value.failure.flag is Flag.UO
    await world.close()


# -- who may be used -------------------------------------------------------------------------------


async def test_ejected_endpoints_are_no_candidates_until_half_open() -> None:
    world = World(2)
    eject(world, 1)
    assert world.cluster.candidates == [world.endpoint(2)]
    await world.clock.advance(30)
    assert world.cluster.candidates == [world.endpoint(1), world.endpoint(2)]
    world.cluster.detector.begin_probe(world.endpoint(1))
    assert world.cluster.candidates == [world.endpoint(2)]
    await world.close()


async def test_a_retry_goes_to_an_endpoint_not_yet_tried() -> None:
    world = World(4)
    exchange = world.exchange()
    for _ in range(50):
        tried: list[Endpoint] = []
        for _ in range(4):
            endpoint = world.cluster.pick(exchange, tried)
            assert endpoint is not None
            assert endpoint not in tried
            tried.append(endpoint)
        assert world.cluster.pick(exchange, tried) in tried  # when all were, any will do
    await world.close()


@pytest.mark.parametrize("balancer", ["random", "least_request"])
async def test_also_when_the_balancer_insists(balancer: str) -> None:
    world = World(2, load_balancer=balancer)
    exchange, first = world.exchange(), world.endpoint(1)
    for _ in range(100):
        assert world.cluster.pick(exchange, [first]) is world.endpoint(2)
    await world.close()


async def test_a_plugin_may_choose() -> None:
    world = World(3)
    offered: list[Any] = []

    def choose(exchange: object, candidates: Any) -> Endpoint | None:
        offered.append(list(candidates))
        return world.endpoint(3) if len(offered) == 1 else None

    world.manager.pick_endpoint = choose
    exchange = world.exchange()
    assert world.cluster.pick(exchange, []) is world.endpoint(3)
    assert world.cluster.pick(exchange, [world.endpoint(1)]) in world.cluster.candidates
    assert offered[1] == [world.endpoint(2), world.endpoint(3)]
    await world.close()


async def test_a_plugin_that_chooses_a_stranger_is_told() -> None:
    world = World(2)
    eject(world, 1)
    world.manager.pick_endpoint = lambda exchange, candidates: world.endpoint(1)
    with pytest.raises(ExchangeFailed, match="hms_pick_endpoint chose") as caught:
        await world.forward()
    assert caught.value.failure.flag is Flag.PE
    world.check_quiet()
    await world.close()


# -- identity --------------------------------------------------------------------------------------


async def test_without_its_secret_a_cluster_never_goes_plain() -> None:
    world = World(tls=TLS)
    with pytest.raises(ExchangeFailed, match="'mesh_certs'") as caught:
        await world.forward()
    assert caught.value.failure.flag is Flag.UF
    assert world.connector.attempts == []
    assert world.endpoint().consecutive_5xx == 0, "the endpoint is not to blame"
    world.check_quiet()
    await world.close()


async def test_connections_are_made_with_the_identity_of_the_moment() -> None:
    world = World(tls=TLS)
    world.identities["mesh_certs"] = first = identity()
    await world.get(2)
    (tls,) = world.connector.tls
    assert tls is not None
    assert tls.identity is first
    assert tls.peers == {SpiffeId.parse("spiffe://mpsa.mil/svc/auth-svc")}
    world.identities["mesh_certs"] = second = identity()
    await world.get(2)
    assert [t.identity for t in world.connector.tls if t] == [first, second]
    assert world.peer().transports[0].closing
    assert repr(world.endpoint().pool).endswith("idle=1 connecting=0 epoch=2>")
    await world.close()


async def test_a_secret_that_goes_away_stops_traffic_even_on_pooled_connections() -> None:
    world = World(tls=TLS)
    world.identities["mesh_certs"] = identity()
    await world.get()
    del world.identities["mesh_certs"]
    with pytest.raises(ExchangeFailed, match="nothing is sent in plain text"):
        await world.forward()
    await world.close()


async def test_turning_tls_on_retires_plain_connections() -> None:
    world = World()
    await world.get()
    world.apply(make_cluster(tls=TLS))
    assert world.peer().transports[0].closing
    world.identities["mesh_certs"] = identity()
    await world.get()
    assert [tls is None for tls in world.connector.tls] == [True, False]
    world.apply(make_cluster())
    await world.get()
    assert world.connector.tls[-1] is None
    await world.close()


async def test_a_peer_id_that_is_none_is_named() -> None:
    world = World(tls=UpstreamTls(secret="s", peers=frozenset({"spiffe://BAD/x"})))
    world.identities["s"] = identity()
    with pytest.raises(ExchangeFailed, match="tls peers"):
        await world.forward()
    await world.close()


# -- room ------------------------------------------------------------------------------------------


async def test_idle_connections_make_room_for_new_ones() -> None:
    """Otherwise idle connections to one endpoint would keep requests from another."""
    world = World(2, thresholds=Thresholds(max_connections=2))
    for number in (1, 2):
        world.peer(number).say(SILENCE)
    eject(world, 2)
    requests = [asyncio.create_task(world.forward()) for _ in range(2)]
    await settle()
    for transport in world.peer(1).transports:
        world.peer(1).send(transport, OK)
    await asyncio.gather(*requests)
    assert len(world.endpoint(1).pool.idle) == 2
    eject(world, 1)
    await world.clock.advance(30)
    world.peer(1).say(OK)
    world.peer(2).say(OK)
    await world.get(4)
    assert world.connector.open <= 2
    world.check_quiet()
    await world.close()


# -- description -----------------------------------------------------------------------------------


async def test_description_of_a_cluster_in_trouble() -> None:
    world = World(2, outlier_detection=OutlierDetection(base_ejection_time=20.0))
    await world.get(2)
    assert world.cluster.describe()["state"] == "closed"
    eject(world, 1)
    eject(world, 2)
    await world.clock.advance(5)
    description = world.cluster.describe()
    assert description["state"] == "open"
    assert description["retry_in_seconds"] == 15
    assert description["hash_on"] is None
    assert description["panic"] is False
    assert description["levels"] == [
        {
            "priority": 0,
            "load_percent": 0,
            "panic": False,
            "endpoints": 2,
            "usable": 0,
            "own_zone": None,
            "own_zone_load_percent": None,
        }
    ]
    assert description["endpoints"][0] == {
        "address": "10.0.0.1:80",
        "weight": 1,
        "effective_weight": 1.0,
        "slow_start": False,
        "zone": "",
        "priority": 0,
        "state": "open",
        "cause": "5 gateway failures in a row, the last: test",
        "for_seconds": 5,
        "retry_in_seconds": 15,
        "ejections_in_a_row": 1,
        "active_requests": 0,
        "requests_total": 1,
        "successes_total": 1,
        "failures_total": 5,
        "connections": {"active": 0, "idle": 1, "connecting": 0},
    }
    await world.close()


async def test_repr() -> None:
    world = World(2)
    eject(world, 1)
    assert repr(world.cluster).startswith("<Cluster auth-svc endpoints=2 usable=1 <CircuitBreaker")
    assert repr(World(0).cluster).startswith("<Cluster auth-svc endpoints=0 usable=0")
    assert World(0).cluster.describe()["state"] == "empty"
    await world.close()


# -- balancing -------------------------------------------------------------------------------------

BY_USER = HashOn(kind=HashKey.HEADER, name="x-user")


def by(world: World, user: str) -> Any:
    return world.exchange(fields=((b"Host", b"auth-svc.svc"), (b"X-User", user.encode())))


async def test_the_plain_case_is_the_balancers_own_pick() -> None:
    world = World(3)
    assert world.cluster._pick.__name__ == "pick"
    assert isinstance(world.cluster._pick.__self__, RoundRobin)  # type: ignore[attr-defined]
    assert world.cluster.attempt_ended is None
    await world.close()


@pytest.mark.parametrize("balancer", ["ring_hash", "maglev"])
async def test_the_same_user_goes_to_the_same_endpoint_and_a_retry_to_the_keys_next(
    balancer: str,
) -> None:
    world = World(5, load_balancer=balancer, hash_on=BY_USER)
    cluster = world.cluster
    assert cluster.describe()["hash_on"] == "header x-user"
    for n in range(20):
        exchange = by(world, f"user-{n}")
        first = cluster.pick(exchange, [])
        assert first is not None
        assert cluster.pick(exchange, []) is first
        second = cluster.pick(exchange, [first])
        assert second is not first
        assert cluster.pick(exchange, [first]) is second, "not any other, but the next"
    await world.close()


async def test_every_balancer_retries_elsewhere() -> None:
    for balancer in BALANCERS:
        world = World(4, load_balancer=balancer, hash_on=BY_USER)
        tried: list[Endpoint] = []
        for _ in range(4):
            endpoint = world.cluster.pick(by(world, "anna"), tried)
            assert endpoint is not None
            assert endpoint not in tried, balancer
            tried.append(endpoint)
        assert not world.cluster.has_other(tried)
        await world.close()


async def test_a_newcomer_and_one_that_comes_back_start_slowly() -> None:
    world = World(2, slow_start=30.0, outlier_detection=OutlierDetection(base_ejection_time=1.0))
    assert [e.weight for e in world.cluster.endpoints.values()] == [1, 1]
    world.apply(make_cluster(endpoints=specs(3), slow_start=30.0))
    assert world.endpoint(3).weight == pytest.approx(0.1)
    assert world.cluster.describe()["endpoints"][2]["slow_start"] is True
    picked = [world.cluster.pick(world.exchange(), []) for _ in range(210)]
    assert picked.count(world.endpoint(3)) == 10
    eject(world, 1)
    await world.clock.advance(31)
    assert world.endpoint(3).weight == 1
    assert world.endpoint(1).state is EndpointState.HALF_OPEN
    world.cluster.detector.begin_probe(world.endpoint(1))
    world.cluster.detector.record(world.endpoint(1), 200, "", probe=True)
    assert world.endpoint(1).weight == pytest.approx(0.1)
    await world.clock.advance(15)
    assert world.endpoint(1).weight == pytest.approx(0.5)
    world.apply(make_cluster(endpoints=specs(3)))
    assert world.endpoint(1).weight == 1
    await world.close()
    assert world.clock.pending == 0


async def test_a_tripped_level_spills_and_panic_uses_what_is_ejected() -> None:
    members = (*specs(2), *specs(4, priority=1)[2:])
    world = World(panic_threshold=50)
    world.apply(make_cluster(endpoints=members, panic_threshold=50))
    eject(world, 1)
    eject(world, 2)
    assert world.cluster.candidates == [world.endpoint(3), world.endpoint(4)]
    assert world.cluster.describe()["panic"] is False
    eject(world, 3)
    assert world.cluster.candidates == [world.endpoint(4)], "half of it is not less than half"
    eject(world, 4)
    description = world.cluster.describe()
    assert description["panic"] is True
    assert [level["load_percent"] for level in description["levels"]] == [50, 50]
    assert len(world.cluster.candidates) == 4
    assert await world.get() == [200], "so requests are sent, to ejected ones too"
    await world.close()


async def test_with_the_threshold_at_zero_a_tripped_cluster_is_never_called() -> None:
    world = World(1)
    eject(world, 1)
    with pytest.raises(ExchangeFailed) as caught:
        await world.forward()
    assert caught.value.failure.flag is Flag.UH
    assert world.peer().requests == []
    await world.close()


async def test_ewma_is_told_how_long_every_attempt_took() -> None:
    world = World(2, load_balancer="ewma", retry=RetryPolicy(attempts=1))
    world.peer(1).say(SILENCE)
    world.peer(2).on_connect(REFUSED)
    told: list[tuple[str, float, int]] = []
    world.cluster.attempt_ended = lambda endpoint, seconds, status: told.append(
        (endpoint.address, seconds, status)
    )
    request = asyncio.create_task(world.forward())
    await settle()
    await world.clock.advance(0.5)
    for transport in world.peer(1).transports:
        world.peer(1).send(transport, OK)
    assert (await request).status == 200
    assert ("10.0.0.1:80", 0.5, 200) in told
    assert all(status == 503 for address, _, status in told if address == "10.0.0.2:80")
    await world.close()


async def test_ewma_leaves_the_slow_one() -> None:
    world = World(2, load_balancer="ewma")
    learn = world.cluster.attempt_ended
    assert learn is not None
    learn(world.endpoint(1), 2.0, 200)
    assert {world.cluster.pick(world.exchange(), []) for _ in range(20)} == {world.endpoint(2)}
    await world.close()


# -- by hand ---------------------------------------------------------------------------------------


async def test_an_endpoint_that_is_open_by_hand_is_not_used() -> None:
    world = World(2)
    first, second = world.endpoint(1), world.endpoint(2)
    assert world.cluster.open_by_hand(first.address, 60.0) == [first.address]
    assert world.cluster.candidates == [second]
    assert world.cluster.describe()["endpoints"][0]["by_hand"] is True
    assert world.cluster.open_by_hand("127.0.0.1:1", 60.0) == []
    assert world.cluster.mend() == [first.address]
    assert world.cluster.candidates == [first, second]
    await world.close()


async def test_a_whole_cluster_is_open_by_hand_whatever_panic_says() -> None:
    world = World(2)
    world.apply(make_cluster(endpoints=specs(2), panic_threshold=100))
    assert len(world.cluster.open_by_hand(None, 60.0)) == 2
    assert world.cluster.candidates == []
    assert world.cluster.describe()["state"] == "open"
    with pytest.raises(ExchangeFailed) as caught:
        await world.get(1)
    assert caught.value.failure.flag is Flag.UH
    assert "opened by hand for 60s; hms.mend closes it" in caught.value.failure.detail
    await world.close()
