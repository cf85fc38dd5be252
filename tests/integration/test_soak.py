"""An hour's soak in miniature: 30,000 requests with every fault there is, and then nothing is left.

The sidecar, its callers and its upstreams run on one event loop, on real sockets; one seed decides
who does what, though not the order in which the kernel lets things happen.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
from collections import Counter
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any, Self

import pytest
import yaml

from hms_addons.bootstrap import build_plugins
from hms_addons.engine.http1_server import Http1Server
from hms_addons.errors import ConfigError, MeshError
from hms_addons.exchange import Exchange
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer
from hms_addons.sidecar import Sidecar
from hms_addons.upstream.http1_client import Http1Connection
from tests.fakes import pki
from tests.fakes.configs import snapshot_of
from tests.integration.basics import free_port
from tests.integration.in_process import in_use
from tests.integration.servers import refusing
from tests.integration.soak_kit import Caller, Fickle, Ports

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.errors import Failure

REQUESTS = 30_000
CALLERS = 40
SERVICES = ("claims-svc", "auth-svc")
SEED = 20240917
CHANGE_EVERY = 250
"""Requests between two changes of the configuration."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

WAYS = ("raise", "raise later", "cancel", "exit")
HOOKS = [
    f"{hook} {way}"
    for hook in ("identify", "route", "authorize", "prepare", "forward", "fallback", "respond")
    for way in WAYS
]
OUTCOMES = [
    *("101 upstream", "200 upstream", "413 upstream", "500 upstream", "503 upstream"),
    *("400 DPE", "401 JWT", "403 JWT", "403 RBAC", "404 NR", "405 DPE", "431 DPE", "500 PE"),
    *("502 UPE", "503 UC", "503 UF", "503 UH", "503 UO", "504 UT"),
]
"""Statuses and flags that must have come up."""
HOOKS += ["pick_endpoint raise", "complete raise", "forward answer"]


class Mischief:
    """A plugin that fails as `X-Mischief: HOOK WAY` asks, and counts what begins and ends."""

    def __init__(self) -> None:
        self.open = 0
        """Exchanges that have begun and not ended."""
        self.ended = 0
        self.twice = 0
        """Exchanges that were completed more than once."""
        self.change = asyncio.Event()

    def _fail(self, exchange: Exchange, hook: str) -> Any:
        name, _, way = (exchange.header("x-mischief") or "").partition(" ")
        if name != hook:
            return None
        if way == "raise":
            raise RuntimeError("mischief")
        if way == "cancel":
            raise asyncio.CancelledError
        if way == "exit":
            raise SystemExit(1)
        return self._fail_later() if way == "raise later" else Answer(200, b"OK", (), b"mischief")

    async def _fail_later(self) -> None:
        await asyncio.sleep(0)
        raise RuntimeError("later mischief")

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        if snapshot.source == "refused":
            raise ConfigError("not with me")

    @hookimpl(tryfirst=True)
    def hms_identify(self, exchange: Exchange) -> Any:
        self.open += 1
        exchange.notes["begun"] = True
        return self._fail(exchange, "identify")

    @hookimpl(tryfirst=True)
    def hms_route(self, exchange: Exchange) -> Any:
        return self._fail(exchange, "route")

    @hookimpl
    def hms_authorize(self, exchange: Exchange) -> Any:
        return self._fail(exchange, "authorize")

    @hookimpl
    def hms_prepare(self, exchange: Exchange) -> Any:
        return self._fail(exchange, "prepare")

    @hookimpl(tryfirst=True)
    def hms_forward(self, exchange: Exchange, upstream: Any) -> Any:
        return self._fail(exchange, "forward")

    @hookimpl
    def hms_pick_endpoint(self, exchange: Exchange, candidates: Sequence[Any]) -> Any:
        return self._fail(exchange, "pick_endpoint")

    @hookimpl
    def hms_fallback(self, exchange: Exchange, failure: Failure) -> Any:
        return self._fail(exchange, "fallback")

    @hookimpl
    def hms_respond(self, exchange: Exchange) -> Any:
        return self._fail(exchange, "respond")

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        self.ended += 1
        self.open -= "begun" in exchange.notes
        self.twice += "ended" in exchange.notes
        exchange.notes["ended"] = True
        if self.ended % CHANGE_EVERY == 0:
            self.change.set()
        self._fail(exchange, "complete")


