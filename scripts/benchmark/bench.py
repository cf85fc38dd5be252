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


@dataclass(frozen=True, slots=True)
class Round:
    """What one contender did in one round."""

    rate: float
    """Requests a second."""
    rate_per_cpu: float | None
    """Requests a second of its own processor time: what it would do if nobody else took any.

    On a busy machine this is the steadier figure. None without a process of its own."""
    p50_ms: float
    p99_ms: float


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

    def load(self, contenders: Mapping[str, Contender], request: Request) -> dict[str, list[Round]]:
        """Interleaved rounds of wrk, after a warm-up that is not counted.

        `VoidRoundError` names the contender and the round in which a request failed.
        """
        for contender in contenders.values():
            self.one_round(contender, request, min(WARM_UP_SECONDS, self.settings.seconds))

        def report(number: int, rounds: dict[str, Round]) -> None:
            text = "   ".join(f"{name} {figures.rate:,.0f}/s" for name, figures in rounds.items())
            self.say(f"  round {number}/{self.settings.rounds}   {text}")

        return interleave(
            list(contenders),
            self.settings.rounds,
            lambda name: self.one_round(contenders[name], request, self.settings.seconds),
            report,
        )

    def one_round(self, contender: Contender, request: Request, seconds: int) -> Round:
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
        cpu_before = contender.cpu_seconds()
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
        cpu = contender.cpu_seconds() - cpu_before
        per_cpu = load.requests / cpu if cpu else None
        return Round(load.requests_per_second, per_cpu, load.p50_ms, load.p99_ms)


type Series = Mapping[str, Sequence[Round]]
"""Rounds by contender."""


def ratios_of(series: Series, wanted: Mapping[str, tuple[str, str]]) -> dict[str, Spread]:
    """`{ratio's name: (one, other)}` → the spread of one's rate to the other's.

    Only for those of which both were measured; `NAME_per_cpu` is the same for processor time.
    """
    found = {}
    for name, (one, other) in wanted.items():
        if one in series and other in series:
            found[name] = ratio([x.rate for x in series[one]], [x.rate for x in series[other]])
            of_one, of_other = _per_cpu(series[one]), _per_cpu(series[other])
            if of_one and of_other:
                found[f"{name}_per_cpu"] = ratio(of_one, of_other)
    return found


def load_table(title: str, series: Series) -> Table:
    """Rates and latencies under full load, with our rate against each contender's."""
    rows = []
    for name, rounds in series.items():
        against = {} if name == OURS else ratios_of(series, {"": (OURS, name)})
        rows.append(
            [
                name,
                *as_text(Spread.of([x.rate for x in rounds])),
                *(f"{against[key].median:.2f}" if key in against else "" for key in _AGAINST),
                f"{statistics.median(x.p50_ms for x in rounds):.1f}",
                f"{statistics.median(x.p99_ms for x in rounds):.1f}",
            ]
        )
    columns = ["", "requests/s", "min … max", f"{OURS} vs it", "per CPU", "p50 ms", "p99 ms"]
    return Table(title, columns, rows)


def load_details(series: Series) -> dict[str, dict[str, object]]:
    """The same for the JSON."""
    return {name: _details(rounds) for name, rounds in series.items()}


_AGAINST = ("", "_per_cpu")


def _details(rounds: Sequence[Round]) -> dict[str, object]:
    """One contender's figures."""
    per_cpu = _per_cpu(rounds)
    return {
        "requests_per_second": Spread.of([x.rate for x in rounds]).as_json(),
        "requests_per_cpu_second": Spread.of(per_cpu).as_json() if per_cpu else None,
        "p50_ms": Spread.of([x.p50_ms for x in rounds]).as_json(),
        "p99_ms": Spread.of([x.p99_ms for x in rounds]).as_json(),
    }


def _per_cpu(rounds: Sequence[Round]) -> list[float]:
    """Rates per processor time; empty when a round lacks it."""
    rates = [x.rate_per_cpu for x in rounds if x.rate_per_cpu is not None]
    return rates if len(rates) == len(rounds) else []
