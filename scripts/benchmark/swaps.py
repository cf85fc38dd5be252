"""What configurations that change all the time cost the requests of a sidecar under load.

wrk loads a sidecar as fast as it goes; quiet and busy rounds of ten seconds alternate. In a busy one,

- *swaps*: the sidecar puts another configuration in force 50 times a second: validated, compiled, applied;
- *pushes*: an operator pushes 50 a second to a real control plane, which the sidecar follows. It takes
  as many of them as its own pace allows, the last one always.

The control plane has to share the load's cores, and takes a good part of one at this rate; what that
costs the load is not the sidecar's doing, so ratios are given per processor time of the sidecar, too.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
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
from scripts.benchmark.swapping import RATE
from scripts.benchmark.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.benchmark.machine import Placement

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
    """Requests without and with changes, how many changes were made, and how many put in force."""

    quiet: Rate
    busy: Rate
    changes: int
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
    """So many quiet and busy rounds of both; a request that fails in any is a `BenchError`."""
    upstream = Upstream(folder, placement.load)
    try:
        swaps = _swaps(folder, placement, upstream, rounds)
        _tell("swaps", swaps, say)
        pushes = _pushes(folder, placement, upstream, rounds)
        _tell("pushes", pushes, say)
    finally:
        upstream.stop()
    return outcome_of("swaps", swaps) | outcome_of("pushes", pushes)


def _swaps(folder: Path, placement: Placement, upstream: Upstream, rounds: int) -> list[Round]:
    port = free_port()
    words = ["-m", "scripts.benchmark.swapping", str(port), str(upstream.port)]
    sidecar = Child("swapping", [sys.executable, *words], folder, placement.proxies)

    @contextlib.contextmanager
    def swapping() -> Iterator[list[int]]:
        before = _taken(sidecar)
        os.kill(sidecar.pid, signal.SIGUSR1)
        count: list[int] = []
        try:
            yield count
        finally:
            os.kill(sidecar.pid, signal.SIGUSR2)
        count.append(_taken(sidecar) - before)

    return _rounds(sidecar, port, rounds, swapping)


def _pushes(folder: Path, placement: Placement, upstream: Upstream, rounds: int) -> list[Round]:
    with ControlPlane(folder, placement.load) as control:
        pusher = Pusher(control, upstream.port)
        pusher.push()
        port = free_port()
        sidecar = Child("sidecar", _command(control, port, folder), folder, placement.proxies)

        @contextlib.contextmanager
        def pushing() -> Iterator[list[int]]:
            stop, pushed, failures = threading.Event(), [], []

            def push() -> None:
                try:
                    pushed.append(pusher.run(stop))
                except Exception as error:  # noqa: BLE001 - raised again below, in the thread that asked
                    failures.append(error)

            thread = threading.Thread(target=push)
            thread.start()
            try:
                yield pushed
            finally:
                stop.set()
                thread.join()
            if failures:
                raise BenchError(f"control: a push failed: {failures[0]}") from failures[0]

        return _rounds(sidecar, port, rounds, pushing)


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


def _rounds(
    sidecar: Child,
    port: int,
    rounds: int,
    disturbing: Callable[[], contextlib.AbstractContextManager[list[int]]],
) -> list[Round]:
    """Quiet and busy rounds in turn; the sidecar is ended afterwards."""
    order = wrk.Order(("127.0.0.1", port), "/", {}, SECONDS, CONNECTIONS)
    try:
        wait_for_answer([sidecar], ("127.0.0.1", port), "/", {})
        done = []
        for number in range(rounds):
            quiet = _load(sidecar, order) if number % 2 == 0 else None
            before = _taken(sidecar)
            with disturbing() as changes:
                busy = _load(sidecar, order)
            sidecar.ensure_alive()
            taken = _taken(sidecar) - before
            done.append(Round(quiet or _load(sidecar, order), busy, changes[0], taken))
        return done
    finally:
        sidecar.stop()


def _load(sidecar: Child, order: wrk.Order) -> Rate:
    spent = sidecar.cpu_seconds()
    load = wrk.run(order)
    return Rate(load.requests_per_second, load.requests / (sidecar.cpu_seconds() - spent))


def _taken(sidecar: Child) -> int:
    """How many configurations it has put in force so far."""
    return sidecar.log.read_text(encoding="utf-8", errors="replace").count(_TAKEN)


def _tell(what: str, rounds: list[Round], say: Callable[[str], None]) -> None:
    for one in rounds:
        say(
            f"  {what}: quiet {one.quiet.per_second:,.0f}, busy {one.busy.per_second:,.0f} requests/s; "
            f"{one.changes} made, {one.taken} taken"
        )


def outcome_of(what: str, rounds: list[Round]) -> Outcome:
    """The rounds as a table, and their ratios; that of `swaps` a bar is set for."""
    quiet, busy = [one.quiet for one in rounds], [one.busy for one in rounds]
    against = ratio([one.per_second for one in busy], [one.per_second for one in quiet])
    per_cpu = ratio([one.per_cpu_second for one in busy], [one.per_cpu_second for one in quiet])
    series = {
        "requests/s, quiet": ([one.per_second for one in quiet], 0),
        "requests/s, busy": ([one.per_second for one in busy], 0),
        "the same, a ratio": ([against.median, against.min, against.max], 2),
        "… per processor time": ([per_cpu.median, per_cpu.min, per_cpu.max], 2),
        "made a second": ([one.changes / SECONDS for one in rounds], 1),
        "taken a second": ([one.taken / SECONDS for one in rounds], 1),
    }
    rows = [
        [name, *as_text(Spread.of(values), digits)] for name, (values, digits) in series.items()
    ]
    title = f"{RATE} {what} a second for {SECONDS} s"
    return Outcome(
        ratios={f"{what}_vs_quiet": against, f"{what}_vs_quiet_per_cpu": per_cpu},
        details={what: [one._asdict() for one in rounds]},
        tables=[Table(title, ["", "median", "min … max"], rows)],
    )
