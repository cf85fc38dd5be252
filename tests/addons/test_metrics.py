"""The built-in plugin `metrics`: counts are exact, labels are few, a scrape disturbs nobody."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from hms_addons.addons.metrics import Metrics
from hms_addons.config.policy import Decision
from hms_addons.config.snapshot import Cluster, Direction
from hms_addons.errors import Failure, Fault, Flag
from hms_addons.exchange import Attempt
from hms_addons.http_message import Answer
from hms_addons.metrics_registry import MetricsRegistry
from hms_addons.request_tally import BUCKETS
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_listener, make_route, make_snapshot

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange
    from hms_addons.metrics_registry import Collector

CLUSTER: dict[str, Any] = {
    "name": "auth-svc",
    "state": "closed",
    "circuit_breakers": {"overflows_total": 3},
    "endpoints": [
        {
            "address": "127.0.0.1:9001",
            "state": "closed",
            "connections": {"active": 1, "idle": 2, "connecting": 0},
        },
        {
            "address": "127.0.0.1:9002",
            "state": "open",
            "connections": {"active": 0, "idle": 1, "connecting": 1},
        },
        {
            "address": "127.0.0.1:9003",
            "state": "closed",
            "health": "unhealthy",
            "connections": {"active": 0, "idle": 0, "connecting": 0},
        },
    ],
}


class FakeMesh:
    """A running sidecar, as far as the plugin asks it."""

    def __init__(self) -> None:
        self.registry = MetricsRegistry(Counter())
        self.snapshot: Any = make_snapshot(clusters={"auth-svc": cluster("auth-svc")})
        self.found: dict[str, Any] = {
            "version": "42",
            "rejections_total": 2,
            "listeners": [
                {
                    "name": "peers",
                    "direction": "inbound",
                    "connections": 4,
                    "in_flight": 1,
                    "malformed": 5,
                }
            ],
            "plugin_errors": [{"plugin": "stamp", "hook": "hms_prepare", "count": 7}],
        }
        self.cluster_list: list[dict[str, Any]] = [CLUSTER]

    def add_metrics(self, name: str, collector: Collector) -> None:
        self.registry.add(name, collector)

    def status(self) -> dict[str, Any]:
        return self.found

    def clusters(self) -> list[dict[str, Any]]:
        return self.cluster_list

    def certificates(self) -> list[dict[str, Any]]:
        return [
            {
                "secret": "mesh_certs",
                "spiffe_id": "spiffe://mpsa.mil/svc/a",
                "not_after": "2027-01-15T08:00:00Z",
            }
        ]


class Bench:
    """The plugin, and what it would be given."""

    def __init__(self, **options: Any) -> None:
        self.clock = FakeClock()
        self.mesh = FakeMesh()
        self.metrics = Metrics(clock=self.clock, **options)
        self.metrics.hms_open(self.mesh)  # type: ignore[arg-type] # as far as it is asked

    def done(self, exchange: Exchange, seconds: float = 0.0) -> None:
        """It was begun so many seconds ago, and is over now."""
        exchange.started = self.clock.monotonic() - seconds
        self.metrics.hms_complete(exchange)

    async def text(self) -> str:
        return (await self.mesh.registry.render()).body.decode()

    async def scrape(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Every sample by name and labels, as Prometheus' parser reads them."""
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(await self.text()):
            for sample in family.samples:
                labels = tuple(sorted(sample.labels.items()))
                assert labels not in found.setdefault(sample.name, {}), "told twice"
                found[sample.name][labels] = sample.value
        return found

    async def values(self, name: str, *by: str) -> dict[Any, float]:
        """Totals of a metric by some of its labels."""
        totals: dict[Any, float] = {}
        for labels, value in (await self.scrape()).get(name, {}).items():
            named = dict(labels)
            key = tuple(named[label] for label in by) if len(by) > 1 else named[by[0]]
            totals[key] = totals.get(key, 0) + value
        return totals


@pytest.fixture
def bench() -> Bench:
    return Bench()


def cluster(name: str) -> Cluster:
    return Cluster(name=name, service=name)


def answered(status: int = 200, *outcomes: str, service: str = "auth-svc") -> Exchange:
    """An exchange that was forwarded; by default at the first attempt."""
    exchange = make_exchange(route=make_route(service))
    exchange.cluster = cluster(service)
    exchange.answer = Answer(status, b"", (), b"x")
    for outcome in outcomes or (str(status),):
        exchange.attempts.append(Attempt("127.0.0.1:9001", 0.0, 1.0, outcome))
    return exchange


