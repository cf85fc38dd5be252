from __future__ import annotations

import cProfile
from typing import TYPE_CHECKING

from scripts.benchmark.profiling import _text

if TYPE_CHECKING:
    from pathlib import Path


def test_the_costliest_function_comes_first(tmp_path: Path) -> None:
    def costly() -> int:
        total = 0
        for number in range(50_000):
            total += number * number
        return total

    with cProfile.Profile() as profiler:
        sum([costly() for _ in range(2)])
    profiler.dump_stats(tmp_path / "out")
    lines = _text(tmp_path / "out").splitlines()
    header = next(i for i, line in enumerate(lines) if "tottime" in line)
    assert "costly" in lines[header + 1]
