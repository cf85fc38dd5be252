"""Lines written by a thread: none is torn, none blocks, what cannot be written is counted."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.line_log import FORMED, GATHERED, GATHERED_FOR, GUESS, STDOUT, LineLog
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

ENOUGH = 5.0
"""For `flush`, on a clock that stands still: the thread ends it, not the time."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_lines_come_in_order_and_one_a_line(tmp_path: Path, clock: FakeClock) -> None:
    log = LineLog(str(tmp_path / "log"), clock)
    for number in range(1000):
        assert log.write(f"line {number}")
    assert await log.close(ENOUGH)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [f"line {number}" for number in range(1000)]
    assert (log.written, log.dropped, log.waiting) == (1000, 0, 0)


async def test_nothing_is_opened_or_started_before_the_first_line(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = LineLog(str(tmp_path / "log"), clock)
    assert await log.flush(ENOUGH)
    assert await log.close(ENOUGH)
    assert not (tmp_path / "log").exists()
    assert clock.pending == 0


async def test_lines_are_handed_over_after_a_moment(tmp_path: Path, clock: FakeClock) -> None:
    log = LineLog(str(tmp_path / "log"), clock)
    log.write("first")
    log.write("second")
    assert log._writer is None
    assert clock.pending == 1
    clock.tick(GATHERED_FOR)
    assert log._writer is not None
    assert clock.pending == 0
    await log.close(ENOUGH)
    assert (tmp_path / "log").read_text() == "first\nsecond\n"


async def test_many_lines_are_handed_over_at_once(tmp_path: Path, clock: FakeClock) -> None:
    log = LineLog(str(tmp_path / "log"), clock)
    log.write("x")
    log.write("y" * GATHERED)
    assert log._writer is not None
    assert clock.pending == 0
    await log.close(ENOUGH)
    assert log.written == 2


async def test_lines_are_made_of_some_dozens_of_entries_at_once(
    tmp_path: Path, clock: FakeClock
) -> None:
    made: list[int] = []

    def form(entries: Sequence[Any]) -> list[str]:
        made.append(len(entries))
        return [str(entry) for entry in entries]

    log = LineLog(str(tmp_path / "log"), clock, form=form)
    for number in range(FORMED):
        assert log.waiting == number * GUESS
        log.write(number)
    assert (made, log._writer) == ([FORMED], None)
    assert log.waiting == sum(len(str(number)) for number in range(FORMED))
    log.write(FORMED)
    clock.tick(GATHERED_FOR)
    assert made == [FORMED, 1]
    log.write(FORMED + 1)
    assert await log.close(ENOUGH)
    lines = (tmp_path / "log").read_text().split()
    assert lines == [str(number) for number in range(FORMED + 2)]
    assert (log.written, log.waiting) == (FORMED + 2, 0)


async def test_an_entry_of_which_no_line_can_be_made_takes_no_other_with_it(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    def form(entries: Sequence[Any]) -> list[str]:
        if "bad" in entries:
            raise ValueError("so bad")
        return list(entries)

    log = LineLog(str(tmp_path / "log"), clock, "access log", form=form)
    for number in range(FORMED - 1):
        log.write(f"good {number}")
    assert log.write("bad")
    assert log.refused == 1
    assert "access log: no line can be made of an entry: ValueError('so bad')" in caplog.text
    log.write("bad")
    clock.tick(GATHERED_FOR)
    log.write("last")
    assert await log.close(ENOUGH)
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines == [*(f"good {number}" for number in range(FORMED - 1)), "last"]
    assert (log.written, log.dropped, log.waiting) == (FORMED, 2, 0)


async def test_entries_that_wait_are_bounded_before_their_lines_are_made(
    tmp_path: Path, clock: FakeClock
) -> None:
    log = LineLog(
        str(tmp_path / "log"), clock, limit=3 * GUESS, form=lambda entries: ["x"] * len(entries)
    )
    assert [log.write(n) for n in range(5)] == [True] * 3 + [False] * 2
    clock.tick(GATHERED_FOR)
    assert log.write(5)
    await log.close(ENOUGH)
    assert (log.written, log.refused) == (4, 2)


async def test_a_line_cannot_be_made_into_two(tmp_path: Path, clock: FakeClock) -> None:
    log = LineLog(str(tmp_path / "log"), clock)
    log.write("path=/a\r\npath=/forged")
    log.write("\udcff")
    await log.close(ENOUGH)
    assert (tmp_path / "log").read_text() == "path=/a\\r\\npath=/forged\n\\udcff\n"


async def test_a_renamed_file_is_opened_anew(tmp_path: Path, clock: FakeClock) -> None:
    path = tmp_path / "log"
    log = LineLog(str(path), clock)
    log.write("before")
    await log.flush(ENOUGH)
    path.rename(tmp_path / "log.1")
    log.write("after")
    await log.flush(ENOUGH)
    path.unlink()
    log.write("last")
    await log.close(ENOUGH)
    assert (tmp_path / "log.1").read_text() == "before\n"
    assert path.read_text() == "last\n"
    assert log.written == 3


async def test_a_file_that_hangs_makes_nobody_wait_and_what_is_too_much_is_dropped(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)  # to open it for writing waits for a reader
    log = LineLog(str(path), clock, "access log", limit=100)
    taken = [log.write("x" * 10) for _ in range(20)]
    clock.tick(GATHERED_FOR)
    assert taken == [True] * 10 + [False] * 10
    assert not log.write("x")
    assert (log.refused, log.waiting) == (11, 100)
    assert repr(log) == f"<LineLog access log {path} waiting=100 written=0 dropped=11>"

    assert not await _closed_in_time(log, clock)
    assert f"access log: {path} takes no lines; 100 characters wait" in caplog.text
    assert not log.write("x")

    reader = os.open(path, os.O_RDONLY)  # lets the thread go
    with os.fdopen(reader) as lines:
        assert lines.read() == ("x" * 10 + "\n") * 10


async def _closed_in_time(log: LineLog, clock: FakeClock) -> bool:
    closing = asyncio.get_running_loop().create_task(log.close(2.0))
    await clock.advance(1.9)
    assert not closing.done()
    await clock.advance(0.2)
    return await closing


async def test_what_cannot_be_written_is_lost_and_told_once(
    tmp_path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = LineLog(str(tmp_path / "folder" / "log"), clock, "access log")
    for _ in range(3):
        log.write("lost")
        await log.flush(ENOUGH)
    assert log.lost == 3
    assert caplog.text.count("cannot be written") == 1
    (tmp_path / "folder").mkdir()
    log.write("kept")
    await log.close(ENOUGH)
    assert (log.lost, log.written) == (3, 1)
    assert "can be written again; 3 lost" in caplog.text


async def test_a_path_that_is_none_is_told_too(
    clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    log = LineLog("a\0b", clock)
    log.write("lost")
    assert await log.close(ENOUGH)
    assert log.lost == 1
    assert "null" in caplog.text


async def test_half_a_line_of_a_full_disk_is_not_continued(
    tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    room = [11]
    write = os.write

    def on_a_small_disk(fd: int, data: bytes) -> int:
        size = min(room[0], len(data))
        if not size:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= size
        return write(fd, data[:size])

    monkeypatch.setattr("hms_addons.line_log.os.write", on_a_small_disk)  # a disk that is full
    log = LineLog(str(path), clock)
    log.write("12345")
    log.write("1234567890")
    await log.flush(ENOUGH)
    assert (log.written, log.lost) == (1, 1)
    log.write("nothing")
    await log.flush(ENOUGH)
    assert (log.written, log.lost) == (1, 2)
    room[0] = 1000
    log.write("whole")
    await log.close(ENOUGH)
    assert path.read_text() == "12345\n12345\nwhole\n"
    assert (log.written, log.lost) == (2, 2)


async def test_standard_output_may_be_a_pipe_that_does_not_block(clock: FakeClock) -> None:
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    saved = os.dup(1)
    try:
        os.dup2(writer, 1)
        os.set_blocking(1, False)
        log = LineLog(STDOUT, clock)
        for number in range(1000):
            log.write(f"{number:09}")
        clock.tick(GATHERED_FOR)
        found = b""
        while len(found) < 10_000:
            found += os.read(reader, 4096)
        assert await log.close(ENOUGH)
    finally:
        os.dup2(saved, 1)
        for fd in (saved, reader, writer):
            os.close(fd)
    assert found == b"".join(b"%09d\n" % number for number in range(1000))
    assert log.written == 1000
