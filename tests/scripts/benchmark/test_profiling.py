from __future__ import annotations

import cProfile
from typing import TYPE_CHECKING

from scripts.benchmark.profiling import _text

if TYPE_CHECKING:
    from pathlib import Path


def test_the_costliest_function_comes_first(tmp_path: Path) -> None:
    def costly() -> int:
        return sum(number * number for number in range(50_000))

    with cProfile.Profile() as profiler:
        costly()
    profiler.dump_stats(tmp_path / "out")
    lines = _text(tmp_path / "out").splitlines()
    header = next(i for i, line in enumerate(lines) if "tottime" in line)
    assert "genexpr" in lines[header + 1]
