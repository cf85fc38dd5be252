"""The command line of the benchmark: `scripts/bench`."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from scripts.benchmark import machine, profiling, report
from scripts.benchmark.bench import Bench, Settings
from scripts.benchmark.contenders import NAMES
from scripts.benchmark.lab import Lab
from scripts.benchmark.outcome import Outcome
from scripts.benchmark.process import BenchError
from scripts.benchmark.scenarios import SCENARIOS, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROOT = Path(__file__).resolve().parents[2]
ROUNDS, SECONDS, LATENCY_SECONDS = 5, 3, 5.0
QUICK_ROUNDS, QUICK_SECONDS, QUICK_LATENCY_SECONDS = 3, 1, 2.0

DESCRIPTION = """\
Measure this sidecar beside Envoy, nginx and stock mitmdump: the same upstream (nginx), the same
load (wrk, 32 connections), the same machine, one run. Each ratio comes from interleaved rounds
(A B, B A, …) and is given as median, min and max. On two cores or more, every proxy under test
runs on the first one, the load and its upstream on the others.
"""

EPILOG = """\
examples:
  scripts/bench                            everything: about twelve minutes
  scripts/bench --quick                    shorter, fewer rounds: about four, and noisier
  scripts/bench --only b,c --rounds 9      two scenarios, more rounds
  scripts/bench --json results.json        the figures for a machine, too
  scripts/bench --only a --contenders envoy,nginx    without our own sidecar

Before it is measured, each contender must show that it does the whole job: forged headers
replaced, bad tokens refused, mutual TLS demanded. A round in which one request fails is void, and
its scenario has failed.

exit status: 0 all bars that were measured are met; 1 a bar is missed or a scenario failed;
2 wrong usage, or a program is missing; 130 interrupted.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmark; the exit status as in `EPILOG`."""
    options = _parse(arguments)
    # Into a file or a pipe, rich would assume 80 columns, and the tables need a few more.
    console = Console(width=None if sys.stdout.isatty() else 100)
    # Ended politely, by a person or a CI job, it must end its children.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return _measure(options, console)
    except BenchError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("bench: interrupted; all children are ended", file=sys.stderr)
        return 130


def _measure(options: argparse.Namespace, console: Console) -> int:
    """Run the chosen scenarios, show and save what came out."""
    settings = Settings(
        rounds=options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS),
        seconds=QUICK_SECONDS if options.quick else SECONDS,
        latency_seconds=QUICK_LATENCY_SECONDS if options.quick else LATENCY_SECONDS,
        contenders=options.contenders,
    )

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    placement = machine.Placement.on(machine.available_cores())
    description, commit = machine.describe(placement), machine.commit(ROOT)
    say(f"commit {commit} on {description['cpu']}, {description['cores']} cores")
    say(f"the sidecar's hot path is {description['sidecar']}")
    if machine.is_busy():
        say(
            f"! load average {description['load_average']:.1f}: others use this machine; expect noise"
        )
    if options.profile is not None:
        with Lab(placement) as lab:
            profiling.profile(lab, options.profile, say)
        return 0
    with Lab(placement) as lab:
        outcome, failures = _run(Bench(lab, settings, say), options.only)
    report.show(console, outcome, failures)
    if options.json is not None:
        document = report.as_json(outcome, description, commit, failures, asdict(settings))
        text = json.dumps(document, indent=2, ensure_ascii=False) + "\n"
        options.json.write_text(text, encoding="utf-8")
        say(f"saved to {options.json}")
    return int(bool(failures) or not all(verdict.met for verdict in report.judge(outcome)))


def _run(bench: Bench, scenarios: Sequence[Scenario]) -> tuple[Outcome, dict[str, str]]:
    """All scenarios' figures together, and what failed by scenario; one failure ends no other."""
    outcome, failures = Outcome(), {}
    for scenario in scenarios:
        bench.say(f"({scenario.letter}) {scenario.title}")
        try:
            outcome |= scenario.run(bench)
        except BenchError as error:
            failures[scenario.letter] = str(error)
            bench.say(f"  ✗ failed: {error}")
    return outcome, failures


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options; on a mistake argparse says which and exits with 2."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=DESCRIPTION,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    letters = {scenario.letter: scenario for scenario in SCENARIOS}
    titles = "; ".join(f"{scenario.letter}: {scenario.title}" for scenario in SCENARIOS)
    parser.add_argument(
        "--only",
        metavar="LETTERS",
        type=_choices("scenario", letters),
        default=SCENARIOS,
        help=f"scenarios to run, separated by commas ({titles})",
    )
    parser.add_argument(
        "--contenders",
        metavar="NAMES",
        type=_choices("contender", {name: name for name in NAMES}),
        default=NAMES,
        help=f"whom to measure, of {', '.join(NAMES)} (default: all)",
    )
    parser.add_argument("--rounds", metavar="N", type=_count, help=f"rounds (default: {ROUNDS})")
    parser.add_argument(
        "--quick",
        action="store_true",
        help=f"rounds of {QUICK_SECONDS} s instead of {SECONDS}, {QUICK_ROUNDS} of them",
    )
    parser.add_argument("--json", metavar="FILE", type=Path, help="save the figures, too")
    parser.add_argument(
        "--profile",
        metavar="LETTER",
        choices=profiling.TASKS,
        help="measure nothing; show where our sidecar spends its time in a, b or c (cProfile)",
    )
    return parser.parse_args(arguments)


def _choices[Choice](what: str, known: dict[str, Choice]) -> Callable[[str], tuple[Choice, ...]]:
    """An argparse type for names separated by commas, in the order of `known`."""

    def parse(text: str) -> tuple[Choice, ...]:
        wanted = {word.strip() for word in text.split(",")}
        if unknown := wanted - known.keys():
            raise argparse.ArgumentTypeError(
                f"no {what} {', '.join(sorted(unknown))!r}; there are {', '.join(known)}"
            )
        return tuple(choice for name, choice in known.items() if name in wanted)

    return parse


def _count(text: str) -> int:
    """An argparse type: a number of rounds."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rounds; at least 1 is needed")
    return int(text)


def _interrupt(*_: object) -> None:
    """End as Ctrl-C does, through every `finally`."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
