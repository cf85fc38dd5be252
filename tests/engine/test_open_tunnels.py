"""Open tunnels, judged again when the configuration changes."""

from __future__ import annotations

import asyncio
import logging
from random import Random
from typing import TYPE_CHECKING, Any

from hms_addons.engine.fast_lane import Binding
from hms_addons.engine.hook_chain import Hook, HookChain
from hms_addons.errors import Fault, Flag
from hms_addons.http_message import Answer
from tests.engine.test_tunnel import UPGRADE, FakeTunnel
from tests.fakes.exchange import make_snapshot
from tests.fakes.lane import settle
from tests.fakes.world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest

    from hms_addons.exchange import Exchange


class Tunnels:
    """A lane with tunnels, and the configuration that comes next."""

    def __init__(self) -> None:
        self.tunnel = FakeTunnel()
        self.hold = asyncio.Event()
        self.hold.set()
        self.world = World(forward=self._forward)
        self.judged: list[Exchange] = []

    async def _forward(self, exchange: Exchange) -> Answer:
        await self.hold.wait()
        return Answer(101, b"Switching Protocols", (), tunnel=self.tunnel)

    async def open(self) -> None:
        self.world.connection.data_received(UPGRADE)
        await settle()

    def change(self, recheck: Callable[[Exchange], Any] | None) -> None:
        """Another snapshot is in force, whose plugin judges tunnels so."""

        def judge(exchange: Exchange) -> Any:
            self.judged.append(exchange)
            assert recheck is not None
            return recheck(exchange)

        hooks = {"hms_recheck": [Hook(judge, "scripted", "hms_recheck")]} if recheck else {}
        lane = self.world.lane
        chain = HookChain(hooks, Random(1), self.world.clock)
        lane.binding = Binding.of(make_snapshot(version="2"), lane.binding.listener, chain)
        lane.tunnels.recheck()

    @property
    def over(self) -> bool:
        return self.tunnel.closed and self.world.transport.is_closing()


def refuse(exchange: Exchange) -> None:
    exchange.fail(Fault.POLICY_DENIED, "policy 'no' denies it")


def agree(exchange: Exchange) -> None:
    assert exchange.failure is None


async def test_hms_recheck_closes_a_tunnel_that_is_refused(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    tunnels = Tunnels()
    await tunnels.open()
    assert len(tunnels.world.lane.tunnels) == 1
    assert repr(tunnels.world.lane.tunnels) == "<OpenTunnels 1>"
    tunnels.change(refuse)
    await settle()
    assert tunnels.over
    (exchange,) = tunnels.world.completed
    assert exchange.failure is not None
    assert (exchange.failure.flag, exchange.failure.detail) == (Flag.RBAC, "policy 'no' denies it")
    assert "configuration 2 does not allow it: policy 'no' denies it" in caplog.text
    assert len(tunnels.world.lane.tunnels) == 0
    await tunnels.world.end()


async def test_a_tunnel_that_is_agreed_to_goes_on() -> None:
    tunnels = Tunnels()
    await tunnels.open()
    tunnels.change(agree)
    await settle()
    tunnels.world.connection.data_received(b"still here")
    await settle()
    assert bytes(tunnels.tunnel.written) == b"still here"
    (judged,) = tunnels.judged
    assert judged.snapshot.version == "2"
    assert judged.path == "/chat"
    assert judged.route is not None
    await tunnels.world.end()


async def test_what_is_let_in_before_a_change_and_opens_after_it_is_judged_too() -> None:
    tunnels = Tunnels()
    tunnels.hold.clear()
    await tunnels.open()
    tunnels.change(refuse)
    await settle()
    assert tunnels.judged == []
    tunnels.hold.set()
    await settle()
    assert tunnels.over
    await tunnels.world.end()


async def test_an_exception_closes_the_tunnel() -> None:
    tunnels = Tunnels()
    await tunnels.open()
    tunnels.change(lambda _: 1 / 0)
    await settle()
    assert tunnels.over
    failure = tunnels.world.completed[0].failure
    assert failure is not None
    assert failure.flag is Flag.PE
    await tunnels.world.end()


async def test_a_hook_that_waits_for_ever_closes_the_tunnel_in_the_end() -> None:
    tunnels = Tunnels()
    await tunnels.open()
    tunnels.change(lambda _: asyncio.Event().wait())
    await settle()
    assert not tunnels.over
    await tunnels.world.clock.advance(15)
    await settle()
    assert tunnels.over
    await tunnels.world.end()


async def test_a_tunnel_that_ends_while_it_is_judged_leaves_nothing() -> None:
    tunnels = Tunnels()
    await tunnels.open()
    go = asyncio.Event()

    async def slow(exchange: Exchange) -> None:
        await go.wait()
        refuse(exchange)

    tunnels.change(slow)
    await settle()
    tunnels.world.transport.reset()
    await settle()
    go.set()
    await settle()
    (exchange,) = tunnels.world.completed
    assert exchange.failure is not None
    assert exchange.failure.flag is Flag.DC
    await tunnels.world.end()


async def test_nobody_is_asked_where_no_plugin_judges_tunnels() -> None:
    tunnels = Tunnels()
    await tunnels.open()
    tunnels.change(None)
    assert len(tunnels.world.tasks) == 1, "the tunnel's own"
    await settle()
    assert not tunnels.over
    await tunnels.world.end()


async def test_a_judge_that_is_cancelled_closes_nothing() -> None:
    tunnels = Tunnels()
    await tunnels.open()
    tunnels.change(lambda _: asyncio.Event().wait())
    await settle()
    (task,) = [t for t in asyncio.all_tasks() if t.get_name().endswith("recheck")]
    task.cancel()
    await settle()
    assert not tunnels.over
    await tunnels.world.end()