class World:
    """The sidecar, three upstreams, and the configuration that keeps changing."""

    def __init__(self, folder: Path, dead: socket.socket) -> None:
        self.folder = folder
        self.ports = Ports(free_port(), free_port())
        self.peers = free_port()
        self.dead = dead.getsockname()[1]
        self.upstreams = [Fickle() for _ in range(3)]
        self.mischief = Mischief()
        rng = Random(SEED)
        plugins = build_plugins(None, rng)
        plugins.register(self.mischief, "mischief")
        self.sidecar = Sidecar(plugins, rng=rng)
        self.changes: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        for upstream in self.upstreams:
            await upstream.start()
        self.renew()
        await self.sidecar.start(self.snapshot(0))
        return self

    async def __aexit__(self, *reason: object) -> None:
        await self.sidecar.stop()
        for upstream in self.upstreams:
            await upstream.stop()
            assert upstream.errors == []

    def renew(self) -> None:
        """New certificates for both sides."""
        for name in SERVICES:
            pki.write_secret(self.folder, pki.svid(name, lifetime=3600), name=name)

    def snapshot(self, number: int) -> Snapshot:
        """The configuration, each time another."""
        action = {"timeout": "2s", "retries": {"attempts": 2, "per_try_timeout": "800ms"}}
        routes = [
            {"match": {"prefix": f"/{name}"}, "action": {"cluster": name, **action}}
            for name in ("plain", "peers", "detour", "guarded", "tight")
        ]
        out = {
            "name": "out",
            "port": self.ports.out,
            "limits": {"head_timeout": "2s", "body_timeout": "2s"},
            "routes": routes,
        }
        peers = {
            "name": "peers",
            "port": self.peers,
            "host": "127.0.0.1",
            "direction": "inbound",
            "tls": "strict",
            "secret": "auth-svc",
            "app": f"http://127.0.0.1:{self.upstreams[0].port}",
        }
        # It comes and goes: a plain copy of the first one.
        sometimes = {"name": "sometimes", "port": self.ports.sometimes, "routes": routes}
        provider = {
            "name": "idp",
            "issuer": pki.ISSUER,
            "audiences": [pki.AUDIENCE],
            "hs256_secret_env": "HMS_SOAK_SECRET",
        }
        managers = {
            "name": "managers",
            "action": "ALLOW",
            "services": ["guarded"],
            "roles": ["PROGRAM_MANAGER"],
        }
        document = {
            "trust_domain": pki.TRUST_DOMAIN,
            "service": "claims-svc",
            "listeners": [out, peers, sometimes] if number % 2 == 0 else [out, peers],
            "clusters": self._clusters(number),
            "secrets": {name: self._secret(name) for name in SERVICES},
            "governance": {"url": f"http://127.0.0.1:{self.upstreams[0].port}", "ttl": "200ms"},
            "rbac": {"providers": [provider], "policies": [managers]},
        }
        return snapshot_of(yaml.safe_dump(document))

    def _clusters(self, number: int) -> list[dict[str, Any]]:
        """Endpoints come and go, thresholds and balancers change."""
        first, second, third = (f"127.0.0.1:{upstream.port}" for upstream in self.upstreams)
        turned = ([first, second, third] * 2)[number % 3 :][: 1 + number % 3]
        plain = {
            "name": "plain",
            "endpoints": turned,
            "load_balancer": ("round_robin", "least_request", "random")[number % 3],
            "outlier_detection": {
                "consecutive_5xx": 12,
                "base_ejection_time": "20ms",
                "interval": "50ms",
            },
            "circuit_breakers": {"max_connections": 12 + number % 7, "max_pending_requests": 30},
        }
        detour = {
            "name": "detour",
            "endpoints": [f"127.0.0.1:{self.dead}", second],
            "outlier_detection": {"consecutive_gateway_failure": 3, "base_ejection_time": "20ms"},
        }
        peers = {
            "name": "peers",
            "service": "auth-svc",
            "endpoints": [f"127.0.0.1:{self.peers}"],
            "tls_context": {"sds": "claims-svc"},
            "outlier_detection": False,
        }
        guarded = {"name": "guarded", "endpoints": [third], "outlier_detection": False}
        tight = {
            "name": "tight",
            "endpoints": [second],
            "outlier_detection": False,
            "circuit_breakers": {"max_requests": 3},
        }
        return [plain, peers, detour, guarded, tight]

    def _secret(self, name: str) -> dict[str, str]:
        return {
            "certificate": str(self.folder / f"{name}.pem"),
            "key": str(self.folder / f"{name}.key"),
            "bundle": str(self.folder / "bundle.pem"),
        }

    async def govern(self) -> None:
        """Change the configuration again and again, and the certificates now and then."""
        number = 0
        while True:
            await self.mischief.change.wait()
            self.mischief.change.clear()
            number += 1
            snapshot = self.snapshot(number)
            if number % 5 == 0:
                snapshot = replace(snapshot, source="refused")
            try:
                await self.sidecar.apply(snapshot)
                self.changes["applied"] += 1
            except MeshError:
                self.changes["refused"] += 1
            if number % 10 == 3:
                self.renew()
                self.changes["renewed"] += 1


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - Linux's own, as they are


