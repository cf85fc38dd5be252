from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.errors import MeshError
from hms_addons.up.child import LAST_LINES, LONGEST_LINE, Child, start
from hms_addons.up.machine import marked

if TYPE_CHECKING:
    from pathlib import Path


async def run(folder: Path, code: str, lines: list[str]) -> Child:
    return await start(
        [sys.executable, "-c", code],
        env=os.environ,
        cwd=folder,
        folder=folder,
        name="a-1",
        on_line=lines.append,
        clock=SYSTEM_CLOCK,
    )


async def test_all_that_it_writes_arrives_before_its_end(tmp_path: Path) -> None:
    lines: list[str] = []
    code = (
        "import sys\nfor n in range(500): print('line', n)\nsys.stderr.write('no end'); sys.exit(7)"
    )
    child = await run(tmp_path, code, lines)
    assert await child.wait() == 7
    assert lines == [*(f"line {n}" for n in range(500)), "no end"]
    assert list(child.last) == lines[-LAST_LINES:]


async def test_lines_without_end_come_in_pieces_and_bytes_that_are_no_text_do_no_harm(
    tmp_path: Path,
) -> None:
    lines: list[str] = []
    child = await run(tmp_path, "import os; os.write(1, b'\\xff' + b'x' * 200_000)", lines)
    assert await child.wait() == 0
    assert "".join(lines) == "�" + "x" * 200_000
    assert max(map(len, lines)) <= LONGEST_LINE + 65536


async def test_what_would_move_the_cursor_is_shown_and_not_done(tmp_path: Path) -> None:
    lines: list[str] = []
    child = await run(tmp_path, "print('\\x1bc\\x1b[31mred\\x1b[0m\\rforged\\r')", lines)
    assert await child.wait() == 0
    assert lines == list(child.last) == ["\\x1bc\x1b[31mred\x1b[0m\\rforged\x1b[0m"]


async def test_it_knows_where_it_belongs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    lines: list[str] = []
    code = (
        "import os, subprocess, sys\n"
        "print(os.getcwd(), os.environ['HMS_UP_INSTANCE'], flush=True)\n"
        "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'],"
        " start_new_session=True)\n"
        "os._exit(0)"
    )
    child = await run(tmp_path, code, lines)
    assert await child.wait() == 0
    assert lines == [f"{tmp_path} a-1"]
    assert marked(tmp_path) == []


@pytest.mark.parametrize(("how", "code"), [("terminate", -15), ("kill", -9)])
async def test_it_can_be_ended(tmp_path: Path, how: str, code: int) -> None:
    child = await run(tmp_path, "import time; time.sleep(600)", [])
    getattr(child, how)()
    assert await child.wait() == code
    getattr(child, how)()  # harms nobody


async def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - names are enough
    with pytest.raises(MeshError, match="cannot run '/no/such': No such file"):
        await start(
            ["/no/such"],
            env={},
            cwd=tmp_path,
            folder=tmp_path,
            name="a",
            on_line=print,
            clock=SYSTEM_CLOCK,
        )
    assert len(os.listdir("/proc/self/fd")) <= before + 1  # noqa: PTH208
