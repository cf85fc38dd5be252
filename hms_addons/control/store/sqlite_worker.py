"""The one thread that talks to SQLite, so that the event loop never waits for a disk.

Work that has gathered while a commit was being written shares the next one (group commit): one
`fsync` for up to `GROUP` writers. Results come back to the event loop in the order of the work, and
only when they are on disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from hms_addons.control.store.protocol import StoreClosedError, StoreError
from hms_addons.control.store.sqlite_file import explain, open_file

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

GROUP: Final = 128
"""Most pieces of work in one transaction."""


@dataclass(slots=True, eq=False)
class _Job:
    work: Callable[[sqlite3.Connection], Any]
    then: Callable[[Any], object] | None
    future: asyncio.Future[Any]
    result: Any = None
    error: Exception | None = None


class SqliteWorker:
    """Runs functions over the connection to `path`; must be made on the event loop.

    Args:
        path: the store's file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._loop = asyncio.get_running_loop()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._closed = False
        self._opened: asyncio.Future[None] = self._loop.create_future()
        self._ended = asyncio.Event()
        # A daemon: a loop that ends without `close` must not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="hms-store", daemon=True)

    def __repr__(self) -> str:
        return f"<SqliteWorker {self._path} {'closed' if self._closed else 'open'}>"

    async def open(self) -> None:
        """Start, and open the file; makes it if there is none.

        Raises:
            StoreFileError: it cannot be used.
        """
        self._thread.start()
        try:
            await self._opened
        except BaseException:
            await self.close()  # whoever tries again finds the file free
            raise

    def submit[T](
        self,
        work: Callable[[sqlite3.Connection], T],
        then: Callable[[T], object] | None = None,
    ) -> asyncio.Future[T]:
        """Run `work` on the thread, in a transaction; what it raises, the future raises.

        Args:
            work: raises a `StoreError` only when it has changed nothing.
            then: called on the event loop with the result once that is on disk, before the future
                is done, and also when nobody waits for that any more. Must not raise.

        Raises:
            StoreClosedError: it was closed.
        """
        self.check_open()
        job = _Job(work, then, self._loop.create_future())
        self._jobs.put(job)
        return job.future

    def check_open(self) -> None:
        """Raise `StoreClosedError` once it was closed."""
        if self._closed:
            raise StoreClosedError(f"the store {self._path} is closed")

    def stop(self) -> None:
        """Take no more work; end when what there is has been done."""
        if not self._closed:
            self._closed = True
            self._jobs.put(None)

    async def close(self) -> None:
        """Stop, and wait until the file is closed. Idempotent."""
        self.stop()
        await self._ended.wait()

    # On the thread

    def _run(self) -> None:
        try:
            connection = open_file(self._path)
        except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
            self._tell(_settle, self._opened, None, error)
        else:
            self._tell(_settle, self._opened, None, None)
            with contextlib.closing(connection):
                while (jobs := self._next()) is not None:
                    self._carry_out(connection, jobs)
                    self._tell(_deliver, jobs)
        self._tell(self._ended.set)

    def _next(self) -> list[_Job] | None:
        """The work there is, at least one piece; None at the end."""
        job = self._jobs.get()
        if job is None:
            return None
        jobs = [job]
        with contextlib.suppress(queue.Empty):
            while len(jobs) < GROUP:
                if (job := self._jobs.get_nowait()) is None:
                    self._jobs.put(None)  # `stop` came last, so this keeps the order
                    break
                jobs.append(job)
        return jobs

    def _carry_out(self, connection: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
        error = _transaction(connection, jobs)
        if error is not None and len(jobs) > 1:
            # One of them, or the disk: each for itself, so that none fails for another's sake.
            for job in jobs:
                self._carry_out(connection, [job])
        elif isinstance(error, sqlite3.Error):
            jobs[0].error = StoreError(explain(self._path, error))
        elif error is not None:
            jobs[0].error = error

    def _tell(self, call: Callable[..., object], *args: object) -> None:
        # The loop may be gone, and with it whoever wanted to know.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(call, *args)


def _transaction(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> Exception | None:
    """Do all `jobs` in one transaction; what went wrong when none of them was done."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        for job in jobs:
            job.result, job.error = None, None
            try:
                job.result = job.work(connection)
            except StoreError as refusal:
                job.error = refusal
        connection.execute("COMMIT")
    except Exception as error:  # noqa: BLE001 - it is raised where it is waited for
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        return error
    return None


def _deliver(jobs: Sequence[_Job]) -> None:
    for job in jobs:
        if job.error is None and job.then is not None:
            job.then(job.result)
        _settle(job.future, job.result, job.error)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.done():
        return  # its waiter was cancelled
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)