def refused(fault: Fault) -> Exchange:
    """An exchange that the mesh answered itself, before any attempt."""
    exchange = make_exchange()
    exchange.failure = Failure.of(fault, "as told")
    exchange.answer = Answer(exchange.failure.status, b"", (), b"x", local=True)
    return exchange


async def test_requests_are_counted_by_what_they_were_and_how_they_ended(bench: Bench) -> None:
    for _ in range(3):
        bench.done(answered())
    bench.done(answered(404))
    outbound = answered()
    outbound.listener = make_listener(direction=Direction.OUTBOUND)
    bench.done(outbound)
    bench.done(refused(Fault.POLICY_DENIED))
    lost = refused(Fault.NO_ROUTE)
    lost.route = None
    bench.done(lost)
    last = answered(503, "503", "503", "503")
    last.flag = Flag.URX
    bench.done(last)
    gone = answered()
    gone.answer = None
    gone.fail(Fault.CLIENT_GONE, "left")
    bench.done(gone)
    labels = ("direction", "service", "cluster", "code", "flag")
    assert await bench.values("hms_requests_total", *labels) == {
        ("inbound", "auth-svc", "auth-svc", "200", "-"): 3,
        ("inbound", "auth-svc", "auth-svc", "404", "-"): 1,
        ("outbound", "auth-svc", "auth-svc", "200", "-"): 1,
        ("inbound", "auth-svc", "unknown", "403", "RBAC"): 1,
        ("inbound", "unknown", "unknown", "404", "NR"): 1,
        ("inbound", "auth-svc", "auth-svc", "503", "URX"): 1,
        ("inbound", "auth-svc", "auth-svc", "499", "DC"): 1,
    }


async def test_attempts_and_retries_are_counted_each(bench: Bench) -> None:
    for _ in range(5):
        bench.done(answered())
    bench.done(answered(200, "connect-failure", "503", "200"))
    bench.done(answered(503, "reset"))
    bench.done(refused(Fault.RATE_LIMITED))
    assert await bench.values("hms_upstream_attempts_total", "outcome") == {
        "2xx": 6,
        "5xx": 1,
        "connect-failure": 1,
        "reset": 1,
    }
    assert (await bench.scrape())["hms_upstream_retries_total"] == {(): 2}


async def test_decisions_of_policies_are_counted_by_policy(bench: Bench) -> None:
    bench.done(answered())  # there are no policies
    found = (await bench.scrape())["hms_rbac_decisions_total"]
    assert set(found.values()) == {0.0}, (
        "there from the start, so that the first one is an increase"
    )
    for decision in (
        Decision(allowed=True, policy="managers", reason=""),
        Decision(allowed=True, policy="managers", reason="", would_deny="why", audit_policy="new"),
        Decision(allowed=True, policy=None, reason="", would_deny="no ALLOW matches"),
        Decision(allowed=False, policy="closed", reason="/closed is closed to 10.0.0.7"),
        Decision(allowed=False, policy=None, reason="no ALLOW matches"),
    ):
        exchange = answered()
        exchange.decision = decision
        bench.done(exchange)
    assert await bench.values("hms_rbac_decisions_total", "decision", "policy") == {
        ("allowed", "managers"): 2,
        ("allowed", "-"): 1,
        ("denied", "closed"): 1,
        ("denied", "-"): 1,
        ("would_deny", "new"): 1,
        ("would_deny", "-"): 1,
    }


async def test_durations_are_a_histogram(bench: Bench) -> None:
    for seconds in (0.0005, 0.001, 0.0011, 0.3, 20.0):
        bench.done(answered(), seconds)
    bench.done(answered(500), 0.3)
    buckets = await bench.values("hms_request_duration_seconds_bucket", "le")
    assert [buckets[str(bound)] for bound in BUCKETS] == [2, 3, 3, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5]
    assert buckets["+Inf"] == 6
    labels = (("cluster", "auth-svc"), ("direction", "inbound"), ("service", "auth-svc"))
    found = await bench.scrape()
    assert found["hms_request_duration_seconds_count"] == {labels: 6}
    assert found["hms_request_duration_seconds_sum"][labels] == pytest.approx(20.6026)


