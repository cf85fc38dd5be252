"""The peers, for real: they start, do their whole job, and those that do not are found out."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scripts.benchmark import bulk, checks, contenders, envoy_config
from scripts.benchmark.bench import Bench, Request, Settings
from scripts.benchmark.job import ALL_ROUTES, Job, Task
from scripts.benchmark.lab import Contender, Lab, stopping
from scripts.benchmark.machine import Placement, available_cores
from scripts.benchmark.process import BenchError, get

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.nginx


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    with Lab(Placement.on(available_cores())) as running:
        yield running


@pytest.mark.parametrize("task", Task)
@pytest.mark.parametrize("name", ["hms", pytest.param("envoy", marks=pytest.mark.envoy)])
def test_we_and_envoy_do_every_job(lab: Lab, name: str, task: Task) -> None:
    job = Job(task, lab.upstream.port)
    with contenders.running(lab, [name], job) as running:
        checks.verify(lab, running[name], job)
        assert len(running[name].children) == (2 if task is Task.PAIR else 1)
        assert running[name].rss_mb() > 10


@pytest.mark.envoy
def test_envoy_takes_five_thousand_routes(lab: Lab) -> None:
    job = Job(Task.PLAIN, lab.upstream.port, ALL_ROUTES)
    with contenders.running(lab, ["envoy"], job) as running:
        checks.verify(lab, running["envoy"], job)
        assert get(running["envoy"].address, "/service-0000/x", {})[0] == 200
        assert get(running["envoy"].address, "/elsewhere", {})[0] == 404


@pytest.mark.parametrize("name", ["hms", "nginx", "mitmdump"])
def test_the_plain_job_and_bodies(lab: Lab, name: str) -> None:
    job = Job(Task.PLAIN, lab.upstream.port)
    with contenders.running(lab, [name], job) as running:
        checks.verify(lab, running[name], job)
        checks.verify_bodies(running[name])


def test_whoever_lets_a_forged_header_pass_is_found_out(lab: Lab) -> None:
    plain = Job(Task.PLAIN, lab.upstream.port)
    with contenders.running(lab, ["nginx"], plain) as running:
        with pytest.raises(BenchError, match="nginx does not do its job: it let Arrived"):
            checks.verify(lab, running["nginx"], Job(Task.POLICY, lab.upstream.port))
        with pytest.raises(BenchError, match=r"that 'spiffe://evil.example/svc/forged' calls"):
            checks.verify(lab, running["nginx"], Job(Task.PAIR, lab.upstream.port))


def drop_authorisation(filters: list[envoy_config.Message]) -> list[envoy_config.Message]:
    return filters[:1]


def drop_authentication(filters: list[envoy_config.Message]) -> list[envoy_config.Message]:
    del filters[0]["typed_config"]["rules"]
    return filters[:1]


@pytest.mark.envoy
@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (drop_authorisation, "answered 200 to a method that the policy does not allow"),
        (drop_authentication, "it let Arrived"),
    ],
)
def test_an_envoy_that_skips_part_of_the_chain_is_found_out(
    lab: Lab,
    monkeypatch: pytest.MonkeyPatch,
    spoil: Callable[[list[envoy_config.Message]], list[envoy_config.Message]],
    fault: str,
) -> None:
    whole = envoy_config._policy_filters
    monkeypatch.setattr(envoy_config, "_policy_filters", lambda given: spoil(whole(given)))
    job = Job(Task.POLICY, lab.upstream.port)
    with (
        contenders.running(lab, ["envoy"], job) as running,
        pytest.raises(BenchError, match=fault),
    ):
        checks.verify(lab, running["envoy"], job)


@pytest.mark.envoy
def test_a_pair_that_takes_peers_without_a_certificate_is_found_out(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    strict = envoy_config._downstream_tls

    def lax(*arguments: object) -> envoy_config.Message:
        message = strict(*arguments)  # type: ignore[arg-type]
        message["typed_config"]["require_client_certificate"] = False
        # Envoy demands a certificate, too, where it is to match names in it.
        context = message["typed_config"]["common_tls_context"]["validation_context"]
        del context["match_typed_subject_alt_names"]
        return message

    monkeypatch.setattr(envoy_config, "_downstream_tls", lax)
    job = Job(Task.PAIR, lab.upstream.port)
    with (
        contenders.running(lab, ["envoy"], job) as running,
        pytest.raises(BenchError, match="takes peers without a certificate"),
    ):
        checks.verify(lab, running["envoy"], job)


@pytest.mark.wrk
def test_answers_that_never_reached_the_upstream_are_found_out(lab: Lab) -> None:
    with contenders.running(lab, ["nginx"], Job(Task.PLAIN, lab.upstream.port)) as running:
        idle = Lab(lab.placement)
        with idle:
            bench = Bench(idle, Settings(1, 1, 0.2, ("nginx",)), lambda _: None)
            with pytest.raises(BenchError, match="but forwarded"):
                bench.load(running, Request("/", {}))


def test_a_contender_that_does_not_start_leaves_no_process(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Contender] = []
    starter = contenders._STARTERS["nginx"]

    def broken(given: Lab, job: Job) -> Contender:
        started.append(starter(given, job))
        return started[-1]

    monkeypatch.setitem(contenders._STARTERS, "nginx", broken)
    # Nobody listens at the upstream: nginx answers 502 and ends when it is told to.
    monkeypatch.setattr("scripts.benchmark.process.START_SECONDS", 0.3)
    with pytest.raises(BenchError, match="status 502"):
        contenders.start(lab, "nginx", Job(Task.PLAIN, 1))
    assert "ended" in repr(started[0])


def test_all_contenders_are_stopped_though_stopping_one_fails(lab: Lab) -> None:
    class Stubborn(Contender):
        def stop(self) -> None:
            raise BenchError("will not stop")

    good, _ = contenders.start(lab, "nginx", Job(Task.PLAIN, lab.upstream.port))
    stubborn = Stubborn("stubborn", ("127.0.0.1", 1), ())
    with (
        pytest.raises(BenchError, match="will not stop"),
        stopping({"good": good, "stubborn": stubborn}),
    ):
        pass
    assert "ended" in repr(good)


def test_a_gigabyte_passes_both_ways() -> None:
    with bulk.upstream() as port:
        address = ("127.0.0.1", port)
        assert get(address, "/", {}) == (200, b"{}")
        assert sum(bulk.download(address)) == bulk.GIGABYTE
        assert sum(bulk.upload(address)) == bulk.GIGABYTE


def test_a_body_that_is_cut_short_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with bulk.upstream() as port:
        whole = bulk.GIGABYTE
        # One MiB is announced and sent, and then missed.
        monkeypatch.setattr(bulk, "GIGABYTE", 2**20)
        upload = bulk.upload(("127.0.0.1", port))
        assert next(upload) == 2**20
        monkeypatch.setattr(bulk, "GIGABYTE", whole)
        with pytest.raises(BenchError, match=f"received b'1048576' bytes of {whole}"):
            next(upload)
