"""Endpoint: its text and its description."""

from __future__ import annotations

from hms_addons.upstream.endpoint import EndpointState
from tests.fakes.upstream import World


async def test_repr_says_what_matters() -> None:
    world = World()
    endpoint = world.endpoint()
    assert repr(endpoint) == "<Endpoint auth-svc 10.0.0.1:80 closed active=0>"
    endpoint.state = EndpointState.HALF_OPEN
    endpoint.probing = True
    endpoint.cause = "5 gateway failures in a row"
    endpoint.active = 1
    endpoint.drained = True
    assert repr(endpoint) == (
        "<Endpoint auth-svc 10.0.0.1:80 half-open active=1 probing (5 gateway failures in a row) "
        "drained>"
    )
    await world.close()


async def test_description_tells_how_long_it_stays_open() -> None:
    world = World()
    endpoint = world.endpoint()
    now = world.clock.monotonic()
    assert endpoint.describe(now)["retry_in_seconds"] is None
    endpoint.state = EndpointState.OPEN
    endpoint.ejected_until = now + 12.5
    assert endpoint.describe(now)["retry_in_seconds"] == 12.5
    assert endpoint.describe(now + 60)["retry_in_seconds"] == 0
    assert endpoint.describe(now + 60)["for_seconds"] == 60
    await world.close()


async def test_endpoints_are_compared_by_identity() -> None:
    world = World(endpoints=2)
    assert world.endpoint(1) != world.endpoint(2)
    assert len({world.endpoint(1), world.endpoint(1)}) == 1
    await world.close()
