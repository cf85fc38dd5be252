"""The Gateway API's conformance cases for HTTPRoute, as far as this version has the features.

Our language takes the first match in order, the Gateway API the most specific one: the cases' rules
are written in that order here, as a controller would. (`../shared/vectors/README.md` has their form.)
"""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import pytest
import yaml

from tests.fakes.configs import errors_of
from tests.integration.basics import until
from tests.integration.clients import Connection
from tests.integration.in_process import InProcess
from tests.integration.servers import Upstream, after, echo, reset_at_once, silent, status

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tests.integration.clients import Response
    from tests.integration.servers import Behaviour, Received

FILE = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "gateway-api-httproute.yaml"
SUPPORTED = {
    "timeout",
    "retry",
    "request_headers",
    "response_headers",
    "backend_filters",
    "redirect",
    "rewrite",
    "mirror",
    "mirror_share",
}
LEFT_OUT = {
    "cors": 1,
    "h2c": 1,
}
"""Features that routes do not have yet, and how many of the file's tests need each."""
MISSING = "httproute-invalid-nonexistent-backendref"
BACKENDS = ("v1", "v2", "v3")


LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's, where it is: the file is long, and each process that runs tests reads it."""


@cache
def load() -> list[dict[str, Any]]:
    tests: list[dict[str, Any]] = []
    if FILE.is_file():
        tests = yaml.load(FILE.read_text(), LOADER)
    return tests


def supported() -> list[Any]:
    if not FILE.is_file():
        return [pytest.param({}, marks=pytest.mark.skip(f"{FILE} is not there"))]
    return [
        pytest.param(test, id=test["name"])
        for test in load()
        if SUPPORTED.issuperset(test["needs"]) and test["name"] != MISSING
    ]


# -- the Gateway API's rules in our language -------------------------------------------------------


def specificity(host: str | None, match: dict[str, Any]) -> tuple[Any, ...]:
    """Sorts the rule that wins first."""
    host = host or ""
    path = match["path"]
    return (
        host.startswith("*") or not host,
        -len(host),
        path["type"] != "exact",
        -len(path["value"].rstrip("/")),
        "method" not in match,
        -len(match.get("headers", ())),
        -len(match.get("query", ())),
    )


def written(host: str | None, match: dict[str, Any]) -> dict[str, Any]:
    """The conditions of one route."""
    kind = {"exact": "path", "prefix": "prefix", "regex": "regex"}
    ours: dict[str, Any] = {kind[match["path"]["type"]]: match["path"]["value"]}
    if host:
        ours["host"] = host
    if "method" in match:
        ours["methods"] = [match["method"]]
    for where in ("headers", "query"):
        if where in match:
            ours[where] = {item["name"]: {item["type"]: item["value"]} for item in match[where]}
    return ours


def filtered(filters: list[dict[str, Any]]) -> dict[str, Any]:
    """A rule's filters as parts of an action."""
    ours: dict[str, Any] = {}
    for item in filters:
        for kind, settings in item.items():
            written = dict(settings)
            if kind == "mirror":
                written = {"cluster": settings["backend"], "percent": percent_of(settings)}
            if "path" in written:
                path = written.pop("path")
                written["prefix" if path["replace"] == "prefix" else "path"] = path["value"]
            ours[kind] = written
    return ours


def percent_of(mirror: dict[str, Any]) -> float:
    """A mirror's share, however it is written."""
    fraction = mirror.get("fraction")
    share = fraction["numerator"] * 100 / fraction["denominator"] if fraction else mirror["percent"]
    return float(share)


def backends_of(rule: dict[str, Any]) -> dict[str, Any]:
    """A rule's clusters; what a backend alone has of filters is its rule's, else its cluster's."""
    backends = rule.get("backends", [])
    if len(backends) == 1:
        ours = filtered(backends[0].get("filters", []))
        alone = {"cluster": backends[0]["name"], "timeout": 0}
        return ours if "redirect" in ours else alone | ours
    clusters = [
        {"name": b["name"], "weight": b["weight"]} | filtered(b.get("filters", []))
        for b in backends
    ]
    return {"clusters": clusters, "timeout": 0} if clusters else {}


