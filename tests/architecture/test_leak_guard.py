"""The guard in conftest.py that fails an async test which leaves a task running."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import TYPE_CHECKING

from tests.architecture.source import ROOT

if TYPE_CHECKING:
    from pathlib import Path

TESTS = """
import asyncio
import contextlib
import pytest

@pytest.fixture
async def background():
    task = asyncio.get_running_loop().create_task(asyncio.sleep(3600))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task

async def test_leaks():
    asyncio.get_running_loop().create_task(asyncio.sleep(3600), name="forgotten")

async def test_is_clean(background):
    await asyncio.sleep(0)

async def test_leaves_a_task_that_is_about_to_end():
    asyncio.get_running_loop().create_task(asyncio.sleep(0.01))

def test_is_not_async():
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
"""


def test_only_the_test_that_leaks_fails_and_names_the_task(tmp_path: Path) -> None:
    (tmp_path / "test_tasks.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "conftest.py").write_text((ROOT / "tests" / "conftest.py").read_text())
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "4 passed, 1 error" in run.stdout, run.stdout
    assert re.search(r"ERROR \S+::test_leaks - .*tasks left running", run.stdout), run.stdout
    assert "name='forgotten'" in run.stdout