def alive() -> Counter[str]:
    """Objects of one request or one connection that something still refers to."""
    gc.collect()
    kinds = (Exchange, Http1Server, Http1Connection)
    return Counter(type(found).__name__ for found in gc.get_objects() if isinstance(found, kinds))


def armed() -> int:
    """Timers that this loop still holds, not counting cancelled ones."""
    loop: Any = asyncio.get_running_loop()
    return sum(not handle.cancelled() for handle in loop._scheduled)


def busy(sidecar: Sidecar) -> list[str]:
    """What is in use; but the sidecar calls itself, and its idle connections have two ends."""
    return [found for found in in_use(sidecar) if not re.fullmatch("connection <.* idle>", found)]


async def quiet(sidecar: Sidecar) -> None:
    """Until nothing of the sidecar is in use any more; fails if that does not come."""
    try:
        async with asyncio.timeout(20):
            while busy(sidecar):  # noqa: ASYNC110 - many things end, and none tells
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError("\n".join(busy(sidecar))) from None
    kept = {name: len(lane.connections) for name, lane in sidecar.lanes.items()}
    assert kept.pop("peers") <= CALLERS
    assert set(kept.values()) == {0}


def tokens() -> tuple[list[str], list[str]]:
    """`Authorization` values: good, and bad."""
    key, other = pki.jwt_key("HS256"), pki.jwt_key("HS256", "other")
    good = [f"Bearer {key.sign(pki.claims())}", key.sign(pki.claims(sub="private"))]
    bad = [
        f"Bearer {key.sign(pki.claims(exp=1))}",
        f"Bearer {other.sign(pki.claims())}",
        f"Bearer {key.sign(pki.claims(aud='else'))}",
        f"Bearer {key.sign(pki.claims(roles=['CLERK']))}",
        "Bearer a.b.c",
        "Basic Og==",
    ]
    return good, bad


async def test_nothing_is_left_after_30_000_requests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("HMS_SOAK_SECRET", pki.jwt_key("HS256").secret)
    caplog.set_level(logging.CRITICAL, logger="hms_addons")
    before = open_files(), armed(), len(asyncio.all_tasks()), alive()
    seen: Counter[str] = Counter()
    with refusing() as dead:
        async with World(tmp_path, dead) as world:
            paths = ["/plain", "/plain", "/peers", "/detour", "/tight", "/nowhere"]
            callers = [
                Caller(
                    f"caller{n}", Random(f"{SEED}/{n}"), world.ports, tokens(), paths, HOOKS, seen
                )
                for n in range(CALLERS)
            ]
            governor = asyncio.create_task(world.govern())
            try:
                async with asyncio.TaskGroup() as group:
                    for caller in callers:
                        group.create_task(caller.run(REQUESTS // CALLERS))
            finally:
                governor.cancel()
                await asyncio.gather(governor, return_exceptions=True)
            await quiet(world.sidecar)
            assert sum(caller.sent for caller in callers) >= REQUESTS
            assert (world.mischief.open, world.mischief.twice) == (0, 0)
        # It was as bad as it says, and most of it went well.
        assert [outcome for outcome in OUTCOMES if not seen[outcome]] == []
        assert seen["200 upstream"] > REQUESTS // 3
        assert seen["gone: _ask"] < REQUESTS // 50, (
            "good requests are cut off only by a lost listener"
        )
        assert world.changes["applied"] > REQUESTS // CHANGE_EVERY // 2
        assert world.changes["refused"] > 5
        assert world.changes["renewed"] > 5
    assert (open_files(), armed(), len(asyncio.all_tasks()), alive()) == before