def action(rule: dict[str, Any]) -> dict[str, Any]:
    """Where a rule's requests go, and how."""
    ours = filtered(rule.get("filters", [])) | backends_of(rule)
    retry = rule.get("retry")
    per_try = rule.get("timeouts", {}).get("backend_request", "0s")
    if retry or per_try != "0s":
        ours["retries"] = {"attempts": retry["attempts"] if retry else 0}
    if per_try != "0s":
        ours["retries"]["per_try_timeout"] = per_try
    if retry and "codes" in retry:
        ours["retries"] |= {"on": ["retriable-status-codes"], "status_codes": retry["codes"]}
    elif retry:
        ours["retries"]["on"] = ["connect-failure", "reset"]
    return ours


def config(test: dict[str, Any], ports: dict[str, int]) -> str:
    rules = [
        (host, match, rule)
        for route in test["routes"]
        for rule in route["rules"]
        for match in rule["matches"]
        for host in route.get("effective_hostnames", route.get("hostnames")) or [None]
    ]
    rules.sort(key=lambda rule: specificity(rule[0], rule[1]))
    routes = [
        {"match": written(host, match), "action": action(rule)} for host, match, rule in rules
    ]
    clusters = [
        {
            "name": name,
            "service": "conformance",
            "endpoints": [f"127.0.0.1:{port}"],
            "outlier_detection": False,
        }
        for name, port in ports.items()
    ]
    listener = {"name": "gateway", "port": 0, "routes": routes}
    return yaml.safe_dump({"listeners": [listener], "clusters": clusters}, sort_keys=False)


# -- running them ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def backends() -> Iterator[dict[str, Upstream]]:
    with Upstream() as v1, Upstream() as v2, Upstream() as v3:
        yield dict(zip(BACKENDS, (v1, v2, v3), strict=True))


def prepared(setup: dict[str, Any]) -> list[Behaviour]:
    """What the backend does with this request, try by try."""
    if "backend_delay" in setup:
        return [after(0.7)]
    if "backend_response_headers" in setup:
        fields = setup["backend_response_headers"].items()
        return [status(200, *[f"{name}: {value}" for name, value in fields])]
    code = setup.get("fail_with")
    fails = reset_at_once if code == "reset" else status(int(code or 500))
    return [*[fails] * setup.get("fail_first", 0), echo]


def send(connection: Connection, request: dict[str, Any]) -> Response:
    lines = [f"{name}: {value}" for name, value in request.get("headers", {}).items()]
    return connection.exchange(request["method"], request["path"], *lines, host=request["host"])


def forget(backends: dict[str, Upstream], copies: Counter[tuple[str, str, str]]) -> None:
    """Forget what has arrived, but for mirrors' copies: those are counted, for they come late."""
    for name, backend in backends.items():
        arrived, backend.requests = backend.requests, []
        copies.update((name, one.method, one.target) for one in arrived if is_copy(one))


def is_copy(request: Received) -> bool:
    return request.header("x-hms-mirror") is not None


def check(
    connection: Connection,
    case: dict[str, Any],
    backends: dict[str, Upstream],
    port: int,
    copies: Counter[tuple[str, str, str]],
) -> str | None:
    """One request; the backend that got it."""
    forget(backends, copies)
    answer = send(connection, case["request"])
    expect = case["expect"]
    allowed = expect["status"] if isinstance(expect["status"], list) else [expect["status"]]
    assert answer.status in allowed, (case, answer)
    arrived = {
        name: [one for one in backend.requests if not is_copy(one)]
        for name, backend in backends.items()
    }
    took = [name for name, requests in arrived.items() if requests]
    if "redirect" in expect:
        check_redirect(answer, case["request"], expect["redirect"], port)
    if answer.status == 404 or "redirect" in expect:
        assert took == [], case
        return None
    assert len(took) == 1, case
    for name, value in expect.get("response_headers", {}).items():
        assert joined(answer.fields, name) == value, case
    for name in expect.get("absent_response_headers", ()):
        assert joined(answer.fields, name) is None, case
    any_of = [
        one for one in expect.get("one_of", [expect]) if one.get("backend", took[0]) == took[0]
    ]
    assert any_of, case
    wanted = any_of[0].get("upstream_request", {})
    seen = arrived[took[0]][-1]
    assert seen.method == wanted.get("method", seen.method)
    assert seen.target == wanted.get("path", seen.target), case
    assert seen.header("host") == wanted.get("host", seen.header("host"))
    for name, value in wanted.get("headers", {}).items():
        assert joined(seen.fields, name) == value, case
    for name in wanted.get("absent_headers", ()):
        assert joined(seen.fields, name) is None, case
    return took[0]


def joined(fields: Iterable[tuple[str, str]], name: str) -> str | None:
    """All values of a field, as one; None without any."""
    values = [value for found, value in fields if found.lower() == name.lower()]
    return ",".join(values) if values else None


