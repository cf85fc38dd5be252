"""Where our sidecar spends its time: cProfile under the load of a scenario.

cProfile makes Python functions look slower against the kernel and C than they are: read the order
of the lines, not their shares.
"""

from __future__ import annotations

import io
import pstats
import sys
from typing import TYPE_CHECKING

from scripts.benchmark import checks, contenders, wrk
from scripts.benchmark.bench import CONNECTIONS, OURS
from scripts.benchmark.job import Job, Task
from scripts.benchmark.lab import stopping
from scripts.benchmark.process import wait_for_answer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from scripts.benchmark.lab import Lab

TASKS: Mapping[str, Task] = {"a": Task.PLAIN, "b": Task.POLICY, "c": Task.PAIR}
SECONDS = 10
LINES = 45


def profile(lab: Lab, letter: str, say: Callable[[str], None]) -> None:
    """Load our sidecar as scenario `letter` does and say its costliest functions, hop by hop."""
    job = Job(TASKS[letter], lab.upstream.port)
    headers = contenders.request_headers(job, lab.credentials)
    ports, commands = contenders.hms_commands(lab, job)
    files = [lab.scratch("profile.out") for _ in commands]
    profiled = [
        [sys.executable, "-m", "cProfile", "-o", str(file), *command]
        for file, command in zip(files, commands, strict=True)
    ]
    sidecar = contenders.spawn(lab, OURS, ports, profiled)
    with stopping({OURS: sidecar}):
        wait_for_answer(sidecar.children, sidecar.address, job.path, headers)
        checks.verify(lab, sidecar, job)
        load = wrk.run(wrk.Order(sidecar.address, job.path, headers, SECONDS, CONNECTIONS))
    for number, file in enumerate(files, 1):
        say(f"hop {number} of {len(files)}, {load.requests} requests under the profiler")
        say(_text(file))


def _text(file: Path) -> str:
    """The functions in which most time was spent, their callees' time not counted."""
    stream = io.StringIO()
    pstats.Stats(str(file), stream=stream).sort_stats("tottime").print_stats(LINES)
    return stream.getvalue()