async def test_the_state_of_the_sidecar_is_told_as_it_is_now(bench: Bench) -> None:
    found = await bench.scrape()
    assert found["hms_connections_active"] == {(("direction", "inbound"), ("listener", "peers")): 4}
    assert found["hms_requests_in_flight"] == {(("direction", "inbound"), ("listener", "peers")): 1}
    assert list(found["hms_malformed_requests_total"].values()) == [5]
    assert await bench.values("hms_endpoint_state", "endpoint", "state") == {
        ("127.0.0.1:9001", "closed"): 1,
        ("127.0.0.1:9002", "open"): 1,
        ("127.0.0.1:9003", "unhealthy"): 1,
    }
    assert await bench.values("hms_pool_connections", "cluster", "state") == {
        ("auth-svc", "active"): 1,
        ("auth-svc", "idle"): 3,
        ("auth-svc", "connecting"): 1,
    }
    assert await bench.values("hms_breaker_overflows_total", "cluster") == {"auth-svc": 3}
    assert await bench.values("hms_config_version", "version") == {"42": 1}
    assert found["hms_config_rejected_total"] == {(): 2}
    assert await bench.values("hms_plugin_errors_total", "plugin", "hook") == {
        ("stamp", "hms_prepare"): 7
    }
    expiry = found["hms_certificate_expiry_timestamp_seconds"]
    assert list(expiry.values()) == [1_800_000_000]

    assert "hms_log_lines_dropped_total" not in found
    assert await bench.values("hms_breaker_open", "cluster") == {"auth-svc": 0}
    bench.mesh.cluster_list = [{**CLUSTER, "state": "open"}]
    bench.mesh.found["version"] = "43"
    assert await bench.values("hms_breaker_open", "cluster") == {"auth-svc": 1}
    assert await bench.values("hms_config_version", "version") == {"43": 1}


async def test_lines_that_a_disk_has_cost_are_told(bench: Bench) -> None:
    bench.mesh.found["access_log"] = {"written": 5, "dropped": 3}
    bench.mesh.found["audit_log"] = None
    assert await bench.values("hms_log_lines_dropped_total", "log") == {"access_log": 3}
    assert await bench.values("hms_log_lines_written_total", "log") == {"access_log": 5}


async def test_how_it_stands_with_the_control_plane_is_told(bench: Bench) -> None:
    assert "hms_config_sync_state" not in await bench.scrape(), "there is none"
    refused = {"version": 3, "reason": "no such cluster"}
    for control, state in (
        ({"in_sync": True, "refused": None}, "in sync"),
        ({"in_sync": False, "refused": None}, "out of touch"),
        ({"in_sync": False, "refused": refused}, "refused"),
    ):
        bench.mesh.found["control"] = control
        assert await bench.values("hms_config_sync_state", "state") == {state: 1}


async def test_before_the_first_configuration_there_is_no_version(bench: Bench) -> None:
    bench.mesh.found["version"] = None
    assert "hms_config_version" not in await bench.scrape()


NAMES = """
    hms_requests_total hms_request_duration_seconds_bucket hms_upstream_attempts_total
    hms_upstream_retries_total hms_endpoint_state hms_breaker_open hms_connections_active
    hms_pool_connections hms_config_version hms_config_rejected_total
    hms_certificate_expiry_timestamp_seconds hms_plugin_errors_total
""".split()


@pytest.mark.parametrize("name", NAMES)
async def test_it_is_told_under_the_promised_name(bench: Bench, name: str) -> None:
    bench.done(answered())
    assert name in await bench.scrape()


# -- labels are bounded -------------------------------------------------------------------------


async def test_callers_make_no_labels(bench: Bench) -> None:
    """Odd paths, methods, hosts, subjects: what a caller sends is in no label."""
    for number in range(3000):
        exchange = make_exchange(
            f"/path-{number}?q={number}",
            method=f"M{number}",
            headers=[("X-Request-ID", f"id-{number}"), ("Host", f"h{number}.svc")],
        )
        exchange.service = f"service-{number}"
        exchange.path = f"/path-{number}"
        exchange.route = None
        exchange.fail(Fault.UNKNOWN_SERVICE, f"no service-{number}")
        bench.done(exchange)
    found = await bench.scrape()
    assert len(found["hms_requests_total"]) == 1
    assert list(found["hms_requests_total"].values()) == [3000]
    assert len((await bench.text()).splitlines()) < 100


