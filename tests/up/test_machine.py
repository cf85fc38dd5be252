from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.up.machine import (
    FreePorts,
    accepts,
    end_marked,
    holder,
    is_free,
    marked,
    marks,
    send,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SLEEP = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()"]


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        SLEEP,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | marks(tmp_path, "a-1"),
    )
    assert process.stdout is not None
    process.stdout.readline()  # it runs
    with process:
        yield process
        process.kill()


def test_marked_processes_are_found_by_folder_and_instance(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    assert marked(tmp_path) == marked(tmp_path, "a-1") == [sleeper.pid]
    assert marked(tmp_path, "a-2") == marked(tmp_path / "other") == []
    send([sleeper.pid], signal.SIGKILL)
    sleeper.wait()
    send([sleeper.pid], signal.SIGKILL)  # a second time harms nobody
    assert marked(tmp_path) == []


async def test_what_is_left_behind_is_ended(
    sleeper: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    # Reaped at once, as init does with what is nobody's child.
    import threading  # noqa: PLC0415 - only here

    threading.Thread(target=sleeper.wait).start()
    assert await end_marked(tmp_path, "a-1", SYSTEM_CLOCK) == 1
    assert marked(tmp_path) == []
    assert await end_marked(tmp_path, None, SYSTEM_CLOCK) == 0


def test_a_taken_port_is_told_with_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert not is_free(port)
        assert accepts(port)
        assert holder(port).startswith(f"process {os.getpid()} (")
    assert is_free(port)
    assert not accepts(port)
    assert "another program" in holder(port)


def test_free_ports_are_handed_out_once() -> None:
    ports = FreePorts()
    first = ports.take()
    assert is_free(first)
    assert ports.take(first) != first
    ports.give_back([first])
    assert ports.take(first) == first
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = server.getsockname()[1]
        assert ports.take(taken) != taken
