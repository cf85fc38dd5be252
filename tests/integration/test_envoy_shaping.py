"""Beside Envoy: what routes change, answer themselves, share out, limit and spoil."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.integration.envoy_kit import Pair, pair
from tests.integration.servers import Upstream, chunks, status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Received

pytestmark = pytest.mark.envoy

EDITS = {
    "set": {"X-Set": "new", "X-Team": "claims"},
    "add": {"X-Add": "more", "X-New": "here"},
    "remove": ["X-Gone", "x-gone-too"],
}
GIVEN = ("X-Set: old", "X-Set: older", "X-Add: some", "X-Gone: 1", "X-Gone-Too: 1", "X-Kept: 1")
NAMES = ("x-set", "x-team", "x-add", "x-new", "x-gone", "x-gone-too", "x-kept")

REWRITES: dict[str, dict[str, str]] = {
    "/p1": {"prefix": "/new"},
    "/p2/deep": {"prefix": "/n"},
    "/p3": {"prefix": "/p3/p3"},
    "/path": {"path": "/elsewhere/entirely"},
    "/host": {"host": "other.test"},
    "/both": {"prefix": "/b", "host": "other.test:8080"},
}
REDIRECTS: dict[str, dict[str, Any]] = {
    "/r/host": {"host": "new.test"},
    "/r/path": {"path": "/there", "status": 301},
    "/r/prefix": {"prefix": "/other", "status": 308},
    "/r/scheme": {"scheme": "https", "status": 307},
    "/r/port": {"scheme": "https", "host": "new.test", "port": 8443, "status": 303},
    "/r/all": {"scheme": "https", "host": "new.test", "path": "/x", "status": 301},
}
DIRECT: dict[str, dict[str, Any]] = {
    "/d/200": {"status": 200, "body": "hello"},
    "/d/204": {"status": 204},
    "/d/403": {"status": 403, "body": "not here"},
    "/d/503": {"status": 503, "body": "closed for repair"},
}
FAULTS: dict[str, dict[str, Any]] = {
    "/f/abort": {"abort": 418},
    "/f/503": {"abort": 503},
    "/f/never": {"abort": 503, "percent": 0},
    "/f/delay": {"delay": "0.05s"},
    "/f/both": {"delay": "0.05s", "abort": 429},
    "/f/when": {"abort": 503, "when": {"header": {"x-chaos": "yes"}}},
}
LIMITS: dict[str, dict[str, Any]] = {
    "/l/one": {"requests": 1, "per": "3600s"},
    "/l/five": {"requests": 5, "per": "3600s"},
    "/l/burst": {"requests": 1, "per": "3600s", "burst": 4},
}


@pytest.fixture(scope="module")
def proxies(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with Upstream() as a, Upstream() as b:

        def route(prefix: str, **action: Any) -> dict[str, Any]:
            return {"match": {"prefix": prefix}, "action": action}

        def there(prefix: str, **action: Any) -> dict[str, Any]:
            return route(prefix, cluster="a", timeout="5s", **action)

        def shared(prefix: str, one: int, other: int) -> dict[str, Any]:
            clusters = [{"name": "a", "weight": one}, {"name": "b", "weight": other}]
            return route(prefix, clusters=clusters, timeout="5s")

        routes = [
            there("/request", request_headers=EDITS),
            there("/response", response_headers=EDITS),
            *(there(path, rewrite=rewrite) for path, rewrite in REWRITES.items()),
            *(route(path, redirect=redirect) for path, redirect in REDIRECTS.items()),
            *(route(path, direct_response=given) for path, given in DIRECT.items()),
            *(there(path, fault=fault) for path, fault in FAULTS.items()),
            *(there(path, rate_limit=limit) for path, limit in LIMITS.items()),
            there("/mirrored", mirror={"cluster": "b", "percent": 100}),
            shared("/w/quarter", 75, 25),
            shared("/w/all", 1, 0),
            shared("/w/none", 0, 1),
            shared("/w/odd", 2, 1),
        ]
        clusters = [
            {
                "name": name,
                "service": "a",
                "endpoints": [f"127.0.0.1:{upstream.port}"],
                "outlier_detection": False,
            }
            for name, upstream in (("a", a), ("b", b))
        ]
        config = {
            "listeners": [{"name": "l", "port": 0, "routes": routes}],
            "clusters": clusters,
        }
        yield from pair(tmp_path_factory.mktemp("envoy"), config, a, b)


# -- header rules ----------------------------------------------------------------------------------


def values(message: Any) -> dict[str, str | None]:
    """The fields that rules speak of; several of one name are one list (RFC 9110 section 5.3)."""
    found: dict[str, list[str]] = {}
    for name, value in message.fields:
        found.setdefault(name.lower(), []).append(value)
    return {name: ",".join(found[name]) if name in found else None for name in NAMES}


@pytest.mark.parametrize("fields", [(), GIVEN, GIVEN[2:], GIVEN[:1]])
def test_both_edit_requests_alike(proxies: Pair, fields: tuple[str, ...]) -> None:
    envoy, ours = proxies.both("GET", "/request/x", *fields)
    assert values(envoy.took[0]) == values(ours.took[0])
    assert values(ours.took[0])["x-team"] == "claims"


@pytest.mark.parametrize("fields", [(), GIVEN, GIVEN[2:], GIVEN[:1]])
@pytest.mark.parametrize("streams", [False, True])
def test_both_edit_answers_alike(proxies: Pair, fields: tuple[str, ...], *, streams: bool) -> None:
    lines = "".join(f"{field}\r\n" for field in fields).encode()
    behaviour = chunks(b"a", b"b", fields=lines) if streams else status(200, *fields)
    proxies.upstreams[0].on("/response/x", behaviour)
    envoy, ours = proxies.both("GET", "/response/x")
    assert values(envoy.answer) == values(ours.answer)
    assert values(ours.answer)["x-team"] == "claims"
    assert envoy.answer.body == ours.answer.body


# -- rewrites, redirects, direct responses ---------------------------------------------------------


@pytest.mark.parametrize("rest", ["", "/x", "/x/", "/x?y=1&z=%20", "?y=/p1"])
@pytest.mark.parametrize("path", REWRITES)
def test_both_rewrite_alike(proxies: Pair, path: str, rest: str) -> None:
    envoy, ours = proxies.both("GET", path + rest)
    assert sent(envoy.took[0]) == sent(ours.took[0])


def sent(request: Received) -> tuple[str, str | None]:
    return request.target, request.header("host")


@pytest.mark.parametrize("rest", ["", "/x", "/x?y=1"])
@pytest.mark.parametrize("path", REDIRECTS)
def test_both_redirect_alike(proxies: Pair, path: str, rest: str) -> None:
    """*Ours*: with neither scheme nor port given, the listener's port is said (Gateway API)."""
    envoy, ours = proxies.both("GET", path + rest)
    assert ours.took == []
    assert envoy.status == ours.status
    location = ours.answer.header("location") or ""
    told = {"scheme", "port"} & set(REDIRECTS[path])
    assert (f":{proxies.ours}/" in location) is not bool(told)
    assert envoy.answer.header("location") == location.replace(f":{proxies.ours}/", "/")


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
@pytest.mark.parametrize("path", DIRECT)
def test_both_answer_directly_alike(proxies: Pair, path: str, method: str) -> None:
    envoy, ours = proxies.both(method, f"{path}/x")
    assert ours.took == []
    assert (envoy.status, envoy.answer.body) == (ours.status, ours.answer.body)


