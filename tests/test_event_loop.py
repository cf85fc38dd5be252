from __future__ import annotations

import asyncio
import subprocess
import sys

import pytest
import uvloop

from hms_addons.event_loop import NAMES, loop_factory


@pytest.mark.parametrize(
    ("name", "kind"), [("uvloop", uvloop.Loop), ("asyncio", asyncio.BaseEventLoop)]
)
def test_the_loop_that_was_named_runs(name: str, kind: type) -> None:
    assert name in NAMES

    async def running() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    with asyncio.Runner(loop_factory=loop_factory(name)) as runner:
        assert isinstance(runner.run(running()), kind)


def test_where_uvloop_is_missing_asyncio_will_do() -> None:
    without = (
        "import sys; sys.modules['uvloop'] = None\n"
        "from hms_addons.event_loop import loop_factory\n"
        "print(loop_factory('uvloop'))"
    )
    said = subprocess.run(
        [sys.executable, "-c", without], capture_output=True, text=True, check=True, timeout=30
    )
    assert said.stdout == "None\n"
