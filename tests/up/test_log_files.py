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
