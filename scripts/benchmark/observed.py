"""The scenario that measures what it costs to be watched: metrics, the access log, spans.

Our sidecar against itself, doing the job of (b). Two processes of the same program differ by several percent
for as long as they live, by where their memory happens to lie, so all of them are started anew, twice a round;
and what is compared is processor time a request, which a busy machine disturbs least.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import yaml

from scripts.benchmark import checks, hms_config
from scripts.benchmark.bench import Request
from scripts.benchmark.contenders import request_headers, spawn
from scripts.benchmark.job import Job, Task
from scripts.benchmark.lab import stopping
from scripts.benchmark.outcome import Outcome, Table, as_text
from scripts.benchmark.process import free_port, wait_for_answer
from scripts.benchmark.rounds import interleave
from scripts.benchmark.spread import Spread, ratio

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from scripts.benchmark.bench import Bench, Round
    from scripts.benchmark.lab import Contender

QUIET: Final = "unwatched"
KINDS: Final = (QUIET, "metrics", "metrics+log", "…+spans 10%")
"""What each of them has switched on: more from one to the next."""
STARTS: Final = 2
"""How often all of them are started anew in a round: the more, the less it matters how one turned out."""
LOADS: Final = 4
"""Turns of one second that each gets then."""


def watching(bench: Bench) -> Outcome:
    """(m) Processor time a request, against a sidecar that nobody watches."""
    job = Job(Task.POLICY, bench.lab.upstream.port)
    request = Request(job.path, request_headers(job, bench.lab.credentials))
    series: dict[str, list[float]] = {kind: [] for kind in KINDS}
    starts = STARTS * bench.settings.rounds
    for number in range(1, starts + 1):
        with stopping({}) as contenders:
            for kind in KINDS:
                contenders[kind] = _start(bench, kind, job)
            rounds = _round(bench, contenders, request)
        for kind in KINDS:
            series[kind].append(microseconds(rounds[kind]))
        text = "   ".join(f"{kind} {series[kind][-1]:.1f}" for kind in KINDS)
        bench.say(f"  start {number}/{starts}   µs a request: {text}")
    return summarise(series)


def _start(bench: Bench, kind: str, job: Job) -> Contender:
    lab = bench.lab
    port, admin = free_port(), free_port()
    document = hms_config.hop(port, job, lab.governance, lab.credentials)
    level = KINDS.index(kind)
    if level > 1:
        document["access_log"] = {"path": str(lab.scratch("access.log"))}
    if level > 2:  # noqa: PLR2004 - the last of them
        document["tracing"] = {"otlp": f"http://127.0.0.1:{job.upstream_port}", "sample": 0.1}
    file = lab.scratch("hms.yaml")
    file.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    command = hms_config.command(file, admin)
    if not level:
        command[-1] = "off"
    contender = spawn(lab, "hms", [port], [command])
    try:
        headers = request_headers(job, lab.credentials)
        wait_for_answer(contender.children, contender.address, job.path, headers)
        checks.verify(lab, contender, job)
    except BaseException:
        contender.stop()
        raise
    return contender


def _round(
    bench: Bench, contenders: Mapping[str, Contender], request: Request
) -> dict[str, list[Round]]:
    for contender in contenders.values():
        bench.one_round(contender, request, 1)  # warm
    return interleave(
        list(contenders),
        LOADS,
        lambda kind: bench.one_round(contenders[kind], request, 1),
        lambda *_: None,
    )


def microseconds(rounds: Sequence[Round]) -> float:
    """Of processor time a request, over some rounds of equal length."""
    requests = sum(x.rate for x in rounds)
    return 1e6 * sum(x.rate / (x.rate_per_cpu or x.rate) for x in rounds) / requests


def summarise(series: Mapping[str, Sequence[float]]) -> Outcome:
    """Microseconds a request by kind, round by round → what each kind keeps of the quiet one's rate."""
    kept = {kind: ratio(series[QUIET], series[kind]) for kind in KINDS}
    rows = [[kind, *as_text(Spread.of(series[kind]), 1), *as_text(kept[kind], 3)] for kind in KINDS]
    columns = ["", "µs a request", "min … max", "of its rate kept", "min … max"]
    details: dict[str, Any] = {
        kind: {"us_a_request": Spread.of(series[kind]).as_json(), "kept": kept[kind].as_json()}
        for kind in KINDS
    }
    return Outcome(
        {"watched_vs_not": kept["metrics+log"]},
        details={"watched": details},
        tables=[Table("What it costs to be watched, policy chain on", columns, rows)],
    )
