"""Metrics over every lane: what was asked is what is counted, to the last request."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from tests.integration.basics import until
from tests.integration.clients import fetch
from tests.integration.servers import POLICY_VERSION, echo, status

if TYPE_CHECKING:
    from tests.integration.conftest import Backends, Lane
    from tests.integration.servers import Upstream, Visit


def scrape(lane: Lane) -> Counter[tuple[str, tuple[tuple[str, str], ...]]]:
    """Every sample of `/metrics`, as Prometheus' parser reads it."""
    answer = fetch(lane.admin, "GET", "/metrics", host="localhost")
    assert answer.status == 200
    assert answer.header("content-type") == "text/plain; version=0.0.4; charset=utf-8"
    return Counter(
        {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in plain_text(answer.body.decode())
            for sample in family.samples
        }
    )


def labelled(name: str, **labels: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name, tuple(sorted(labels.items()))


def requests(
    service: str, cluster: str, code: int, flag: str = "-", direction: str = "outbound"
) -> tuple[str, tuple[tuple[str, str], ...]]:
    return labelled(
        "hms_requests_total",
        direction=direction,
        service=service,
        cluster=cluster,
        code=str(code),
        flag=flag,
    )


def test_counts_are_exact_also_of_what_was_denied_failed_or_retried(
    lane: Lane, backends: Backends, app: Upstream
) -> None:
    app.on("/tries/counted", status(503), status(503), echo)
    app.on("/tries/lost", status(503))
    before = scrape(lane)
    for _ in range(5):
        assert lane.fetch("GET", "/app/counted").status == 200
    for number in range(4):
        assert lane.fetch("GET", f"/guarded/{number}").status == 403
    for _ in range(3):
        assert lane.fetch("GET", "/dead").status == 503
    for number in range(6):
        assert lane.fetch("GET", f"/nowhere/{number}").status == 404
    for number in range(7):
        assert lane.fetch("GET", "/app", host=f"made-up-{number}.svc").status == 404
    assert lane.fetch("GET", "/tries/counted").status == 200
    assert lane.fetch("GET", "/tries/lost").status == 503
    assert fetch(lane.inbound, "GET", "/").status == 200
    expected = {
        requests("app", "app", 200): 6,
        requests("guarded", "guarded", 403, "RBAC"): 4,
        requests("dead", "dead", 503, "UF"): 3,
        requests("unknown", "unknown", 404, "NR"): 13,
        requests("app", "app", 503, "URX"): 1,
        requests("claims-svc", "app:peers", 200, direction="inbound"): 1,
    }

    def counted() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        now = scrape(lane)
        now.subtract(before)
        return {key: value for key, value in now.items() if value}

    def of_requests() -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        return {key: n for key, n in counted().items() if key[0] == "hms_requests_total"}

    # An answer may be read before the request is over for the sidecar.
    until(lambda: sum(of_requests().values()) >= 28, "28 requests counted")
    assert of_requests() == expected
    found = counted()
    attempts = {
        labels[0][1]: n
        for (name, labels), n in found.items()
        if name == "hms_upstream_attempts_total"
    }
    assert attempts == {"2xx": 7, "5xx": 5, "connect-failure": 3}
    assert found[labelled("hms_upstream_retries_total")] == 4
    assert found[labelled("hms_rbac_decisions_total", decision="denied", policy="-")] == 4
    lasted = labelled(
        "hms_request_duration_seconds_count", direction="outbound", service="app", cluster="app"
    )
    assert found[lasted] == 7
    assert not any("made-up" in str(key) or "/nowhere" in str(key) for key in scrape(lane))
    app.requests.clear()


def test_the_sidecars_state_is_there_and_open_metrics_where_asked_for(
    lane: Lane, backends: Backends
) -> None:
    lane.fetch("GET", "/app")
    accept = "Accept: application/openmetrics-text; version=1.0.0"
    answer = fetch(lane.admin, "GET", "/metrics", accept, host="localhost")
    families = {f.name: f for f in open_metrics(answer.body.decode())}  # type: ignore[no-untyped-call]
    assert {
        "hms_requests",
        "hms_request_duration_seconds",
        "hms_upstream_attempts",
        "hms_upstream_retries",
        "hms_endpoint_state",
        "hms_breaker_open",
        "hms_connections_active",
        "hms_pool_connections",
        "hms_rbac_decisions",
        "hms_policy_version_info",
        "hms_config_version",
        "hms_config_rejected",
        "hms_certificate_expiry_timestamp_seconds",
        "hms_plugin_errors",
    } <= families.keys()
    states = {
        (s.labels["cluster"], s.labels["endpoint"]): s.labels["state"]
        for s in families["hms_endpoint_state"].samples
    }
    assert states["app", f"127.0.0.1:{backends.app.port}"] == "closed"
    assert [s.value for s in families["hms_config_version"].samples] == [1.0]
    policies = [s for s in families["hms_policy_version_info"].samples if s.value]
    assert POLICY_VERSION in {label for s in policies for label in s.labels.values()}
    assert not [s for s in families["hms_plugin_errors"].samples if s.labels["hook"] == "collect"]


def ask_all(lane: Lane, requests: list[tuple[str, str, str]]) -> None:
    """Method, target and host of each: all one after the other, on one connection."""
    with lane.connect() as connection:
        for method, target, host in requests:
            odd = f"odd-{target}"
            fields = (f"X-Request-ID: {odd}", f"User-Agent: {odd}", f"X-Tier: {odd}")
            assert connection.exchange(method, target, *fields, host=host).status >= 200


def test_no_stranger_makes_series(lane: Lane, backends: Backends, app: Upstream) -> None:
    """Hosts, methods, paths, tokens, tags and statuses by the hundred: each another one."""
    app.on("/app/any-status", any_status)
    lane.fetch("GET", "/app/any-status?299")
    before = set(scrape(lane))
    methods = "GET PROPFIND PUT REPORT SUBSCRIBE UNLOCK".split()
    hostile = [
        (methods[n % 6], f"/{place}", host)
        for n in range(150)
        for place, host in (
            (f"odd-{n}/odd?odd={n}", f"odd-{n}.svc"),
            (f"app/odd-{n}", "mesh.test"),
            (f"guarded/odd-{n}", "mesh.test"),
            (f"odd-{n}", f"odd-{n}.test"),
        )
    ]
    step = 3 if lane.native else 1  # it is slow
    ask_all(lane, hostile[::step])
    for n in range(40):
        lane.fetch("GET", f"/app/odd-{n}", f"Authorization: Bearer odd-{n}.odd.odd", host=f"h{n}")
    codes = range(400, 600, step)
    ask_all(lane, [("GET", f"/app/any-status?{code}", "mesh.test") for code in codes])
    new = set(scrape(lane)) - before
    assert not [key for key in new if "odd" in str(key)]
    requests = [key for key in new if key[0] == "hms_requests_total"]
    assert {dict(labels)["code"] for _, labels in requests} >= {"418", "4xx", "5xx"}
    assert len(requests) < 70, requests
    assert len(new) < 170, new
    app.requests.clear()


async def any_status(visit: Visit) -> None:
    """The status that the query says."""
    await visit.read_body()
    code = visit.request.target.partition("?")[2]
    await visit.send(f"HTTP/1.1 {code} Odd-{code}\r\nContent-Length: 0\r\n\r\n".encode())


def test_metrics_are_only_read(lane: Lane) -> None:
    assert fetch(lane.admin, "POST", "/metrics", host="localhost").status == 405
