from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from fastapi import Request

from hms_addons.control.api.waiting import wait_for
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.fakes.plane import RunningPlane


class Poll:
    """One long poll, and what may end it."""

    def __init__(self, control: RunningPlane) -> None:
        self.control = control
        self.news = asyncio.Event()
        self.left = asyncio.Event()
        self.cancelled = False
        self.tasks = TaskSet("test")
        scope = {"type": "http", "state": {}, "headers": []}
        self.request = Request(scope, self._receive)
        self.result = self.tasks.start(
            wait_for(control.plane, self.request, self._wait(), 30.0), "poll"
        )

    async def _receive(self) -> dict[str, Any]:
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def _wait(self) -> str:
        try:
            await self.news.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "news"

    @property
    def watchers(self) -> float:
        value = self.control.plane.metrics.registry.get_sample_value("hms_control_watchers")
        assert value is not None
        return value


@pytest.fixture
async def poll(control: RunningPlane) -> AsyncIterator[Poll]:
    made = Poll(control)
    while not made.watchers:  # noqa: ASYNC110 - nobody tells of it
        await asyncio.sleep(0)
    yield made
    assert made.watchers == 0
    assert control.clock.pending == 0
    await made.tasks.close()


async def test_what_was_waited_for_is_returned(poll: Poll) -> None:
    poll.news.set()
    assert await poll.result == "news"
    assert poll.request.scope["state"]["waited"] == 0


async def test_the_time_ends_it(poll: Poll) -> None:
    await poll.control.clock.advance(29)
    assert not poll.result.done()
    await poll.control.clock.advance(1)
    assert await poll.result is None
    assert poll.cancelled
    assert poll.request.scope["state"]["waited"] == 30


async def test_a_client_that_leaves_ends_it(poll: Poll) -> None:
    poll.left.set()
    assert await poll.result is None
    assert poll.cancelled


async def test_stopping_ends_it_at_once(poll: Poll) -> None:
    poll.control.plane.stopping.set()
    assert await poll.result is None
    assert poll.cancelled


async def test_a_failure_is_raised(poll: Poll) -> None:
    async def fail() -> None:
        raise LookupError("gone")

    with pytest.raises(LookupError):
        await wait_for(poll.control.plane, poll.request, fail(), 30.0)
    poll.news.set()
    await poll.result


async def test_being_cancelled_cancels_the_wait(poll: Poll) -> None:
    poll.result.cancel()
    with pytest.raises(asyncio.CancelledError):
        await poll.result
    assert poll.cancelled
