from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.errors import MeshError
from hms_addons.up.log_files import LogFiles, LogReader
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from pathlib import Path


def test_a_services_logs_are_merged_by_time_and_followed(tmp_path: Path) -> None:
    clock = FakeClock()
    logs = LogFiles(tmp_path / "logs", clock)
    for number, name in enumerate(("a-2", "a-1", "b-1", "a-2")):
        clock.tick(1)
        logs.write(name, f"line {number}")
    reader = LogReader(tmp_path / "logs", "a")
    assert reader.new() == [("a-2", "line 0"), ("a-1", "line 1"), ("a-2", "line 3")]
    assert reader.new() == []
    logs.write("a-1", "more")
    logs.write("a-3", "new one")
    assert sorted(reader.new()) == [("a-1", "more"), ("a-3", "new one")]
    assert LogReader(tmp_path / "logs", "b-1").new() == [("b-1", "line 2")]
    logs.close()


def test_a_log_is_bounded_and_a_follower_misses_nothing(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, FakeClock(), max_bytes=200)
    logs.write("a-1", "0")
    reader = LogReader(tmp_path, "a-1")
    found = [line for _, line in reader.new()]
    for number in range(1, 40):
        logs.write("a-1", str(number))
        if number % 3 == 0:
            found += [line for _, line in reader.new()]
    assert found == [str(number) for number in range(40)]
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 500
    logs.close()


def test_an_unknown_service_is_told(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, FakeClock())
    logs.write("a-1", "x")
    logs.close()
    with pytest.raises(MeshError, match="there is no log of b; there are: a-1"):
        LogReader(tmp_path, "b")


def test_all_that_is_kept_is_read_at_first_line_by_line(tmp_path: Path) -> None:
    logs = LogFiles(tmp_path, FakeClock(), max_bytes=100)
    said = [f"{number} two\x0bthree\u2028four" for number in range(4)]
    for line in said:
        logs.write("a-1", line)
    logs.close()
    assert (tmp_path / "a-1.log.1").exists()
    assert [line for _, line in LogReader(tmp_path, "a-1").new()] == said


def test_an_instances_lines_stay_in_order_when_the_clock_is_set_back(tmp_path: Path) -> None:
    clock = FakeClock()
    logs = LogFiles(tmp_path, clock)
    logs.write("a-1", "first")
    clock.step(-3600)
    logs.write("a-1", "second")
    logs.write("a-2", "beside it")
    logs.close()
    lines = [line for name, line in LogReader(tmp_path, "a").new() if name == "a-1"]
    assert lines == ["first", "second"]


def test_a_full_disk_costs_the_line_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a-1.log").symlink_to("/dev/full")
    logs = LogFiles(tmp_path, FakeClock())
    for _ in range(3):
        logs.write("a-1", "lost")
    logs.write("b-1", "kept")
    (tmp_path / "b-1.log").unlink()
    logs.write("b-1", "as long as somebody has it open")
    logs.close()
    assert list(tmp_path.iterdir()) == [tmp_path / "a-1.log"]