def check_redirect(
    answer: Response, request: dict[str, Any], wanted: dict[str, Any], port: int
) -> None:
    """Where `Location` leads; the port that the tables call 80 is that of our listener."""
    base = f"http://{request['host']}:{port}{request['path']}"
    url = urlsplit(urljoin(base, answer.header("location") or ""))
    well_known = {"http": 80, "https": 443}[url.scheme]
    expected = port if wanted.get("port_of_listener") else wanted["port"]
    assert (url.scheme, url.hostname, url.path) == (
        wanted["scheme"],
        wanted["host"],
        wanted["path"],
    )
    assert (url.port or well_known) == expected, answer


def ports_of_listener(test: dict[str, Any]) -> None:
    """Mark the redirects whose port is the listener's: the filter names neither scheme nor port."""
    for route in test["routes"]:
        for rule in route["rules"]:
            filters = rule.get("filters") or rule["backends"][0].get("filters", [])
            for settings in (item.get("redirect") for item in filters):
                if settings is None or {"scheme", "port"} & settings.keys():
                    continue
                prefix = rule["matches"][0]["path"]["value"]
                for case in test["cases"]:
                    path = case["request"]["path"]
                    if path == prefix or path.startswith(prefix + "/"):
                        case["expect"]["redirect"]["port_of_listener"] = True


@pytest.mark.parametrize("test", supported())
def test_case(test: dict[str, Any], backends: dict[str, Upstream]) -> None:
    text = config(test, {name: backend.port for name, backend in backends.items()})
    if "redirect" in test["needs"]:
        ports_of_listener(test)
    for case in test["cases"]:
        setup = case.get("setup", {})
        timed_out = "backend_delay" in setup and case["expect"]["status"] != 200
        for backend in backends.values():
            behaviours = [silent] if timed_out else prepared(setup)
            backend.on(case["request"]["path"].partition("?")[0], *behaviours)
        # Its own sidecar: a reset on a kept connection is repeated outside the count of retries.
        with InProcess(text) as sidecar, Connection(sidecar.port) as connection:
            repeat = case.get("repeat", {"requests": 1, "rounds": 1})
            assert any(
                round_holds(case, backends, sidecar, connection, repeat["requests"])
                for _ in range(repeat["rounds"])
            )


def carries_nothing(sidecar: InProcess) -> bool:
    """Nothing is in use but the connection of the test itself."""
    return all(what.startswith("connection ") for what in sidecar.left_over())


def round_holds(
    case: dict[str, Any],
    backends: dict[str, Upstream],
    sidecar: InProcess,
    connection: Connection,
    requests: int,
) -> bool:
    """So many requests, each as it should be; whether all together are."""
    copies: Counter[tuple[str, str, str]] = Counter()
    took = Counter(check(connection, case, backends, sidecar.port, copies) for _ in range(requests))
    mirrors = case["expect"].get("mirrored_to", ())
    if mirrors:
        until(lambda: carries_nothing(sidecar), "end of all copies")
        forget(backends, copies)
    method, path = case["request"]["method"], case["request"]["path"]
    for mirror in mirrors:
        count = copies.pop((mirror["backend"], method, path), 0)
        least = mirror.get("at_least", mirror["share"] * requests)
        if not least <= count <= mirror.get("at_most", requests):
            return False
    assert not copies, "copies of something else, or elsewhere"
    return shares_hold(case["expect"], took)


def shares_hold(expect: dict[str, Any], took: Counter[str | None]) -> bool:
    """Each backend got its share of the requests, where shares are asked for; none means none."""
    return all(
        abs(took[name] / took.total() - share) <= (expect["share_tolerance"] if share else 0)
        for name, share in expect.get("shares", {}).items()
    )


def test_what_is_left_out_is_what_routes_cannot_do_yet() -> None:
    tests = load()
    if not tests:
        pytest.skip(f"{FILE} is not there")
    needed = Counter(need for test in tests for need in test["needs"])
    assert {need: n for need, n in needed.items() if need not in SUPPORTED} == LEFT_OUT
    assert len(supported()) == 31


def test_a_backend_that_is_not_configured_is_refused_before_any_request() -> None:
    """The Gateway API answers 500; a file that names no cluster of ours never comes into force."""
    (test,) = [test for test in load() if test["name"] == MISSING] or pytest.skip("no vectors")
    (error,) = errors_of(config(test, {"v1": 1}))
    assert "nonexistent" in error
