"""Upstream connections as mitmproxy's addons see them."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.connection import ConnectionState, Server
from mitmproxy.exceptions import AddonHalt

from hms_addons.config.snapshot import EndpointSpec
from hms_addons.engine.flow_events import FlowEvents
from hms_addons.engine.server_events import ServerEvents
from hms_addons.tasks import TaskSet
from hms_addons.upstream.endpoint import Endpoint
from tests.fakes.clock import FakeClock
from tests.fakes.lane import settle

if TYPE_CHECKING:
    from collections.abc import Callable

ENDPOINT = Endpoint(EndpointSpec(host="10.0.0.1", port=9001), "auth-svc")
EVENTS = ("server_connect", "server_connected", "server_connect_error", "server_disconnected")


class Transport:
    """What is looked at of a transport."""

    def get_extra_info(self, name: str) -> Any:
        return {"peername": ("10.0.0.1", 9001), "sockname": ("10.0.0.2", 50000)}.get(name)


CONNECTION: Any = types.SimpleNamespace(transport=Transport())


class World:
    def __init__(self, **hooks: Callable[[Any], Any]) -> None:
        self.clock = FakeClock()
        self.tasks = TaskSet("test")
        events = FlowEvents(AddonHalt)
        events.compile([types.SimpleNamespace(**hooks)])
        self.observer = ServerEvents(events, self.tasks, self.clock)


class Log:
    """Hears all four events, and of which server."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, Server]] = []

    def hooks(self) -> dict[str, Callable[[Any], Any]]:
        return {name: self._hearing(name) for name in EVENTS}

    def _hearing(self, name: str) -> Callable[[Any], Any]:
        return lambda data: self.heard.append((name, data.server))


async def test_a_connection_s_life_is_told_of_one_server() -> None:
    log = Log()
    world = World(**log.hooks())
    server = await world.observer.connecting(ENDPOINT)
    assert server.address == ("10.0.0.1", 9001)
    assert server.timestamp_start == world.clock.wall()
    await world.clock.advance(1)
    await world.observer.connected(server, CONNECTION)
    assert server.connected
    assert server.peername == ("10.0.0.1", 9001)
    assert server.timestamp_tcp_setup == world.clock.wall()
    await world.clock.advance(1)
    world.observer.disconnected(server)
    await settle()
    assert server.state is ConnectionState.CLOSED
    assert server.timestamp_end == world.clock.wall()
    assert [name for name, _ in log.heard] == [EVENTS[0], EVENTS[1], EVENTS[3]]
    assert all(heard is server for _, heard in log.heard)
    assert len(world.tasks) == 0


async def test_without_listeners_the_server_is_kept_up_all_the_same() -> None:
    world = World()
    server = await world.observer.connecting(ENDPOINT)
    await world.observer.connected(server, CONNECTION)
    assert server.connected
    world.observer.disconnected(server)
    assert len(world.tasks) == 0, "nobody listens: no task"
    assert not server.connected


async def test_an_addon_may_refuse_a_connection() -> None:
    def refuse(data: Any) -> None:
        data.server.error = "not during the audit"

    world = World(server_connect=refuse)
    with pytest.raises(ConnectionRefusedError, match="an addon refused.*not during the audit"):
        await world.observer.connecting(ENDPOINT)


async def test_an_async_addon_is_waited_for_before_connecting() -> None:
    go = asyncio.Event()

    async def hold(data: Any) -> None:
        await go.wait()
        data.server.error = "no"

    world = World(server_connect=hold)
    task = asyncio.create_task(world.observer.connecting(ENDPOINT))
    await settle()
    assert not task.done()
    go.set()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.wait_for(task, 1)


async def test_a_failed_connection_tells_why() -> None:
    log = Log()
    world = World(**log.hooks())
    server = await world.observer.connecting(ENDPOINT)
    await world.observer.failed(server, "connection refused")
    assert server.error == "connection refused"
    assert log.heard[-1] == ("server_connect_error", server)


async def test_the_addon_s_own_reason_is_kept() -> None:
    world = World()
    server = await world.observer.connecting(ENDPOINT)
    server.error = "not during the audit"
    await world.observer.failed(server, "refused")
    assert server.error == "not during the audit"


async def test_after_the_end_of_the_sidecar_nobody_is_told() -> None:
    log = Log()
    world = World(**log.hooks())
    server = await world.observer.connecting(ENDPOINT)
    await world.tasks.close()
    world.observer.disconnected(server)
    await settle()
    assert [name for name, _ in log.heard] == ["server_connect"]
    assert not server.connected
