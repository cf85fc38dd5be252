"""The scenarios that measure requests a second, and the list of all scenarios."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.benchmark import checks, latency, observed, resources, wrk
from scripts.benchmark.bench import (
    OURS,
    Bench,
    Request,
    load_details,
    load_table,
    ratios_of,
)
from scripts.benchmark.contenders import DIRECT, request_headers, running, start
from scripts.benchmark.job import ALL_ROUTES, Job, Task
from scripts.benchmark.lab import stopping
from scripts.benchmark.nginx_config import BODY_SIZES
from scripts.benchmark.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

BODY_CONNECTIONS = 8
"""Fewer than elsewhere: 32 bodies of 10 MiB, buffered by whoever buffers, are a memory test."""
ROUTE_COUNTS = (1, 100, ALL_ROUTES)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A letter of the issue's list, what it measures, and how."""

    letter: str
    title: str
    run: Callable[[Bench], Outcome]


def plain(bench: Bench) -> Outcome:
    """(a) One hop, nothing else, all contenders; and the upstream itself, to show its reserve."""
    names = (*bench.chosen("hms", "envoy", "nginx", "mitmdump"), DIRECT)
    wanted = {
        "plain_vs_mitmdump": (OURS, "mitmdump"),
        "plain_vs_envoy": (OURS, "envoy"),
        "plain_vs_nginx": (OURS, "nginx"),
    }
    return _hops(bench, Task.PLAIN, names, wanted, "One plain hop")


def policy(bench: Bench) -> Outcome:
    """(b) One hop with the whole policy chain, against Envoy's."""
    names = bench.chosen("hms", "envoy")
    wanted = {"policy_vs_envoy": (OURS, "envoy")}
    title = "One hop: token, role, policy headers, retries, breakers"
    return _hops(bench, Task.POLICY, names, wanted, title)


def mtls_pair(bench: Bench) -> Outcome:
    """(c) Two hops with mutual TLS between; both hops of a pair share one core."""
    names = bench.chosen("hms", "envoy")
    wanted = {"mtls_pair_vs_envoy": (OURS, "envoy")}
    return _hops(bench, Task.PAIR, names, wanted, "Two hops, mutual TLS between")


def routes(bench: Bench) -> Outcome:
    """(f) 1, 100 and 5,000 routes, of which the last one matches."""
    kinds = {
        f"{name} {count}": (name, Job(Task.PLAIN, bench.lab.upstream.port, count))
        for name in bench.chosen("hms", "envoy")
        for count in ROUTE_COUNTS
    }
    with stopping({}) as contenders:
        for label, (name, job) in kinds.items():
            contenders[label], _ = start(bench.lab, name, job)
            checks.verify(bench.lab, contenders[label], job)
        series = bench.load(contenders, Request(job.path, {}))
    wanted = {
        "routes_5000_vs_1": (f"{OURS} 5000", f"{OURS} 1"),
        "routes_100_vs_1": (f"{OURS} 100", f"{OURS} 1"),
        "routes_5000_vs_1_envoy": ("envoy 5000", "envoy 1"),
    }
    return Outcome(
        ratios_of(series, wanted),
        details={"routes": load_details(series)},
        tables=[load_table("Routes; the last one matches", series)],
    )


def bodies(bench: Bench) -> Outcome:
    """(g) Bodies of 64 KiB and 10 MiB, down and up."""
    names = bench.chosen("hms", "envoy", "nginx", "mitmdump")
    outcome = Outcome()
    with running(bench.lab, names, Job(Task.PLAIN, bench.lab.upstream.port)) as contenders:
        for contender in contenders.values():
            checks.verify_bodies(contender)
        for size_name, size in BODY_SIZES.items():
            script = bench.lab.scratch("upload.lua")
            script.write_text(wrk.upload_script(size), encoding="utf-8")
            for direction, request in (
                ("down", Request(f"/download/{size_name}", {}, BODY_CONNECTIONS)),
                ("up", Request("/upload", {}, BODY_CONNECTIONS, script)),
            ):
                title = f"{size_name} {direction}"
                bench.say(f"  {title}")
                series = bench.load(contenders, request)
                key = f"body_{size_name.lower()}_{direction}"
                wanted = {
                    f"{key}_vs_envoy": (OURS, "envoy"),
                    f"{key}_vs_mitmdump": (OURS, "mitmdump"),
                }
                outcome |= Outcome(
                    ratios_of(series, wanted),
                    details={key: load_details(series)},
                    tables=[load_table(f"Bodies: {title}", series)],
                )
    return outcome


def _hops(
    bench: Bench,
    task: Task,
    names: tuple[str, ...],
    wanted: Mapping[str, tuple[str, str]],
    title: str,
) -> Outcome:
    """Rounds of small GETs for one job."""
    job = Job(task, bench.lab.upstream.port)
    with running(bench.lab, names, job) as contenders:
        for contender in contenders.values():
            checks.verify(bench.lab, contender, job)
        request = Request(job.path, request_headers(job, bench.lab.credentials))
        series = bench.load(contenders, request)
    return Outcome(
        ratios_of(series, wanted),
        details={task.value: load_details(series)},
        tables=[load_table(title, series)],
    )


SCENARIOS = (
    Scenario("a", "one plain hop", plain),
    Scenario("b", "one hop with the whole policy chain", policy),
    Scenario("c", "two hops with mutual TLS between", mtls_pair),
    Scenario("d", "latency added at a fixed rate", latency.added),
    Scenario("e", "start-up time and resident memory", resources.footprint),
    Scenario("f", "1, 100 and 5,000 routes", routes),
    Scenario("g", "bodies of 64 KiB and 10 MiB", bodies),
    Scenario("h", "1 GiB through, each way", resources.gigabyte),
    Scenario("m", "what metrics and the access log cost in (b)", observed.watching),
)
