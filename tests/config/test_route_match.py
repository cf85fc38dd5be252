from __future__ import annotations

import re

import pytest

from hms_addons.config.route_match import (
    RouteMatch,
    ValueMatch,
    covers_host,
    host_of,
    parse_query,
)


def matches(match: RouteMatch, target: str = "/", method: str = "GET", **fields: str) -> bool:
    path, _, query = target.partition("?")
    head = {name.replace("_", "-").encode(): value.encode() for name, value in fields.items()}
    found = match.matches(path, query, method, head)
    assert (match.why_not(path, query, method, head) is None) is found
    return found


def test_a_prefix_is_of_whole_segments() -> None:
    match = RouteMatch(prefix="/verify-id")
    assert matches(match, "/verify-id")
    assert matches(match, "/verify-id/")
    assert matches(match, "/verify-id/x/y")
    assert matches(match, "/verify-id?x=1")
    assert not matches(match, "/verify-identity")
    assert not matches(match, "/verify")
    assert not matches(match, "/x/verify-id")


def test_a_regex_is_for_the_whole_path() -> None:
    match = RouteMatch(regex=re.compile("/v[12]/.*"))
    assert matches(match, "/v1/x")
    assert not matches(match, "/v3/x")
    assert not matches(match, "/x/v1/x")


def test_an_exact_path_is_nothing_else() -> None:
    match = RouteMatch(exact="/a")
    assert matches(match, "/a")
    assert not matches(match, "/a/")
    assert not matches(match, "/A")


@pytest.mark.parametrize(
    ("pattern", "host", "covered"),
    [
        ("a.b", "a.b", True),
        ("a.b", "x.a.b", False),
        ("*.b", "a.b", True),
        ("*.b", "x.a.b", True),
        ("*.b", "b", False),
        ("*.b", ".b", False),
        ("*.b", "ab", False),
        ("*", "anything", True),
    ],
)
def test_covers_host(pattern: str, host: str, covered: bool) -> None:
    assert covers_host(pattern, host) is covered


@pytest.mark.parametrize(
    ("field", "host"),
    [
        (b"Example.ORG", "example.org"),
        (b"a:80", "a"),
        (b"a.", "a"),
        (b"[::1]:80", "[::1]"),
        (b"", ""),
    ],
)
def test_host_of(field: bytes, host: str) -> None:
    assert host_of({b"host": field}) == host
    assert not host_of({})


def test_hosts_methods_headers_and_query_must_all_hold() -> None:
    match = RouteMatch(
        hosts=("api.example.org", "*.svc"),
        methods=frozenset({"GET", "HEAD"}),
        headers=(ValueMatch(name="x-channel", exact="portal"),),
        query=(ValueMatch(name="dry", present=True),),
    )
    good = {"host": "api.example.org:80", "x_channel": "portal"}
    assert matches(match, "/?dry", **good)
    assert matches(match, "/?dry=1", "HEAD", host="a.svc", x_channel="portal")
    assert not matches(match, "/?dry", "POST", **good)
    assert not matches(match, "/?dry", "get", **good)
    assert not matches(match, "/", **good)
    assert not matches(match, "/?dry", host="example.org", x_channel="portal")
    assert not matches(match, "/?dry", host="api.example.org", x_channel="Portal")
    assert not matches(match, "/?dry", host="api.example.org")


def test_kinds_of_value_conditions() -> None:
    regex = ValueMatch(name="v", regex=re.compile("[0-9]+"))
    assert regex.accepts(["x", "12"])
    assert not regex.accepts(["12x"])
    assert not regex.accepts([])
    absent = ValueMatch(name="v", present=False)
    assert absent.accepts([])
    assert not absent.accepts([""])
    assert ValueMatch(name="v", present=True).accepts([""])
    assert [str(regex), str(absent)] == ["v ~ '[0-9]+'", "v absent"]


def test_query_values_are_decoded() -> None:
    assert parse_query("a=1&a=%20x&b&c=+") == {"a": ["1", " x"], "b": [""], "c": [" "]}
    match = RouteMatch(query=(ValueMatch(name="naïve", exact="é"),))
    assert matches(match, "/?na%C3%AFve=%C3%A9")


@pytest.mark.parametrize(
    ("match", "target", "reason"),
    [
        (RouteMatch(prefix="/a"), "/ab", "whole segments"),
        (RouteMatch(exact="/a"), "/a/", "slash at the end"),
        (RouteMatch(regex=re.compile("/x")), "/y", "matched by the regex /x"),
        (RouteMatch(hosts=("a", "b")), "/", r"the host \(none\) is not a or b"),
        (RouteMatch(methods=frozenset({"PUT", "POST"})), "/", "GET is not POST or PUT"),
        (RouteMatch(headers=(ValueMatch(name="x", exact="1"),)), "/", "x = '1'; it is absent"),
        (RouteMatch(query=(ValueMatch(name="x", exact="1"),)), "/?x=2", "x = '1'; it is '2'"),
    ],
)
def test_why_not(match: RouteMatch, target: str, reason: str) -> None:
    path, _, query = target.partition("?")
    assert re.search(reason, match.why_not(path, query, "GET", {}) or "")
