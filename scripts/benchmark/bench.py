"""What all scenarios share: the settings, the lab, and rounds of wrk."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.benchmark import wrk
from scripts.benchmark.outcome import Table, as_text
from scripts.benchmark.process import BenchError
from scripts.benchmark.rounds import interleave
from scripts.benchmark.spread import Spread, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from scripts.benchmark.lab import Contender, Lab

OURS = "hms"
CONNECTIONS = 32
WARM_UP_SECONDS = 1


@dataclass(frozen=True, slots=True)
class Settings:
    """How long to measure, and whom."""

    rounds: int
    seconds: int
    """Of one round of wrk."""
    latency_seconds: float
    """Of one round at a fixed rate."""
    contenders: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent, over and over."""

    path: str
    headers: Mapping[str, str]
    connections: int = CONNECTIONS
    script: Path | None = None


class Bench:
    """The lab and the settings of this run, and a line of progress now and then."""

    def __init__(self, lab: Lab, settings: Settings, say: Callable[[str], None]) -> None:
        """`say` prints one line."""
        self.lab = lab
        self.settings = settings
        self.say = say

    def chosen(self, *names: str) -> tuple[str, ...]:
        """Those of `names` that this run is about."""
        return tuple(name for name in names if name in self.settings.contenders)

    def load(
        self, contenders: Mapping[str, Contender], request: Request
    ) -> dict[str, list[wrk.Load]]:
        """Interleaved rounds of wrk, after a warm-up that is not counted.

        `VoidRoundError` names the contender and the round in which a request failed.
        """
        for contender in contenders.values():
            self._round(contender, request, min(WARM_UP_SECONDS, self.settings.seconds))

        def report(number: int, loads: dict[str, wrk.Load]) -> None:
            figures = "   ".join(
                f"{name} {load.requests_per_second:,.0f}/s" for name, load in loads.items()
            )
            self.say(f"  round {number}/{self.settings.rounds}   {figures}")

        return interleave(
            list(contenders),
            self.settings.rounds,
            lambda name: self._round(contenders[name], request, self.settings.seconds),
            report,
        )

    def _round(self, contender: Contender, request: Request, seconds: int) -> wrk.Load:
        """One round of wrk, all of whose requests reached the upstream."""
        order = wrk.Order(
            contender.address,
            request.path,
            request.headers,
            seconds,
            request.connections,
            request.script,
        )
        before = self.lab.upstream.requests_served()
        try:
            load = wrk.run(order)
            contender.ensure_alive()
        except wrk.VoidRoundError as error:
            tails = "\n".join(child.log_tail() for child in contender.children)
            raise wrk.VoidRoundError(f"{contender.name}: void round: {error}\n{tails}") from error
        forwarded = self.lab.upstream.requests_served() - before
        if forwarded < load.requests:
            raise BenchError(
                f"{contender.name} answered {load.requests} requests but forwarded {forwarded}"
            )
        return load


def rates(series: Mapping[str, Sequence[wrk.Load]]) -> dict[str, list[float]]:
    """Requests a second by contender, round by round."""
    return {name: [load.requests_per_second for load in loads] for name, loads in series.items()}


def ratios_of(
    series: Mapping[str, Sequence[float]], wanted: Mapping[str, tuple[str, str]]
) -> dict[str, Spread]:
    """`{ratio's name: (one, other)}` → its spread, for those of which both were measured."""
    return {
        name: ratio(series[one], series[other])
        for name, (one, other) in wanted.items()
        if one in series and other in series
    }


def load_table(title: str, series: Mapping[str, Sequence[wrk.Load]]) -> Table:
    """Rates and latencies under full load, with each contender's rate against ours."""
    figures = rates(series)
    rows = []
    for name, loads in series.items():
        against = ratios_of(figures, {"it": (OURS, name)}).get("it")
        rows.append(
            [
                name,
                *as_text(Spread.of(figures[name])),
                "" if against is None or name == OURS else f"{against.median:.2f}",
                f"{statistics.median(load.p50_ms for load in loads):.1f}",
                f"{statistics.median(load.p99_ms for load in loads):.1f}",
            ]
        )
    columns = ["", "requests/s", "min … max", f"{OURS} against it", "p50 ms", "p99 ms"]
    return Table(title, columns, rows)


def load_details(series: Mapping[str, Sequence[wrk.Load]]) -> dict[str, dict[str, object]]:
    """The same for the JSON."""
    return {
        name: {
            "requests_per_second": Spread.of([x.requests_per_second for x in loads]).as_json(),
            "p50_ms": Spread.of([x.p50_ms for x in loads]).as_json(),
            "p99_ms": Spread.of([x.p99_ms for x in loads]).as_json(),
        }
        for name, loads in series.items()
    }
