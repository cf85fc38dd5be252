"""The scenarios that measure start-up time and memory."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from scripts.benchmark import bulk
from scripts.benchmark.bench import OURS, Bench, Request
from scripts.benchmark.contenders import request_headers, running, start
from scripts.benchmark.job import Job, Task
from scripts.benchmark.outcome import Outcome, Table, as_text
from scripts.benchmark.process import BenchError
from scripts.benchmark.spread import Spread, significant

if TYPE_CHECKING:
    from scripts.benchmark.lab import Contender


def footprint(bench: Bench) -> Outcome:
    """(e) Time to the first answered request; memory at rest and after load, policies on."""
    startups: dict[str, Spread] = {}
    idle: dict[str, float] = {}
    loaded: dict[str, float] = {}
    for name in bench.chosen("hms", "envoy", "nginx", "mitmdump"):
        task = Task.POLICY if name in {"hms", "envoy"} else Task.PLAIN
        job = Job(task, bench.lab.upstream.port)
        seconds = []
        for _ in range(bench.settings.rounds):
            contender, waited = start(bench.lab, name, job)
            contender.stop()
            seconds.append(waited)
        startups[name] = Spread.of(seconds)
        with running(bench.lab, [name], job) as contenders:
            idle[name] = contenders[name].rss_mb()
            bench.load(contenders, Request(job.path, request_headers(job, bench.lab.credentials)))
            loaded[name] = contenders[name].rss_mb()
        bench.say(f"  {name}: {startups[name].median:.2f} s, {loaded[name]:.0f} MB after load")
    rows = [
        [name, *as_text(startups[name], 2), f"{idle[name]:.1f}", f"{loaded[name]:.1f}"]
        for name in startups
    ]
    columns = ["", "start-up, s", "min … max", "at rest, MB", "after load, MB"]
    measures = {}
    if OURS in startups:
        measures = {
            "rss_mb": significant(loaded[OURS]),
            "startup_s": significant(startups[OURS].median),
        }
    details = {
        name: {
            "startup_s": startups[name].as_json(),
            "rss_idle_mb": significant(idle[name]),
            "rss_loaded_mb": significant(loaded[name]),
        }
        for name in startups
    }
    return Outcome(
        measures=measures,
        details={"footprint": details},
        tables=[Table("Start-up and resident memory", columns, rows)],
    )


def gigabyte(bench: Bench) -> Outcome:
    """1 GiB down, then 1 GiB up: by how much memory grows meanwhile, at its highest."""
    measures: dict[str, float] = {}
    details: dict[str, dict[str, float]] = {}
    rows = []
    # nginx and Envoy stream as we do; mitmdump holds bodies whole and is left out.
    for name in bench.chosen("hms", "envoy", "nginx"):
        with bulk.upstream() as port:
            job = Job(Task.PLAIN, port)
            with running(bench.lab, [name], job) as contenders:
                down, down_rate = _transfer(contenders[name], upload=False)
                up, up_rate = _transfer(contenders[name], upload=True)
        bench.say(f"  {name}: grows by {down:.1f} MiB down, {up:.1f} MiB up")
        rows.append([name, f"{down:.1f}", f"{up:.1f}", f"{down_rate:,.0f}", f"{up_rate:,.0f}"])
        details[name] = {
            "growth_down_mib": significant(down),
            "growth_up_mib": significant(up),
            "mib_per_second_down": significant(down_rate),
            "mib_per_second_up": significant(up_rate),
        }
        if name == OURS:
            measures = {
                "growth_down_mib": significant(down),
                "growth_up_mib": significant(up),
            }
    columns = ["", "growth down, MiB", "growth up, MiB", "MiB/s down", "MiB/s up"]
    return Outcome(
        measures=measures,
        details={"gigabyte": details},
        tables=[Table("1 GiB through", columns, rows)],
    )


def _transfer(contender: Contender, *, upload: bool) -> tuple[float, float]:
    """Pass 1 GiB; the highest growth of the contender's memory in MiB, and MiB a second."""
    before = contender.rss_mb()
    peak = before
    began = time.monotonic()
    moved = 0
    transfer = bulk.upload if upload else bulk.download
    for size in transfer(contender.address):
        moved += size
        peak = max(peak, contender.rss_mb())
    contender.ensure_alive()
    if moved != bulk.GIGABYTE:
        raise BenchError(f"{contender.name} passed {moved} bytes of {bulk.GIGABYTE}")
    return peak - before, moved / 2**20 / (time.monotonic() - began)
