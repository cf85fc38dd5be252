"""What callers are told: place, cause and remedy, under the right status and flag."""

from __future__ import annotations

import pytest

from hms_addons.errors import Flag
from hms_addons.exchange import Attempt
from hms_addons.upstream import failures
from hms_addons.upstream.outcome import FAULTS, WRONG_PEER, Outcome, UpstreamError
from tests.fakes.upstream import World


@pytest.mark.parametrize("outcome", list(Outcome))
async def test_every_lost_attempt_names_place_cause_and_remedy(outcome: Outcome) -> None:
    world = World()
    exchange = world.exchange()
    exchange.endpoint = "10.0.0.1:80"
    failed = failures.lost(
        exchange, world.route, UpstreamError(outcome, "went wrong"), timed_out=False
    ).failure
    assert (failed.status, failed.flag, failed.title) == FAULTS[outcome].value
    place, _, remedy = failed.detail.partition("went wrong; ")
    assert place == "route verify-id, cluster auth-svc: endpoint 10.0.0.1:80: "
    assert len(remedy) > 5
    await world.close()


async def test_the_wrong_peer_is_no_matter_of_reaching_it() -> None:
    world = World()
    error = UpstreamError(Outcome.CONNECT_FAILURE, f"{WRONG_PEER}: expected a, found b")
    failed = failures.lost(world.exchange(), world.route, error, timed_out=False).failure
    assert failed.detail.endswith(
        "found b; which service is at this address? `tls_context.peers` says who may be"
    )
    await world.close()


async def test_several_attempts_are_told_one_by_one() -> None:
    world = World()
    exchange = world.exchange()
    exchange.endpoint = "b"
    exchange.attempts = [Attempt("a", 0, 1, "503"), Attempt("b", 1, 2, "timeout")]
    error = UpstreamError(Outcome.TIMEOUT, "gave no response in time")
    failed = failures.lost(exchange, world.route, error, timed_out=True).failure
    assert failed.detail == (
        "route verify-id, cluster auth-svc: endpoint b: gave no response in time "
        "(2 attempts: a 503, b timeout); the route's timeout is 15s"
    )
    await world.close()


async def test_an_open_cluster_says_since_why_and_for_how_long() -> None:
    world = World(2)
    for endpoint in world.cluster.endpoints.values():
        for _ in range(5):
            world.cluster.detector.record(endpoint, 503, "connection refused", probe=False)
    failed = failures.no_endpoint(world.route, world.cluster).failure
    cause = "(5 gateway failures in a row, the last: connection refused)"
    assert failed.detail == (
        "route verify-id, cluster auth-svc: no endpoint is in use: "
        f"10.0.0.1:80 is open {cause}; 10.0.0.2:80 is open {cause}; the first is tried again in 30s"
    )
    assert (failed.flag, failed.retry_after) == (Flag.UH, 30)
    await world.close()


def test_forwarding_without_a_route_is_no_crash() -> None:
    assert failures.no_route().failure.flag is Flag.NR
