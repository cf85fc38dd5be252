"""One check: what is sent, what counts as well, whose trouble it is, and that nothing is left behind."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import UpstreamTls
from hms_addons.config.snapshot_health import HealthCheck
from hms_addons.identity.identity_holder import Identity, SecretMaterial
from hms_addons.upstream.health_probe import HealthProbe, Verdict, encode_check, judge
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.pki import bundle, svid
from tests.fakes.upstream import CLOSE, OK, REFUSED, SILENCE, World, settle

if TYPE_CHECKING:
    from collections.abc import Awaitable

HTTP = HealthCheck()
TCP = HealthCheck(path=None)


def check(world: World, settings: HealthCheck = HTTP) -> Awaitable[Verdict]:
    return HealthProbe(world.manager)(world.cluster, world.endpoint(), settings)


async def closed(world: World) -> None:
    await settle()
    assert world.connector.open == 0
    assert not world.manager.connections
    assert world.clock.pending == 0
    world.check_quiet()
    await world.close()


async def test_a_good_answer_passes_over_a_connection_of_its_own() -> None:
    world = World()
    await world.get()
    (idle,) = world.endpoint().pool.idle
    for _ in range(2):
        assert await check(world) == Verdict(passed=True)
    assert world.connector.attempts == ["10.0.0.1:80"] * 3
    assert world.endpoint().pool.idle == [idle], "no request's connection was touched"
    assert world.endpoint().requests == 1, "a check is no request"
    await settle()
    assert world.connector.open == 1
    await world.close()


def test_the_request_of_a_check() -> None:
    assert encode_check(HTTP, "auth-svc") == (
        b"GET /health HTTP/1.1\r\nHost: auth-svc\r\nUser-Agent: hms-health-check\r\n"
        b"Connection: close\r\n\r\n"
    )
    custom = HealthCheck(
        path="/up?deep=1", method="POST", headers=(("user-agent", "probe"), ("X-Check", "1"))
    )
    assert encode_check(custom, "a") == (
        b"POST /up?deep=1 HTTP/1.1\r\nHost: a\r\nuser-agent: probe\r\nContent-Length: 0\r\n"
        b"X-Check: 1\r\nConnection: close\r\n\r\n"
    )


async def test_the_host_is_the_service_or_what_is_configured() -> None:
    world = World()
    await check(world)
    await check(world, HealthCheck(host="health.internal"))
    first, second = world.peer().checks
    assert b"\r\nHost: auth-svc\r\n" in first
    assert b"\r\nHost: health.internal\r\n" in second
    await closed(world)


@pytest.mark.parametrize(
    ("status", "statuses", "passes"),
    [
        (200, ((200, 299),), True),
        (299, ((200, 299),), True),
        (300, ((200, 299),), False),
        (503, ((200, 299),), False),
        (401, ((200, 299), (401, 401)), True),
    ],
)
def test_the_status_decides(
    status: int, statuses: tuple[tuple[int, int], ...], *, passes: bool
) -> None:
    assert judge(status, HealthCheck(statuses=statuses)).passed is passes


async def test_a_wrong_status_is_named_with_the_right_ones() -> None:
    world = World()
    world.peer().on_check(b"HTTP/1.1 503 Down\r\nContent-Length: 0\r\n\r\n")
    verdict = await check(world, HealthCheck(statuses=((200, 299), (401, 401))))
    assert verdict == Verdict(passed=False, why="/health answered 503, not 200-299, 401")
    await closed(world)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (CLOSE, "closed the connection without a response"),
        (OSError("reset"), "reset the connection without a response"),
        (b"220 smtp\r\n", "broke HTTP/1.1"),
    ],
)
async def test_no_answer_fails_and_says_how(line: Any, why: str) -> None:
    world = World()
    world.peer().on_check(line)
    verdict = await check(world)
    assert verdict.passed is False
    assert why in verdict.why
    await closed(world)


async def test_only_the_head_is_waited_for() -> None:
    world = World()
    world.peer().on_check(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel")
    assert await check(world) == Verdict(passed=True)
    world.peer().on_check(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
    assert await check(world) == Verdict(passed=True)
    world.peer().on_check(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    assert await check(world, HealthCheck(method="HEAD")) == Verdict(passed=True)
    await closed(world)


@pytest.mark.parametrize(
    ("settings", "connects", "why"),
    [
        (HTTP, None, "no answer within 1s"),
        (HTTP, SILENCE, "no answer within 1s"),
        (TCP, SILENCE, "no connection within 1s"),
    ],
)
async def test_the_timeout_covers_connecting_and_the_answer(
    settings: HealthCheck, connects: Any, why: str
) -> None:
    world = World()
    world.peer().on_connect(connects)
    world.peer().on_check(SILENCE)
    task = asyncio.ensure_future(check(world, settings))
    await world.clock.advance(0.99)
    assert not task.done()
    await world.clock.advance(0.01)
    assert await task == Verdict(passed=False, why=why)
    await closed(world)


async def test_a_tcp_check_only_connects() -> None:
    world = World()
    assert await check(world, TCP) == Verdict(passed=True)
    assert (world.peer().checks, world.peer().requests) == ([], [])
    world.peer().on_connect(REFUSED)
    assert await check(world, TCP) == Verdict(passed=False, why="connection refused")
    await closed(world)


async def test_it_goes_over_the_clusters_own_identity() -> None:
    world = World(tls=UpstreamTls(secret="mesh_certs", peers=frozenset({"svc/auth-svc"})))
    verdict = await check(world)
    assert verdict.passed is None, "without a certificate of ours nothing is known of the endpoint"
    assert "'mesh_certs'" in verdict.why
    assert world.connector.attempts == [], "and it is never plain text instead"
    own = SecretMaterial(svid("claims-svc"), bundle())
    identity = world.identities["mesh_certs"] = Identity.of(own, 1)
    assert await check(world, TCP) == Verdict(passed=True)
    (tls,) = world.connector.tls
    assert tls is not None
    assert tls.identity is identity
    assert [peer.path for peer in tls.peers] == ["/svc/auth-svc"]
    await closed(world)


async def test_this_sidecars_own_trouble_says_nothing_about_the_endpoint() -> None:
    world = World()
    world.peer().on_connect(UpstreamError(Outcome.LOCAL, "too many files are open"))
    assert await check(world) == Verdict(passed=None, why="too many files are open")
    await closed(world)


@pytest.mark.parametrize("where", ["connecting", "waiting"])
async def test_cancelled_it_leaves_nothing_behind(where: str) -> None:
    world = World()
    world.peer().on_connect(SILENCE if where == "connecting" else None)
    world.peer().on_check(SILENCE)
    task = asyncio.ensure_future(check(world))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await closed(world)


async def test_slots_are_for_requests_alone() -> None:
    world = World()
    world.peer().on_check(SILENCE)
    task = asyncio.ensure_future(check(world))
    await settle()
    breaker = world.cluster.breaker
    assert (breaker.connections, breaker.requests) == (0, 0)
    world.peer().transports[-1].protocol.data_received(OK)
    assert (await task).passed
    await closed(world)