# -- faults and limits -----------------------------------------------------------------------------


@pytest.mark.parametrize("fields", [(), ("X-Chaos: yes",), ("X-Chaos: no",)])
@pytest.mark.parametrize("path", FAULTS)
def test_both_inject_alike(proxies: Pair, path: str, fields: tuple[str, ...]) -> None:
    envoy, ours = proxies.both("GET", f"{path}/x", *fields)
    assert (envoy.status, len(envoy.took)) == (ours.status, len(ours.took))
    assert envoy.flags & {"FI", "DI"} == ours.flags & {"FI", "DI"}


@pytest.mark.parametrize("path", LIMITS)
def test_both_admit_as_many(proxies: Pair, path: str) -> None:
    found = []
    for port in proxies.ports:
        seen = [proxies.ask(port, "GET", f"{path}/x") for _ in range(8)]
        found.append([(one.status, len(one.took)) for one in seen])
    assert found[0] == found[1]
    assert "RL" in seen[-1].flags, "Envoy sets no flag here"


# -- shares and copies -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "share", "spread"),
    [
        ("/w/quarter", 0.25, 0.1),
        ("/w/all", 0.0, 0.0),
        ("/w/none", 1.0, 0.0),
        ("/w/odd", 1 / 3, 0.11),
    ],
)
def test_both_share_out_alike(proxies: Pair, path: str, share: float, spread: float) -> None:
    """300 requests; `spread` is four standard deviations of what chance makes of them."""
    requests = 300 if spread else 30
    for port in proxies.ports:
        names = [proxies.ask(port, "GET", f"{path}/x").name for _ in range(requests)]
        went = [sum(len(proxies.at(index, name)) for name in names) for index in (0, 1)]
        assert sum(went) == requests
        assert abs(went[1] / requests - share) <= spread


def test_both_copy_requests_to_a_mirror(proxies: Pair) -> None:
    for port in proxies.ports:
        seen = proxies.ask(port, "POST", "/mirrored/x", body=b"claim")
        assert seen.status == 200
        assert len(proxies.at(0, seen.name)) == 1
        mirror = proxies.upstreams[1]
        mirror.wait(lambda: proxies.at(1, seen.name), "the copy")  # noqa: B023 - asked at once
        (copy,) = proxies.at(1, seen.name)
        assert (copy.method, copy.target) == ("POST", "/mirrored/x")
        assert copy.header("host") == "mesh.test-shadow"
