from __future__ import annotations

import asyncio
import json
from random import Random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hms_plugin_opa import MAX_REPLY, Agent, Opa, OpaError, Options, read_reply
from mitmproxy.test import tflow, tutils

from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot import Direction, Listener, Route, Snapshot, WeightedCluster
from hms_addons.errors import ConfigError
from hms_addons.exchange import Exchange, Principal
from hms_addons.plugins import PluginManager

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    type Handler = Callable[[httpx.Request], Awaitable[httpx.Response] | httpx.Response]

LISTENER = Listener(
    name="peers", host="127.0.0.1", port=1, direction=Direction.INBOUND, routes=RouteTable()
)
ROUTE = Route(
    name="all", listener="peers", clusters=(WeightedCluster(cluster="app"),), service="claims-svc"
)
WRITTEN: dict[str, Any] = {"url": "http://opa:8181", "path": "mesh/allow"}
CALLER = "spiffe://mesh/svc/portal"


def snapshot(**options: Any) -> Snapshot:
    return Snapshot(version="1", source="test", plugins={"opa": WRITTEN | options})


class StillClock:
    """Time that a test moves; what it is to call, it calls when a test says so."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: list[Callable[[], object]] = []

    def monotonic(self) -> float:
        return self.now

    def wall(self) -> float:
        return self.now

    def call_later(self, delay: float, callback: Callable[..., object], *args: object) -> Any:
        self.due.append(lambda: callback(*args))
        return self

    def cancel(self) -> None:
        pass

    async def sleep(self, delay: float) -> None:
        raise NotImplementedError


class World:
    """A plugin before an OPA that is a function."""

    def __init__(self, handler: Handler, **options: Any) -> None:
        self.asked: list[httpx.Request] = []
        self.came = asyncio.Event()
        self.clock = StillClock()
        self.handler = handler
        self.plugin = Opa(self.clock, httpx.MockTransport(self._answer))
        self.configure(**options)

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        self.came.set()
        reply = self.handler(request)
        if not isinstance(reply, httpx.Response):
            reply = await reply
        # As it comes from a network: not read yet.
        stream = httpx.ByteStream(reply.content)
        return httpx.Response(reply.status_code, headers=reply.headers, stream=stream)

    def configure(self, **options: Any) -> None:
        self.snapshot = snapshot(**options)
        self.plugin.hms_configure(self.snapshot)

    def request(self, path: str = "/claims/7", service: str = "claims-svc") -> Exchange:
        flow = tflow.tflow(req=tutils.treq(method=b"POST", path=path.encode()))
        exchange = Exchange(flow, self.snapshot, LISTENER, started=0.0)
        exchange.head = {b"authorization": b"Bearer secret", b"x-tenant": b"acme"}
        exchange.path, exchange.query = path, "full=1"
        exchange.peer = CALLER
        exchange.principal = Principal(
            subject="ann", roles=("CLERK",), claims={"sub": "ann", "team": 7}, issuer="idp"
        )
        exchange.route = Route(
            name="all", listener="peers", clusters=ROUTE.clusters, service=service
        )
        return exchange

    async def authorize(self, **about: Any) -> Exchange:
        exchange = self.request(**about)
        waits = self.plugin.hms_authorize(exchange)
        if waits is not None:
            await waits
        return exchange


def yes(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json={"result": True})


def says(result: Any) -> Handler:
    return lambda request: httpx.Response(200, json=result)


def refusal(exchange: Exchange) -> tuple[int, str] | None:
    failure = exchange.failure
    return None if failure is None else (failure.status, failure.detail)


async def test_opa_is_told_who_wants_what_and_no_credential() -> None:
    world = World(yes, headers=["X-Tenant"])
    assert refusal(await world.authorize()) is None
    (asked,) = world.asked
    assert (asked.method, str(asked.url)) == ("POST", "http://opa:8181/v1/data/mesh/allow")
    assert json.loads(asked.content) == {
        "input": {
            "method": "POST",
            "path": "/claims/7",
            "parsed_path": ["claims", "7"],
            "query": "full=1",
            "service": "claims-svc",
            "route": "all",
            "listener": "peers",
            "direction": "inbound",
            "subject": "ann",
            "issuer": "idp",
            "roles": ["CLERK"],
            "claims": {"sub": "ann", "team": 7},
            "caller": CALLER,
            "headers": {"x-tenant": "acme"},
        }
    }


async def test_authorization_is_told_only_if_asked_for_and_claims_can_be_chosen() -> None:
    world = World(yes, headers=["authorization"], claims=["team", "other"])
    await world.authorize()
    told = json.loads(world.asked[0].content)["input"]
    assert told["headers"] == {"authorization": "Bearer secret"}
    assert told["claims"] == {"team": 7}


@pytest.mark.parametrize(
    ("reply", "refused"),
    [
        ({"result": True}, None),
        ({"result": {"allow": True, "reason": "ignored"}}, None),
        ({"result": False}, (403, "the policy says no")),
        ({"result": {"allow": False, "reason": "clerks\r\n may not"}}, (403, "clerks may not")),
        ({"result": {"reason": "no allow in it"}}, (403, "no allow in it")),
        ({}, (403, "the policy does not say that it may (undefined)")),
    ],
)
async def test_its_word_is_what_happens(reply: Any, refused: tuple[int, str] | None) -> None:
    assert refusal(await World(says(reply)).authorize()) == refused


BROKEN: dict[str, Handler] = {
    "status": lambda request: httpx.Response(500, json={"result": True}),
    "no JSON": lambda request: httpx.Response(200, content=b"true"[:2]),
    "no object": says([True]),
    "no decision": says({"result": "yes"}),
    "number": says({"result": {"allow": 1}}),
    "too long": lambda request: httpx.Response(200, content=b" " * (MAX_REPLY + 1)),
    "redirect": lambda request: httpx.Response(307, headers={"Location": "http://else/"}),
}


@pytest.mark.parametrize("handler", BROKEN.values(), ids=BROKEN)
async def test_what_is_no_decision_refuses_unless_failures_are_open(handler: Handler) -> None:
    closed = await World(handler).authorize()
    assert closed.failure is not None
    assert (closed.failure.status, closed.failure.flag) == (503, "RBAC")
    assert "opa:8181" not in closed.failure.detail
    assert refusal(await World(handler, on_failure="open").authorize()) is None


async def test_undefined_is_a_no_even_where_failures_are_open() -> None:
    assert refusal(await World(says({}), on_failure="open").authorize()) is not None


async def test_an_opa_that_is_not_there_refuses() -> None:
    def fail(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    world = World(fail)
    assert (await world.authorize()).failure is not None
    assert world.plugin.counts == {"failed": 1}


async def test_an_opa_that_hangs_refuses_when_time_is_up() -> None:
    hangs: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    world = World(lambda request: hangs)
    asking = asyncio.ensure_future(world.authorize())
    await world.came.wait()
    for call in world.clock.due:
        call()
    refused = (await asking).failure
    assert refused is not None
    assert refused.status == 503
    assert world.plugin.status()["pending"] == 0


async def test_a_caller_that_leaves_gives_its_slot_back() -> None:
    hangs: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    world = World(lambda request: hangs, max_concurrent=1)
    asking = asyncio.ensure_future(world.authorize())
    await world.came.wait()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    world.handler = yes
    assert refusal(await world.authorize()) is None


async def test_at_most_so_many_ask_and_so_many_wait() -> None:
    gate: asyncio.Future[httpx.Response] = asyncio.get_running_loop().create_future()
    world = World(lambda request: gate, max_concurrent=1, max_waiting=1)
    first = asyncio.ensure_future(world.authorize(path="/1"))
    second = asyncio.ensure_future(world.authorize(path="/2"))
    await world.came.wait()
    third = await world.authorize(path="/3")
    assert third.failure is not None
    assert third.failure.status == 503
    assert len(world.asked) == 1
    gate.set_result(httpx.Response(200, json={"result": True}))
    world.handler = yes
    assert [refusal(await first), refusal(await second)] == [None, None]
    assert len(world.asked) == 2


async def test_a_decision_is_remembered_for_the_same_input_and_a_while() -> None:
    world = World(yes, cache={"ttl": "5s"})
    await world.authorize()
    await world.authorize()
    assert len(world.asked) == 1
    await world.authorize(path="/other")
    assert len(world.asked) == 2
    world.handler = says({"result": False})
    world.clock.now += 5
    assert refusal(await world.authorize()) is not None
    assert refusal(await world.authorize()) is not None
    assert len(world.asked) == 3


async def test_decisions_are_bounded_and_can_be_forgotten_at_once() -> None:
    world = World(yes, cache={"entries": 1})
    for path in ("/1", "/2", "/1"):
        await world.authorize(path=path)
    assert len(world.asked) == 3
    world = World(yes, cache={"ttl": 0})
    await world.authorize()
    await world.authorize()
    assert len(world.asked) == 2


async def test_failures_are_not_remembered() -> None:
    world = World(BROKEN["status"])
    await world.authorize()
    world.handler = yes
    assert refusal(await world.authorize()) is None


async def test_other_services_and_directions_are_not_asked_about() -> None:
    world = World(says({"result": False}), services=["auth-svc"])
    assert refusal(await world.authorize()) is None
    assert refusal(await world.authorize(service="auth-svc")) is not None
    world = World(says({"result": False}), direction="outbound")
    assert refusal(await world.authorize()) is None


async def test_a_request_is_judged_by_the_configuration_that_it_began_with() -> None:
    world = World(yes)
    held = world.request()
    for number in range(3):
        world.configure(path=f"mesh/new{number}")
    waits = world.plugin.hms_authorize(held)
    assert waits is not None
    await waits
    assert str(world.asked[0].url).endswith("/mesh/allow")


async def test_an_open_tunnel_is_judged_again() -> None:
    world = World(says({"result": False}))
    tunnel = world.request()
    waits = world.plugin.hms_recheck(tunnel)
    assert waits is not None
    await waits
    assert tunnel.failure is not None


async def test_connections_end_with_the_sidecar() -> None:
    world = World(yes)
    await world.authorize()
    agent = world.plugin._agents[0]
    await world.plugin.hms_shutdown()
    assert agent._client is None


def test_it_costs_nothing_where_nobody_has_configured_it() -> None:
    plugins = PluginManager()
    plugins.register(Opa(), "opa")
    empty = Snapshot(version="1", source="test")
    plugins.configure(empty, None)
    assert "opa" not in repr(plugins.compile_chain(Random(1), snapshot=empty))
    used = snapshot()
    plugins.configure(used, empty)
    assert "opa" in repr(plugins.compile_chain(Random(1), snapshot=used))


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"url": "opa:8181"}, "plugins.opa.url: expected a URL"),
        ({"url": "http://u:p@opa"}, "plugins.opa.url"),
        ({"path": "/"}, "plugins.opa.path: expected the path of a rule"),
        ({"timeout": 5}, "plugins.opa.timeout: a duration needs a unit"),
        ({"on_failure": "ajar"}, "plugins.opa.on_failure"),
        ({"cache": {"ttl": "x"}}, "plugins.opa.cache.ttl"),
        ({"headers": ["a b"]}, r"plugins.opa.headers\[0\]"),
        ({"max_concurrent": 0}, "plugins.opa.max_concurrent"),
        ({"tiemout": "1s"}, "did you mean timeout"),
        ({"token_env": "HMS_TEST_NOT_THERE"}, "plugins.opa.token_env"),
        ({"ca_file": "/nowhere.pem"}, "plugins.opa.ca_file"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], key: str) -> None:
    with pytest.raises(ConfigError, match=key):
        Opa().hms_configure(snapshot(**options))


def test_a_reply_nested_too_deep_is_no_decision() -> None:
    with pytest.raises(OpaError):
        read_reply(b"[" * 60_000)


async def test_the_token_is_shown_to_opa_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMS_TEST_OPA", "s3cret")
    world = World(yes, token_env="HMS_TEST_OPA")
    await world.authorize()
    assert world.asked[0].headers["Authorization"] == "Bearer s3cret"
    agent = Agent(WRITTEN, Options(url="http://o", path="a", token_env="HMS_TEST_OPA"))
    assert "s3cret" not in repr(agent)
