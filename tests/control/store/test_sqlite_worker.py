from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING

import pytest

from hms_addons.control.store.protocol import ConflictError, StoreClosedError
from hms_addons.control.store.sqlite_worker import GROUP, SqliteWorker

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[SqliteWorker]:
    worker = SqliteWorker(tmp_path / "control.db")
    await worker.open()
    yield worker
    await worker.close()


def insert(key: str) -> Callable[[sqlite3.Connection], str]:
    def work(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO entries VALUES (?, x'00', 1, NULL)", (key,))
        return key

    return work


def keys(connection: sqlite3.Connection) -> list[str]:
    return [key for (key,) in connection.execute("SELECT key FROM entries ORDER BY key")]


async def test_work_that_waits_shares_a_commit(worker: SqliteWorker) -> None:
    held, go = threading.Event(), threading.Event()
    seen: list[int] = []

    def hold(connection: sqlite3.Connection) -> None:
        held.set()
        go.wait(10)

    def begun(connection: sqlite3.Connection) -> None:
        seen.append(statements.count("BEGIN IMMEDIATE"))

    statements: list[str] = []
    await worker.submit(lambda connection: connection.set_trace_callback(statements.append))
    first = worker.submit(hold)
    held.wait(10)
    statements.clear()
    rest = [worker.submit(begun) for _ in range(GROUP + 5)]
    go.set()
    await asyncio.gather(first, *rest)

    assert seen == [1] * GROUP + [2] * 5
    await worker.submit(lambda connection: connection.set_trace_callback(None))


async def test_a_refusal_leaves_the_others_of_its_group_alone(worker: SqliteWorker) -> None:
    def refuse(connection: sqlite3.Connection) -> None:
        raise ConflictError("x", 3)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO entries VALUES ('half', x'00', 1, NULL)")
        raise KeyError("a fault in the program")

    results = await asyncio.gather(
        *map(worker.submit, (insert("a"), refuse, insert("b"), fail, insert("c"))),
        return_exceptions=True,
    )

    assert [str(result) for result in results if isinstance(result, str)] == ["a", "b", "c"]
    assert isinstance(results[1], ConflictError)
    assert isinstance(results[3], KeyError)
    assert await worker.submit(keys) == ["a", "b", "c"]


async def test_what_follows_is_done_once_and_in_order_whoever_waits(worker: SqliteWorker) -> None:
    done: list[str] = []
    futures = [worker.submit(insert(key), done.append) for key in "abcdef"]
    futures[1].cancel()
    futures[4].cancel()
    await worker.submit(keys)
    assert done == list("abcdef")


async def test_closing_does_what_was_asked_for_before(tmp_path: Path) -> None:
    worker = SqliteWorker(tmp_path / "control.db")
    await worker.open()
    futures = [worker.submit(insert(f"{n:03}")) for n in range(300)]
    await worker.close()
    assert [future.result() for future in futures] == [f"{n:03}" for n in range(300)]
    with pytest.raises(StoreClosedError):
        worker.submit(keys)
    assert repr(worker) == f"<SqliteWorker {tmp_path / 'control.db'} closed>"


def test_a_loop_that_ended_without_closing_leaves_no_thread_that_holds_the_file(
    tmp_path: Path,
) -> None:
    async def leave() -> SqliteWorker:
        worker = SqliteWorker(tmp_path / "control.db")
        await worker.open()
        worker.submit(insert("a"))
        return worker

    worker = asyncio.run(leave())
    assert worker._thread.daemon
    worker.stop()
    worker._thread.join(10)
    assert not worker._thread.is_alive()
