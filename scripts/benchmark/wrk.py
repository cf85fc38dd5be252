"""Load as fast as it goes: runs wrk and reads what it prints."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.benchmark.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from scripts.benchmark.process import Address

SOCKET_TIMEOUT = 10
"""Seconds after which wrk counts a timeout; its default, 2, is too short for the largest bodies."""
GRACE = 60.0
"""Seconds beyond the asked duration after which wrk itself is given up."""

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3, "h": 3600e3}
_TOTALS = re.compile(r"^\s*(\d+) requests in ", re.MULTILINE)
_RATE = re.compile(r"^Requests/sec:\s+([\d.]+)", re.MULTILINE)
_PERCENTILE = re.compile(r"^\s+(50|99)%\s+([\d.]+)(us|ms|s|m|h)\s*$", re.MULTILINE)
_FAULTS = re.compile(r"^\s*(Socket errors: .*|Non-2xx or 3xx responses: .*)$", re.MULTILINE)


class VoidRoundError(BenchError):
    """A round in which a request failed counts for nothing."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk measured in one round."""

    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float


@dataclass(frozen=True, slots=True)
class Order:
    """What wrk is asked to do."""

    address: Address
    path: str
    headers: Mapping[str, str]
    seconds: int
    """wrk knows no fractions of a second."""
    connections: int
    script: Path | None = None
    """A Lua script, for requests with a body."""

    def arguments(self) -> list[str]:
        """Its command line without the program."""
        host, port = self.address
        words = ["-t1", f"-c{self.connections}", f"-d{self.seconds}s", "--latency"]
        words.append(f"--timeout={SOCKET_TIMEOUT}s")
        for name, value in self.headers.items():
            words += ["-H", f"{name}: {value}"]
        if self.script is not None:
            words += ["-s", str(self.script)]
        return [*words, f"http://{host}:{port}{self.path}"]


def run(order: Order) -> Load:
    """One round; `VoidRoundError` when any request failed, `BenchError` when wrk cannot run."""
    program = shutil.which("wrk")
    if program is None:
        raise BenchError("wrk is not there; remedy: apt-get install wrk")
    return parse(_output([program, *order.arguments()], order.seconds + GRACE))


def upload_script(size: int) -> str:
    """A Lua script that makes every request a POST of `size` bytes."""
    return (
        'wrk.method = "POST"\n'
        f'wrk.body = string.rep("x", {size})\n'
        'wrk.headers["Content-Type"] = "application/octet-stream"\n'
    )


def parse(output: str) -> Load:
    """Read wrk's report.

    `VoidRoundError` when it tells of failed requests or of none at all, `BenchError` when the text
    is not wrk's.
    """
    if faults := _FAULTS.findall(output):
        raise VoidRoundError("; ".join(faults))
    totals, rate = _TOTALS.search(output), _RATE.search(output)
    if totals is None or rate is None:
        raise BenchError(f"wrk printed something else than its report:\n{output[-1000:]}")
    if int(totals[1]) == 0:
        raise VoidRoundError("not one request was answered")
    latency = {
        rank: float(value) * _UNITS[unit] for rank, value, unit in _PERCENTILE.findall(output)
    }
    if latency.keys() != {"50", "99"}:
        raise BenchError(f"wrk's report lacks the latency distribution:\n{output[-1000:]}")
    return Load(int(totals[1]), float(rate[1]), latency["50"], latency["99"])


def _output(command: Sequence[str], timeout: float) -> str:
    """What the command prints; `BenchError` when it fails or does not end."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise BenchError(f"wrk did not end within {timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = f"{error.stdout}{error.stderr}".strip()
        raise BenchError(f"wrk failed with status {error.returncode}: {said}") from error
    return done.stdout
