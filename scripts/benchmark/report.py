"""The end of a run: every figure in a table, every bar judged, and the JSON."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table as RichTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from rich.console import Console

    from scripts.benchmark.outcome import Outcome, Table

RATIOS = (
    "policy_vs_envoy",
    "mtls_pair_vs_envoy",
    "plain_vs_mitmdump",
    "plain_vs_envoy",
    "p99_added_vs_envoy",
    "routes_5000_vs_1",
)
"""The ratios that the JSON always has, `null` where they were not measured."""
MEASURES = ("rss_mb", "startup_s")
NOISY = 1.2
"""Rounds of a ratio that differ by more than this factor make a verdict doubtful."""


@dataclass(frozen=True, slots=True)
class Bar:
    """What a figure must reach, and what we would like it to."""

    figure: str
    """The name of a ratio (its median counts) or of a measure."""
    text: str
    bar: float
    aim: float | None
    at_least: bool
    """Whether more is better."""

    def met_by(self, value: float) -> bool:
        """Whether that value reaches the bar."""
        return value >= self.bar if self.at_least else value <= self.bar


BARS = (
    Bar("policy_vs_envoy", "(b) requests/s against Envoy doing the same", 0.7, 1.0, at_least=True),
    Bar("mtls_pair_vs_envoy", "(c) requests/s against an Envoy pair", 0.8, 1.0, at_least=True),
    Bar("plain_vs_mitmdump", "(a) requests/s against stock mitmdump", 10, 20, at_least=True),
    Bar("p99_added_vs_envoy", "(d) p99 added, against Envoy", 2, 1, at_least=False),
    Bar("rss_mb", "(e) resident memory after load, MB", 90, 70, at_least=False),
    Bar("routes_5000_vs_1", "(f) 5,000 routes against 1", 0.9, 1.0, at_least=True),
    Bar("growth_down_mib", "(h) 1 GiB down, growth of memory, MiB", 32, None, at_least=False),
    Bar("growth_up_mib", "(h) 1 GiB up, growth of memory, MiB", 32, None, at_least=False),
    Bar("watched_vs_not", "(m) (b) with metrics and access log", 0.92, 0.95, at_least=True),
    Bar("control_last_s", "(control) PUT to the last of 500 watchers, s", 5, 1, at_least=False),
    Bar("control_rss_mb", "(control) resident memory then, MB", 200, 150, at_least=False),
    Bar("control_start_s", "(control) start of the control plane, s", 2, 1, at_least=False),
    Bar(
        "swaps_vs_quiet",
        "(control) requests/s at 50 snapshot swaps a second",
        0.9,
        1.0,
        at_least=True,
    ),
)
"""The issue's "It must reach"."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A bar and the figure that it is held against."""

    bar: Bar
    value: float

    @property
    def met(self) -> bool:
        """Whether the figure reaches the bar."""
        return self.bar.met_by(self.value)


def judge(outcome: Outcome) -> list[Verdict]:
    """A verdict on every bar whose figure was measured."""
    values = {name: spread.median for name, spread in outcome.ratios.items()} | dict(
        outcome.measures
    )
    return [Verdict(bar, values[bar.figure]) for bar in BARS if bar.figure in values]


def noisy_ratios(outcome: Outcome, verdicts: Sequence[Verdict]) -> list[str]:
    """The judged ratios whose rounds lie far apart on both sides of their bar."""
    noisy = []
    for bar in (verdict.bar for verdict in verdicts):
        spread = outcome.ratios.get(bar.figure)
        if spread is None or spread.max <= NOISY * spread.min:
            continue
        if bar.met_by(spread.min) != bar.met_by(spread.max):
            noisy.append(bar.figure)
    return noisy


def as_json(
    outcome: Outcome,
    machine: Mapping[str, Any],
    commit: str,
    failures: Mapping[str, str],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The run as JSON; `failures` maps a scenario's letter to what went wrong."""
    ratios = {name: spread.as_json() for name, spread in outcome.ratios.items()}
    return {
        "ratios": {**dict.fromkeys(RATIOS), **ratios},
        **dict.fromkeys(MEASURES),
        **outcome.measures,
        "machine": dict(machine),
        "commit": commit,
        "settings": dict(settings),
        "bars": {
            verdict.bar.figure: {
                "value": verdict.value,
                "bar": verdict.bar.bar,
                "aim": verdict.bar.aim,
                "met": verdict.met,
            }
            for verdict in judge(outcome)
        },
        "failures": dict(failures),
        "details": dict(outcome.details),
    }


def show(console: Console, outcome: Outcome, failures: Mapping[str, str]) -> None:
    """Print every table, then the bars, what to doubt, and what failed."""
    for table in outcome.tables:
        console.print(_rich(table))
    if verdicts := judge(outcome):
        console.print(_bars(outcome, verdicts))
    if noisy := noisy_ratios(outcome, verdicts):
        console.print(
            f"! The rounds of {', '.join(noisy)} differ so much that their verdicts prove little: "
            "repeat on a quiet machine, or with more --rounds.",
            style="yellow",
            markup=False,
        )
    for letter, text in failures.items():
        # The rest, a process's last words, was shown when it happened.
        console.print(f"✗ ({letter}) failed: {text.splitlines()[0]}", style="red", markup=False)


def _bars(outcome: Outcome, verdicts: Sequence[Verdict]) -> RichTable:
    """The bars, each with ✓ or ✗."""
    table = RichTable(title="It must reach")
    for column in ("", "measure", "median", "min … max", "bar", "aim"):
        table.add_column(column, justify="left" if column in {"", "measure"} else "right")
    for verdict in verdicts:
        bar = verdict.bar
        sign = "≥" if bar.at_least else "≤"
        spread = outcome.ratios.get(bar.figure)
        table.add_row(
            "[green]✓" if verdict.met else "[red]✗",
            bar.text,
            f"{verdict.value:.2f}",
            "" if spread is None else f"{spread.min:.2f} … {spread.max:.2f}",
            f"{sign} {bar.bar:g}",
            "" if bar.aim is None else f"{sign} {bar.aim:g}",
        )
    return table


def _rich(table: Table) -> RichTable:
    """A table for the terminal: names to the left, figures to the right."""
    shown = RichTable(title=table.title)
    for number, column in enumerate(table.columns):
        shown.add_column(column, justify="right" if number else "left", no_wrap=True)
    for row in table.rows:
        shown.add_row(*row)
    return shown
