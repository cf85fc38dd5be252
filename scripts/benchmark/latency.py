"""The scenario that measures the latency added at a fixed rate."""

from __future__ import annotations

import select
from typing import TYPE_CHECKING

from scripts.benchmark import checks, fixed_rate
from scripts.benchmark.bench import OURS
from scripts.benchmark.contenders import DIRECT, running
from scripts.benchmark.job import Job, Task
from scripts.benchmark.outcome import Outcome, Table, as_text
from scripts.benchmark.rounds import interleave
from scripts.benchmark.spread import Spread, ratio
from scripts.benchmark.wrk import VoidRoundError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.benchmark.bench import Bench
    from scripts.benchmark.fixed_rate import Latencies
    from scripts.benchmark.lab import Contender

RATE = 500.0
"""Requests a second: far below what a good proxy carries, so that no queue builds up."""
SETTLE_SECONDS = 1.0
"""An overloaded contender gets so long to clear its backlog, which shares a core with the next."""
SMALLEST_MS = 0.02
"""What is added may come out as nothing, or less, in the noise; ratios count at least this."""
_COLUMNS = ("", "p50 added, ms", "min … max", "p99 added, ms", "min … max", "")


def added(bench: Bench) -> Outcome:
    """(d) p50 and p99 through each contender, less those of the same round without a proxy."""
    names = (DIRECT, *bench.chosen("hms", "envoy", "nginx", "mitmdump"))
    job = Job(Task.PLAIN, bench.lab.upstream.port)
    with running(bench.lab, names, job) as contenders:
        for contender in contenders.values():
            checks.verify(bench.lab, contender, job)

        def report(number: int, figures: dict[str, Latencies]) -> None:
            texts = "   ".join(
                f"{name} {figure.p50_ms:.2f}/{figure.p99_ms:.2f} ms"
                for name, figure in figures.items()
            )
            bench.say(f"  round {number}/{bench.settings.rounds}   p50/p99: {texts}")

        series = interleave(
            names,
            bench.settings.rounds,
            lambda name: _round(contenders[name], job.path, bench.settings.latency_seconds),
            report,
        )
    return summarise(series)


def summarise(series: Mapping[str, Sequence[Latencies]]) -> Outcome:
    """Latencies by contender, round by round, `direct` among them, → what each one adds."""
    p50, p99 = _differences(series, "p50_ms"), _differences(series, "p99_ms")
    overloaded = {name for name in p50 if any(x.unanswered for x in series[name])}
    rows = [
        [
            name,
            *as_text(Spread.of(p50[name]), 2),
            *as_text(Spread.of(p99[name]), 2),
            "cannot carry that rate" if name in overloaded else "",
        ]
        for name in p50
    ]
    details: dict[str, object] = {
        name: {
            "p50_added_ms": Spread.of(p50[name]).as_json(),
            "p99_added_ms": Spread.of(p99[name]).as_json(),
            "overloaded": name in overloaded,
        }
        for name in p50
    }
    details[DIRECT] = {
        "p50_ms": Spread.of([x.p50_ms for x in series[DIRECT]]).as_json(),
        "p99_ms": Spread.of([x.p99_ms for x in series[DIRECT]]).as_json(),
    }
    ratios = {}
    if OURS in series and "envoy" in series:
        ratios = {
            "p50_added_vs_envoy": ratio(_at_least(p50[OURS]), _at_least(p50["envoy"])),
            "p99_added_vs_envoy": ratio(_at_least(p99[OURS]), _at_least(p99["envoy"])),
        }
    title = f"Latency added at {RATE:.0f} requests/s"
    table = Table(title, _COLUMNS, rows)
    return Outcome(ratios, details={"latency": details}, tables=[table])


def _round(contender: Contender, path: str, seconds: float) -> Latencies:
    """One round at the fixed rate."""
    request = fixed_rate.request_bytes(contender.address, path, {})
    try:
        figure = fixed_rate.run(contender.address, request, RATE, seconds)
        contender.ensure_alive()
    except VoidRoundError as error:
        raise VoidRoundError(f"{contender.name}: void round: {error}") from error
    if figure.unanswered:
        select.select([], [], [], SETTLE_SECONDS)
    return figure


def _differences(series: Mapping[str, Sequence[Latencies]], field: str) -> dict[str, list[float]]:
    """What each contender adds to `direct` in each round, ms."""
    base: list[float] = [getattr(figure, field) for figure in series[DIRECT]]
    return {
        name: [
            getattr(figure, field) - without for figure, without in zip(figures, base, strict=True)
        ]
        for name, figures in series.items()
        if name != DIRECT
    }


def _at_least(values: Sequence[float]) -> list[float]:
    return [max(value, SMALLEST_MS) for value in values]
