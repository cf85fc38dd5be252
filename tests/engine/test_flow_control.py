"""Waiting while a peer does not read, and what ends the wait."""

from __future__ import annotations

import asyncio

import pytest

from hms_addons.engine.flow_control import FlowControl
from tests.fakes.lane import settle


async def test_nobody_waits_while_the_buffer_has_room() -> None:
    flow_control = FlowControl()
    await asyncio.wait_for(flow_control.drain(), 1)
    flow_control.pause()
    flow_control.resume()
    await asyncio.wait_for(flow_control.drain(), 1)


async def test_all_who_wait_go_on_together() -> None:
    flow_control = FlowControl()
    flow_control.pause()
    waiting = [asyncio.create_task(flow_control.drain()) for _ in range(3)]
    await settle()
    assert not any(task.done() for task in waiting)
    assert repr(flow_control) == "<FlowControl paused>"
    flow_control.resume()
    await asyncio.wait_for(asyncio.gather(*waiting), 1)
    assert repr(flow_control) == "<FlowControl open>"


async def test_paused_again_before_the_waiter_ran_is_still_paused() -> None:
    flow_control = FlowControl()
    flow_control.pause()
    waiting = asyncio.create_task(flow_control.drain())
    await settle()
    flow_control.resume()
    flow_control.pause()
    await settle()
    assert not waiting.done()
    flow_control.resume()
    await asyncio.wait_for(waiting, 1)


async def test_close_ends_the_wait_with_a_reset() -> None:
    flow_control = FlowControl()
    flow_control.pause()
    waiting = [asyncio.create_task(flow_control.drain()) for _ in range(2)]
    await settle()
    flow_control.close()
    for task in waiting:
        with pytest.raises(ConnectionResetError, match="connection was lost"):
            await asyncio.wait_for(task, 1)


@pytest.mark.parametrize("paused", [False, True])
async def test_after_close_nobody_waits(paused: bool) -> None:
    flow_control = FlowControl()
    if paused:
        flow_control.pause()
    flow_control.close()
    with pytest.raises(ConnectionResetError):
        await asyncio.wait_for(flow_control.drain(), 1)


async def test_a_waiter_that_was_cancelled_does_not_stop_the_others() -> None:
    flow_control = FlowControl()
    flow_control.pause()
    first, second = (asyncio.create_task(flow_control.drain()) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    flow_control.resume()
    await asyncio.wait_for(second, 1)
    assert first.cancelled()
