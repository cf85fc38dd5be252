"""DNS listeners as they come and go with the configuration; how they answer: tests/dns/."""

from __future__ import annotations

import asyncio
import socket

import pytest

from hms_addons.addons.dns_names import DnsNames
from hms_addons.errors import ConfigError
from tests.dns.queries import query, read
from tests.dns.resolver import free_port
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of
from tests.fakes.mesh import FakeMesh

NONE = snapshot_of("listeners: [{name: out, port: 1}]\nclusters: [{name: auth-svc}]")


def config(*ports: int, name: str = "auth-svc") -> str:
    named = ", ".join(f"{{name: dns-{port}, kind: dns, port: {port}}}" for port in ports)
    return f"listeners: [{{name: out, port: 1}}, {named}]\nclusters: [{{name: {name}}}]"


async def rcode(port: int, name: str = "auth-svc.svc") -> int | None:
    """How a query went; None if nobody is there."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.setblocking(False)
        asking.connect(("127.0.0.1", port))
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(30):
                await loop.sock_sendall(asking, query(name))
                return read(await loop.sock_recv(asking, 512))[0]
        except ConnectionRefusedError:
            return None


async def test_it_does_nothing_where_nothing_is_asked_for() -> None:
    plugin, mesh = DnsNames(clock=FakeClock()), FakeMesh()
    plugin.hms_configure(NONE)
    plugin.hms_startup(mesh.mesh)
    assert not mesh._status
    assert not mesh._collectors
    await plugin.hms_shutdown()


async def test_listeners_come_stay_and_go() -> None:
    one, two = free_port(), free_port()
    plugin, mesh = DnsNames(clock=FakeClock()), FakeMesh()
    plugin.hms_configure(snapshot_of(config(one)))
    plugin.hms_startup(mesh.mesh)
    assert await rcode(one) == 0
    plugin.hms_configure(snapshot_of(config(one, two, name="pay")))
    assert (await rcode(one), await rcode(two, "pay.svc")) == (3, 0)
    assert mesh.shown("dns") == {
        "listeners": [f"127.0.0.1:{one}", f"127.0.0.1:{two}"],
        "waiting": 0,
        "queries": {"answered": 2, "unknown": 1},
    }
    assert mesh.measured("dns_names")["hms_dns_queries_total", "answered"] == 2
    plugin.hms_configure(snapshot_of(config(two)))
    assert (await rcode(one), await rcode(two)) == (None, 0)
    plugin.hms_configure(NONE)
    assert await rcode(two) is None
    await plugin.hms_shutdown()


async def test_queries_wait_until_the_sidecar_starts() -> None:
    port = free_port()
    plugin = DnsNames(clock=FakeClock())
    plugin.hms_configure(snapshot_of(config(port)))
    early = asyncio.create_task(rcode(port))
    await asyncio.sleep(0)
    plugin.hms_startup(FakeMesh().mesh)
    assert await early == 0
    await plugin.hms_shutdown()
    assert await rcode(port) is None


async def test_a_port_that_is_taken_refuses_the_configuration_and_changes_nothing() -> None:
    one, two = free_port(), free_port()
    plugin = DnsNames(clock=FakeClock())
    plugin.hms_configure(snapshot_of(config(one)))
    plugin.hms_startup(FakeMesh().mesh)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("127.0.0.1", 0))
        taken = holder.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1:{taken}"):
            plugin.hms_configure(snapshot_of(config(two, taken)))
    assert (await rcode(one), await rcode(two)) == (0, None)
    await plugin.hms_shutdown()


async def test_ports_that_mitmproxy_answers_on_are_left_to_it() -> None:
    port = free_port()
    plugin = DnsNames(clock=FakeClock())
    plugin.elsewhere = frozenset({port})
    plugin.hms_configure(snapshot_of(config(port)))
    plugin.hms_startup(FakeMesh().mesh)
    assert await rcode(port) is None
    assert repr(plugin) == "<DnsNames []>"
    await plugin.hms_shutdown()
