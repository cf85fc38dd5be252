"""How mitmproxy knows our listeners, and how we know its addons."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.addons.proxyserver import Proxyserver
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.test import taddons
from mitmproxy.test.tflow import tflow

from hms_addons.engine.listener import PortListener
from hms_addons.engine.mode import (
    MeshInstance,
    MeshMode,
    follow_addons,
    host_addons,
    make_flow_events,
)
from tests.fakes.clock import FakeClock
from tests.fakes.lane import FakeLane

if TYPE_CHECKING:
    from collections.abc import Iterator

SPEC = "mesh:inbound_http@127.0.0.1:15001"


@pytest.fixture
def mitmproxy() -> Iterator[Any]:
    """A master with a proxy server's manager, as an instance wants one."""
    with taddons.context() as context:
        yield context


@pytest.fixture
async def port() -> Any:
    listener = PortListener("inbound_http", FakeLane(), FakeClock())
    listener.open("127.0.0.1", 0)
    yield listener
    listener.close()


@pytest.fixture(autouse=True)
def restore_find() -> Iterator[None]:
    before = MeshInstance.find
    yield
    MeshInstance.find = staticmethod(before)


def test_a_mesh_mode_is_parsed_as_mitmproxys_own_are() -> None:
    mode: Any = ProxyMode.parse(SPEC)
    assert isinstance(mode, MeshMode)
    assert mode.data == "inbound_http"
    assert mode.listen_host() == "127.0.0.1"
    assert mode.listen_port() == 15001
    assert mode.full_spec == SPEC
    assert "inbound_http" in mode.description
    assert ProxyMode.from_state(mode.full_spec) == mode


def test_without_a_port_it_is_the_outbound_one() -> None:
    assert ProxyMode.parse("mesh:peers").listen_port() == 15001


def test_a_mesh_mode_without_a_name_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="name the listener, as in mesh:inbound_http@"):
        ProxyMode.parse("mesh")


class Manager:
    """What mitmproxy gives an instance; a mesh mode never has it handle a stream."""

    def __init__(self) -> None:
        self.connections: dict[object, object] = {}


def instance() -> Any:
    return ServerInstance.make(SPEC, Manager())  # type: ignore[arg-type]


async def test_an_instance_adopts_the_open_listener(port: PortListener) -> None:
    MeshInstance.find = staticmethod({"inbound_http": port}.get)
    server = instance()
    assert isinstance(server, MeshInstance)
    assert not server.is_running
    assert server.listen_addrs == ()
    await server.start()
    assert server.is_running
    assert server.listen_addrs == (port.address,)
    await server.stop()
    assert not server.is_running
    assert port.address is not None, "stopping mitmproxy's entry must not close our port"


async def test_an_instance_is_not_running_once_the_port_is_closed(port: PortListener) -> None:
    MeshInstance.find = staticmethod({"inbound_http": port}.get)
    server = instance()
    await server.start()
    port.close()
    assert not server.is_running
    assert server.listen_addrs == ()
    await server.stop()


async def test_an_instance_without_a_listener_says_what_to_do() -> None:
    server = instance()
    with pytest.raises(OSError, match=r"no listener 'inbound_http' is open.*hms_config"):
        await server.start()
    assert not server.is_running
    assert "hms_config" in str(server.last_exception)


class Listens:
    name = "listens"

    def __init__(self) -> None:
        self.heard = 0

    def request(self, flow: object) -> None:
        self.heard += 1


async def test_events_follow_every_change_of_the_addons(mitmproxy: Any) -> None:
    manager, events, own = mitmproxy.master.addons, make_flow_events(), Listens()
    stop = follow_addons(manager, events, own)
    before = events.request
    addon = Listens()
    manager.add(addon)
    assert events.request == (*before, addon.request)
    manager.remove(addon)
    assert events.request == before
    manager.register(addon)
    assert addon.request not in before
    manager.chain.append(addon)
    manager.add(own_named := type("Own", (Listens,), {"name": "own"})())
    assert events.request == (*before, addon.request, own_named.request)
    stop()
    manager.remove(own_named)
    assert own_named.request in events.request, "after stop() nothing is recompiled"


async def test_what_is_there_already_is_found_and_own_left_out(mitmproxy: Any) -> None:
    manager, events = mitmproxy.master.addons, make_flow_events()
    own = Listens()
    manager.add(own)
    stop = follow_addons(manager, events, own)
    assert own.request not in events.request
    stop()
    assert "add" not in vars(manager), "the manager is as it was"


async def test_messages_are_injected_by_mitmproxy_s_own_table_and_its_option_counts(
    mitmproxy: Any,
) -> None:
    events = make_flow_events()
    stop = follow_addons(mitmproxy.master.addons, events, None)
    assert events.live_connections == {}
    assert events.shows_websockets
    server = Proxyserver()
    mitmproxy.master.addons.add(server)
    assert events.live_connections is server.connections
    mitmproxy.options.websocket = False
    assert not events.shows_websockets
    stop()


async def test_stop_twice_is_harmless(mitmproxy: Any) -> None:
    stop = follow_addons(mitmproxy.master.addons, make_flow_events(), None)
    stop()
    stop()


async def test_a_bare_master_carries_addons_and_their_events() -> None:
    addon = Listens()
    events = host_addons([addon])
    assert events.request == (addon.request,)
    assert events.watched
    await events.fire_flow(events.request, tflow())
    assert addon.heard == 1


async def test_what_is_attached_joins_mitmproxy_s_addons_before_the_native_lane(
    mitmproxy: Any,
) -> None:
    events, own = make_flow_events(), type("Own", (Listens,), {"name": "own"})()
    manager = mitmproxy.master.addons
    stop = follow_addons(manager, events, own)
    manager.add(own)
    addon = Listens()
    detach = events.attach(addon)
    assert manager.chain.index(addon) == manager.chain.index(own) - 1
    assert addon.request in events.request
    detach()
    assert addon not in manager.chain
    assert addon.request not in events.request
    detach = events.attach(addon)
    manager.remove(addon)
    detach()
    stop()
    assert events.host is None


async def test_what_is_attached_stays_when_mitmproxy_comes_and_goes(mitmproxy: Any) -> None:
    events, manager, addon = make_flow_events(), mitmproxy.master.addons, Listens()
    detach = events.attach(addon)
    for _ in range(2):
        stop = follow_addons(manager, events, None)
        assert addon in manager.chain
        assert events.request.count(addon.request) == 1
        stop()
        events.forget()
        assert addon not in manager.chain
        assert events.request == (addon.request,)
        await asyncio.sleep(0)  # what a change of addons has left for later comes to nothing
        assert events.request == (addon.request,)
    stop = follow_addons(manager, events, None)
    detach()
    assert addon not in manager.chain
    assert addon.request not in events.request
    detach = events.attach(addon)
    stop()
    events.forget()
    assert events.request == (addon.request,), "also if it came while mitmproxy was there"
    detach()
    assert not events.watched
