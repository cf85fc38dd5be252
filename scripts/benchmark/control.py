"""`scripts/bench control`: what a pushed configuration costs the control plane, and the sidecars.

Plain long-poll clients, each on a TLS connection of its own, wait for the snapshots of as many
services as are registered; then a configuration is pushed that changes every snapshot. And a sidecar
under load changes its configuration fifty times a second.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rich.console import Console

from scripts.benchmark import machine, report, swaps
from scripts.benchmark.control_process import ControlPlane
from scripts.benchmark.outcome import Outcome, Table
from scripts.benchmark.process import BenchError
from scripts.benchmark.swapping import RATE
from scripts.benchmark.watchers import Watchers

if TYPE_CHECKING:
    from collections.abc import Sequence

WATCHERS = (100, 500, 1000)
SERVICES = (10, 100, 1000)
ROUNDS = 3
BAR_WATCHERS = 500
"""The number that the issue's bar is set for."""
CONFIG = """\
listeners:
  - name: outbound
    port: 15001
    routes:
      - match: {{ prefix: / }}
        action: {{ cluster: svc-0, timeout: 1s, retries: 2 }}
clusters:
  - {{ name: svc-0, tls_context: {{ sds: mesh_certs }} }}
governance: {{ url: "http://127.0.0.1:9100", ttl: {seconds}s }}
"""

EPILOG = """\
Per number of watchers and of services a control plane is started, filled and measured; each figure is
the worst of the rounds. PUT to last: from sending `PUT /v1/config` to the last watcher having the
whole new snapshot. Memory is the control plane's resident size.

examples:
  scripts/bench control                  everything: about six minutes
  scripts/bench control --only swaps     the sidecar under load alone

exit status: 0 all bars are met; 1 one is missed; 2 it could not be measured.
"""


class Row(NamedTuple):
    """What came of one number of watchers and services. Seconds, MiB, bytes."""

    watchers: int
    services: int
    put: float
    first: float
    middle: float
    last: float
    rss: float
    cpu: float
    body: int
    start: float = 0.0
    """From the start of the process until it served."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; the exit status as in `EPILOG`."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench control",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--only", choices=("watchers", "swaps"), help="one of the two parts")
    parser.add_argument("--quick", action="store_true", help="500 watchers of 100 services only")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help="default 3")
    parser.add_argument("--json", type=Path, metavar="FILE", help="the figures for a machine, too")
    options = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 100)
    # Ended politely, by a person or a CI job, it must end its children.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    if machine.is_busy():
        console.print("! others use this machine: figures will be noisy", style="yellow")
    sizes = [(w, s) for s in SERVICES for w in WATCHERS]
    if options.quick:
        sizes = [(BAR_WATCHERS, 100)]
    outcome = Outcome()
    try:
        if options.only != "swaps":
            rows = []
            for watchers, services in sizes:
                console.print(f"{watchers} watchers of {services} services …", markup=False)
                rows.append(measure(watchers, services, options.rounds))
            outcome |= outcome_of(rows)
        if options.only != "watchers":
            outcome |= _swaps(console, options.rounds)
    except (BenchError, TimeoutError, OSError) as error:
        print(f"bench: {str(error) or 'the watchers did not get it in time'}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; all children are ended", file=sys.stderr)
        return 130
    report.show(console, outcome, {})
    if options.json is not None:
        ratios = {name: spread.as_json() for name, spread in outcome.ratios.items()}
        document = {"ratios": ratios, **outcome.measures, **outcome.details}
        options.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0 if all(verdict.met for verdict in report.judge(outcome)) else 1


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def _swaps(console: Console, rounds: int) -> Outcome:
    """The sidecar under load."""

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False)

    say(f"a sidecar under load, {RATE} changes a second …")
    placement = machine.Placement.on(machine.available_cores())
    with (
        tempfile.TemporaryDirectory(prefix="hms-bench-") as folder,
        machine.running_on(placement.load),
    ):
        return swaps.measure(Path(folder), placement, rounds, say)


def measure(watchers: int, services: int, rounds: int) -> Row:
    """Start a control plane with so many services and watchers, and push to it."""
    placement = machine.Placement.on(machine.available_cores())
    with (
        tempfile.TemporaryDirectory(prefix="hms-bench-") as folder,
        ControlPlane(Path(folder), placement.proxies) as control,
        machine.running_on(placement.load),
    ):
        names = [f"svc-{n}" for n in range(services)]
        for n, name in enumerate(names):
            address = f"10.{n // 65536}.{n // 256 % 256}.{n % 256}:15006"
            instance = {"address": address, "version": "v1", "ttl": 3600}
            control.ask("PUT", f"/v1/services/{name}/instances/{name}-1", instance)
        asked = [names[n % services] for n in range(watchers)]
        row = asyncio.run(_pushes(control, asked, services, rounds))
        return row._replace(start=control.start_seconds)


async def _pushes(control: ControlPlane, asked: list[str], services: int, rounds: int) -> Row:
    rows = []
    async with Watchers(control, asked) as watchers:
        for number in range(1, rounds + 1):
            await watchers.all_wait()
            cpu = control.child.cpu_seconds()
            began = time.monotonic()
            text = CONFIG.format(seconds=60 + number)
            await asyncio.to_thread(control.ask, "PUT", "/v1/config", yaml=text)
            put = time.monotonic() - began
            await watchers.all_have(number)
            after = sorted(one.changed - began for one in watchers.all)
            rows.append(
                Row(
                    watchers=len(asked),
                    services=services,
                    put=put,
                    first=after[0],
                    middle=statistics.median(after),
                    last=after[-1],
                    rss=control.child.rss_mb(),
                    cpu=control.child.cpu_seconds() - cpu,
                    body=watchers.all[0].bytes,
                )
            )
    return Row(*map(max, zip(*rows, strict=True)))


def outcome_of(rows: Sequence[Row]) -> Outcome:
    """The rows as a table, and the figures that bars are set for."""
    judged = [row for row in rows if row.watchers == BAR_WATCHERS]
    measures = {}
    if rows:
        measures["control_start_s"] = statistics.median(row.start for row in rows)
    if judged:
        measures |= {
            "control_last_s": max(row.last for row in judged),
            "control_rss_mb": max(row.rss for row in judged),
        }
    columns = ["watchers", "services", "PUT, s", "first", "median", "last, s", "RSS, MB", "CPU, s"]
    cells = [
        [
            str(row.watchers),
            f"{row.services:,}",
            *(f"{value:.2f}" for value in (row.put, row.first, row.middle, row.last)),
            f"{row.rss:.0f}",
            f"{row.cpu:.2f}",
            f"{row.body / 1024:,.0f}",
            f"{row.start:.2f}",
        ]
        for row in rows
    ]
    table = Table("From PUT to every watcher", [*columns, "snapshot, KiB", "start, s"], cells)
    return Outcome(
        measures=measures,
        details={"control": [row._asdict() for row in rows]},
        tables=[table],
    )


if __name__ == "__main__":
    sys.exit(main())
