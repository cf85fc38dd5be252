from __future__ import annotations

import asyncio
import gc
import logging
from typing import TYPE_CHECKING

import pytest

from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def fail() -> None:
    raise ValueError("no such endpoint")


@pytest.fixture
async def tasks() -> AsyncIterator[TaskSet]:
    task_set = TaskSet("cluster auth-svc")
    yield task_set
    await task_set.close()
    assert len(task_set) == 0


async def test_runs_what_it_starts_under_a_name_and_forgets_it_when_done(tasks: TaskSet) -> None:
    async def probe() -> int:
        return 7

    task = tasks.start(probe(), "probe")
    assert (task.get_name(), len(tasks)) == ("cluster auth-svc:probe", 1)
    assert await task == 7
    await asyncio.sleep(0)
    assert len(tasks) == 0


async def test_holds_its_tasks_against_the_garbage_collector(tasks: TaskSet) -> None:
    finished = asyncio.Event()

    async def wait_for_what_only_it_refers_to() -> None:
        try:
            await forever()
        finally:
            finished.set()

    tasks.start(wait_for_what_only_it_refers_to(), "lonely")
    await asyncio.sleep(0)
    gc.collect()
    await asyncio.sleep(0)
    assert not finished.is_set()
    assert len(tasks) == 1


async def test_logs_a_failure_at_once_with_name_and_traceback(
    tasks: TaskSet, caplog: pytest.LogCaptureFixture
) -> None:
    task = tasks.start(fail(), "health check")
    await asyncio.wait([task])
    await asyncio.sleep(0)
    (record,) = caplog.records
    assert record.levelno == logging.ERROR
    assert "cluster auth-svc:health check" in record.getMessage()
    assert "no such endpoint" in record.getMessage()
    assert record.exc_info is not None
    assert len(tasks) == 0


async def test_close_cancels_and_waits_until_each_has_cleaned_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = TaskSet("listener peers")
    cleaned: list[int] = []

    async def clean_up_slowly(number: int) -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            cleaned.append(number)

    for number in range(3):
        tasks.start(clean_up_slowly(number), str(number))
    await asyncio.sleep(0)
    await tasks.close()
    assert sorted(cleaned) == [0, 1, 2]
    assert len(tasks) == 0
    assert not caplog.records, "being cancelled is no failure"


async def test_close_survives_a_task_that_fails_on_its_way_out(
    caplog: pytest.LogCaptureFixture,
) -> None:
    tasks = TaskSet("listener peers")

    async def fail_when_cancelled() -> None:
        try:
            await forever()
        finally:
            await fail()

    bad = tasks.start(fail_when_cancelled(), "bad")
    good = tasks.start(forever(), "good")
    await asyncio.sleep(0)
    await tasks.close()
    assert (bad.done(), good.cancelled(), len(tasks)) == (True, True, 0)
    assert "no such endpoint" in caplog.text


async def test_close_twice_and_from_within_one_of_its_own_tasks() -> None:
    tasks = TaskSet("drain")
    other = tasks.start(forever(), "other")
    closer = tasks.start(tasks.close(), "closer")
    await closer
    await tasks.close()
    await asyncio.sleep(0)
    assert (closer.cancelled(), other.cancelled(), len(tasks)) == (False, True, 0)


async def test_refuses_to_start_once_closed_and_leaks_no_coroutine() -> None:
    tasks = TaskSet("drain")
    await tasks.close()
    coro = forever()
    with pytest.raises(RuntimeError, match="drain is closed: late was not started"):
        tasks.start(coro, "late")
    # A closed coroutine cannot be awaited, and warns nobody that it never was.
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await coro


async def test_a_cancelled_close_is_itself_cancelled() -> None:
    tasks = TaskSet("stubborn")
    release = asyncio.Event()

    async def refuse_to_end() -> None:
        try:
            await forever()
        finally:
            await release.wait()

    tasks.start(refuse_to_end(), "refuses")
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(tasks.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing], timeout=0.1)
    release.set()
    await asyncio.wait([closing], timeout=1)
    assert closing.cancelled()


async def test_repr_tells_who_and_how_many(tasks: TaskSet) -> None:
    assert repr(tasks) == "<TaskSet cluster auth-svc running=0 closed=False>"
    tasks.start(forever(), "probe")
    assert repr(tasks) == "<TaskSet cluster auth-svc running=1 closed=False>"
    await tasks.close()
    assert repr(tasks) == "<TaskSet cluster auth-svc running=0 closed=True>"
