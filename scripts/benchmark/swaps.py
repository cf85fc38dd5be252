"""What pushed configurations cost the requests of a sidecar that takes them while it is under load.

The control plane has to share the load's cores, and takes a good part of one at this rate; what that
costs the load is not the sidecar's doing, so the ratio is given per processor time of the sidecar, too.

A real sidecar follows a real control plane, wrk loads it as fast as it goes, and an operator pushes
50 configurations a second, each different, for ten seconds. Quiet and busy rounds alternate.
"""

from __future__ import annotations

import itertools
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts.benchmark import wrk
from scripts.benchmark.control_process import ControlPlane
from scripts.benchmark.outcome import Outcome, Table, as_text
from scripts.benchmark.process import BenchError, Child, free_port, wait_for_answer
from scripts.benchmark.spread import Spread, ratio
from scripts.benchmark.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.benchmark.machine import Placement

RATE = 50
"""Pushes a second."""
SECONDS = 10
CONNECTIONS = 32
CONFIG = """\
listeners:
  - name: outbound
    port: 15001
    routes:
      - match: {{ prefix: / }}
        action: {{ cluster: upstream, timeout: {timeout}ms }}
clusters:
  - {{ name: upstream, endpoints: ["127.0.0.1:{port}"] }}
"""
_TAKEN = "is in force"
"""The sidecar logs a line with it for every configuration that it takes."""


class Rate(NamedTuple):
    """How fast requests were served: a second, and a second of the sidecar's processor time."""

    per_second: float
    per_cpu_second: float


class Round(NamedTuple):
    """Requests without and with pushes, and how many of the pushes were what."""

    quiet: Rate
    busy: Rate
    pushed: int
    taken: int


class Pusher:
    """Pushes configurations, each of which differs from the one before, at a fixed rate."""

    def __init__(self, control: ControlPlane, port: int) -> None:
        self._control = control
        self._port = port
        self._numbers = itertools.count()

    def push(self) -> None:
        """One of them."""
        text = CONFIG.format(timeout=30_000 + next(self._numbers), port=self._port)
        self._control.ask("PUT", "/v1/config", yaml=text)

    def run(self, stop: threading.Event) -> int:
        """`RATE` a second until told to stop; how many it were."""
        began = time.monotonic()
        pushed = 0
        while not stop.wait(max(0.0, began + pushed / RATE - time.monotonic())):
            self.push()
            pushed += 1
        return pushed


def measure(folder: Path, placement: Placement, rounds: int, say: Callable[[str], None]) -> Outcome:
    """So many quiet and busy rounds; a request that fails in any of them is a `BenchError`."""
    upstream = Upstream(folder, placement.load)
    try:
        with ControlPlane(folder, placement.load) as control:
            pusher = Pusher(control, upstream.port)
            pusher.push()
            port = free_port()
            sidecar = Child("sidecar", _command(control, port, folder), folder, placement.proxies)
            try:
                wait_for_answer([sidecar], ("127.0.0.1", port), "/", {})
                done = [
                    _round(sidecar, pusher, port, quiet_first=number % 2 == 0)
                    for number in range(rounds)
                ]
            finally:
                sidecar.stop()
    finally:
        upstream.stop()
    for one in done:
        say(
            f"  quiet {one.quiet.per_second:,.0f}, busy {one.busy.per_second:,.0f} requests/s; "
            f"{one.pushed} pushed, {one.taken} taken"
        )
    return outcome_of(done)


def _command(control: ControlPlane, port: int, folder: Path) -> list[str]:
    """The command line of the sidecar, with a token of its own."""
    token = folder / "token"
    token.write_text(control.join_token("claims-svc"), encoding="utf-8")
    return [
        *(str(Path(sys.executable).with_name("hms")), "sidecar", "--service", "claims-svc"),
        *("--control", f"https://127.0.0.1:{control.port}", "--ca-pin", control.pin),
        *("--token-file", str(token), "--state", str(folder / "state")),
        *("--inbound", "off", "--outbound", str(port), "--admin", "off"),
    ]


def _round(sidecar: Child, pusher: Pusher, port: int, *, quiet_first: bool) -> Round:
    order = wrk.Order(("127.0.0.1", port), "/", {}, SECONDS, CONNECTIONS)
    quiet = _load(sidecar, order) if quiet_first else None
    before = _taken(sidecar)
    stop, pushed, failures = threading.Event(), [], []

    def push() -> None:
        try:
            pushed.append(pusher.run(stop))
        except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
            failures.append(error)

    thread = threading.Thread(target=push)
    thread.start()
    try:
        busy = _load(sidecar, order)
    finally:
        stop.set()
        thread.join()
    if failures:
        raise BenchError(f"control: a push failed: {failures[0]}") from failures[0]
    sidecar.ensure_alive()
    taken = _taken(sidecar) - before
    if quiet is None:
        quiet = _load(sidecar, order)
    return Round(quiet, busy, pushed[0], taken)


def _load(sidecar: Child, order: wrk.Order) -> Rate:
    spent = sidecar.cpu_seconds()
    load = wrk.run(order)
    return Rate(load.requests_per_second, load.requests / (sidecar.cpu_seconds() - spent))


def _taken(sidecar: Child) -> int:
    """How many configurations it has taken so far."""
    return sidecar.log.read_text(encoding="utf-8", errors="replace").count(_TAKEN)


def outcome_of(rounds: list[Round]) -> Outcome:
    """The rounds as a table, and the ratio that a bar is set for."""
    quiet, busy = [one.quiet for one in rounds], [one.busy for one in rounds]
    against = ratio([one.per_second for one in busy], [one.per_second for one in quiet])
    per_cpu = ratio([one.per_cpu_second for one in busy], [one.per_cpu_second for one in quiet])
    series = {
        "requests/s, quiet": ([one.per_second for one in quiet], 0),
        "requests/s, pushed to": ([one.per_second for one in busy], 0),
        "the same, a ratio": ([against.median, against.min, against.max], 2),
        "… per processor time": ([per_cpu.median, per_cpu.min, per_cpu.max], 2),
        "pushes a second": ([one.pushed / SECONDS for one in rounds], 1),
        "taken a second": ([one.taken / SECONDS for one in rounds], 1),
    }
    rows = [
        [name, *as_text(Spread.of(values), digits)] for name, (values, digits) in series.items()
    ]
    return Outcome(
        ratios={"swaps_vs_quiet": against, "swaps_vs_quiet_per_cpu": per_cpu},
        details={"swaps": [one._asdict() for one in rounds]},
        tables=[
            Table(f"{RATE} pushes a second for {SECONDS} s", ["", "median", "min … max"], rows)
        ],
    )