async def test_an_app_makes_few_labels_by_odd_statuses(bench: Bench) -> None:
    for status in range(1000):
        bench.done(answered(status))
    codes = await bench.values("hms_requests_total", "code")
    assert sum(codes.values()) == 1000
    assert codes["200"] == codes["418"] == codes["499"] == 1
    assert codes["5xx"] > 80
    assert set(codes) - {str(number) for number in range(100, 600)} == {
        "0", "1xx", "2xx", "3xx", "4xx", "5xx", "other",
    }  # fmt: skip
    assert len(codes) < 80


async def test_a_plugin_makes_no_endless_services_flags_or_outcomes() -> None:
    bench = Bench(max_series=50)
    for number in range(3000):
        exchange = answered(200, f"outcome-{number}")
        exchange.route = make_route(f"made-up-{number}")
        exchange.failure = Failure(429, f"F{number}", "Odd", "odd")  # type: ignore[arg-type] # a plugin's fault
        bench.done(exchange)
    found = await bench.scrape()
    assert len(found["hms_requests_total"]) <= 52
    assert sum(found["hms_requests_total"].values()) == 3000
    assert set(await bench.values("hms_requests_total", "flag")) == {"other"}
    outcomes = await bench.values("hms_upstream_attempts_total", "outcome")
    assert len(outcomes) <= 33
    assert sum(outcomes.values()) == 3000


async def test_clusters_that_are_no_more_make_room_for_new_ones() -> None:
    bench = Bench(max_series=3)
    for name in ("old-1", "old-2", "auth-svc"):
        bench.done(answered(service=name))
    bench.done(answered(service="new"))
    assert await bench.values("hms_requests_total", "cluster") == {"auth-svc": 1, "new": 1}
    for name in ("newer", "newest", "auth-svc"):
        bench.done(answered(service=name))
    assert await bench.values("hms_requests_total", "cluster") == {
        "auth-svc": 2,
        "new": 1,
        "newer": 1,
        "other": 1,
    }
    bench.mesh.snapshot = make_snapshot(clusters={"last": cluster("last")})
    bench.done(answered(service="last"))
    assert await bench.values("hms_requests_total", "cluster") == {"last": 1, "other": 1}
    assert await bench.values("hms_upstream_attempts_total", "outcome") == {"2xx": 8}
    assert repr(bench.metrics) == "<Metrics series=2>"


@given(
    st.lists(
        st.tuples(
            st.sampled_from([200, 204, 404, 503, 777]),
            st.sampled_from(["a", "b", "c"]),
            st.sampled_from([None, *Flag]),
            st.lists(st.sampled_from(["200", "503", "reset", "timeout"]), max_size=4),
        ),
        max_size=40,
    )
)
async def test_nothing_is_lost_whatever_comes(
    requests: list[tuple[int, str, Flag | None, list[str]]],
) -> None:
    bench = Bench(max_series=5)
    bench.mesh.snapshot = make_snapshot(clusters={name: cluster(name) for name in "abc"})
    for status, service, flag, outcomes in requests:
        exchange = answered(status, service=service)
        exchange.attempts[:] = [Attempt("e", 0, 1, outcome) for outcome in outcomes]
        exchange.flag = flag
        bench.done(exchange, 0.01)
    found = await bench.scrape()
    for name in ("hms_requests_total", "hms_request_duration_seconds_count"):
        assert sum(found.get(name, {}).values()) == len(requests)
    attempts = sum(found.get("hms_upstream_attempts_total", {}).values())
    assert attempts == sum(len(outcomes) for *_, outcomes in requests)
    retries = sum(max(0, len(outcomes) - 1) for *_, outcomes in requests)
    assert found["hms_upstream_retries_total"] == {(): retries}


async def test_a_thousand_clusters_are_told_with_the_loop_going_on(bench: Bench) -> None:
    bench.mesh.cluster_list = [{**CLUSTER, "name": f"cluster-{number}"} for number in range(1000)]
    found = await bench.scrape()
    assert len(found["hms_breaker_open"]) == 1000
    assert len(found["hms_endpoint_state"]) == 3000
    assert not bench.mesh.registry._errors
