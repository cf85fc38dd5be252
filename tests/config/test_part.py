from __future__ import annotations

import pytest

from hms_addons.config.part import ANY, Part
from tests.fakes.configs import errors_of, load_texts

WRITTEN = {
    "clusters": [{"name": "a", "dns": 5}, {"name": "b"}, {"nmae": "c"}],
    "listeners": [{"name": "out", "port": "x"}],
}


def test_what_is_cut_is_gone_and_unknown() -> None:
    part = Part(WRITTEN)
    assert part.known(("clusters",))
    part.cut(("clusters", 0, "dns"))
    part.cut(("clusters", 1))
    assert part.good()["clusters"] == [{"name": "a"}, {"nmae": "c"}]
    assert not part.known(("clusters", 0, "dns"))
    assert not part.known(("clusters", 0)), "something below it is"
    assert not part.known(("clusters", 1, "name")), "all of it is"
    assert not part.known(("clusters", ANY, "dns"))
    assert part.known(("clusters", 0, "name"))
    assert part.known(("listeners", ANY, "port"))
    assert part.original(("clusters", 1, "nmae")) == ("clusters", 2, "nmae")
    assert "changes=2 unknown=2 whole=True" in repr(part)


def test_a_misspelt_key_is_read_as_the_one_that_was_meant() -> None:
    part = Part(WRITTEN)
    assert part.rename(("clusters", 2, "nmae"), "name")
    assert not part.rename(("clusters", 2, "nam"), "name"), "it is taken"
    assert part.good()["clusters"][2] == part.corrected()["clusters"][2] == {"name": "c"}
    assert part.original(("clusters", 2, "name")) == ("clusters", 2, "nmae")
    assert part.is_renamed(("clusters", 2, "nmae"))
    assert part.is_meant(("clusters", 2, "name"))
    assert part.known(("clusters", 2, "name"))


def test_what_is_needed_is_filled_in() -> None:
    part = Part(WRITTEN)
    port = ("listeners", 0, "port")
    part.cut(port)
    part.fill(port, port)
    assert part.good()["listeners"] == [{"name": "out", "port": 0}]
    assert part.corrected()["listeners"] == WRITTEN["listeners"]
    assert not part.known(port)


def test_what_cannot_be_filled_in_is_cut_with_what_needs_it() -> None:
    part = Part({"secrets": {"s": {"key": "k"}}})
    path = ("secrets", "s", "bundle")
    part.fill(path, path)
    assert part.good() == {"secrets": {}}


def test_a_cut_in_a_short_form_takes_the_short_form() -> None:
    part = Part({"clusters": [{"name": "a", "dns": "h"}]})
    part.cut(("clusters", 0, "dns", 0, "address"))
    assert part.good() == {"clusters": [{"name": "a"}]}


ROUTE = "routes: [{action: {cluster: a}}]"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        # The direction was misspelt: that an outbound listener has no app does not follow.
        (
            f"listeners: [{{name: i, port: 1, direction: inbond, app: 'h:1', {ROUTE}}}]",
            ["listeners[0].direction"],
        ),
        (
            f"listeners: [{{name: i, port: 1, direcction: inbound, app: 'h:1', {ROUTE}}}]",
            ["listeners[0].direcction"],
        ),
        # One cause, one message: direction: inbound is missing.
        ("listeners: [{name: i, port: 1, tls: strict, app: 'h:1'}]", ["listeners[0].app"]),
        # The port is not known, so it is not taken either.
        (
            "listeners: [{name: i, port: x, host: 127.0.0.1}, {name: j, port: 1}]",
            ["listeners[0].port"],
        ),
        # The base may be the cluster whose service is not understood.
        (
            "clusters: [{name: b-v2, trafficPolicy: weight=1}, {name: x, service: 'b b'}]",
            ["clusters[1].service"],
        ),
        # The name is there, misspelt.
        (f"listeners: [{{name: i, port: 1, {ROUTE}}}]\nclusters: [{{nmae: a}}]", ["clusters[0].nmae"]),
        ("listeners: [{name: i, port: 1, routes: [{action: {cluster: 5}}]}]", ["listeners[0].routes[0].action.cluster"]),
        ("rbac: {providers: [{name: p, jwks_file: 5, algorithms: [HS256]}]}", ["rbac.providers[0].jwks_file"]),
    ],
)  # fmt: skip
def test_what_only_follows_from_an_error_is_not_told(text: str, found: list[str]) -> None:
    clusters = "" if "clusters:" in text else "\nclusters: [{name: a}]"
    assert [error.split(": ")[1] for error in errors_of(text + clusters)] == found


@pytest.mark.parametrize(
    "text",
    [
        "listeners: [{name: o, port: 1, routes: [{action: {cluster: [a]}}]}]\nclusters: [{name: a, endpoints: ['h:1']}]",
        "listeners: [{name: o, port: 1, routes: [{action: {cluster: aut}}]}]\nclusters: [{name: auth, endpoints: ['h:1']}]",
        "listeners: [{name: o, port: 1, routes: [{action: {cluster: a}}]}]\nclusters: [{name: a, endpoints: 5}]",
        "rbac: {policies: [{name: p, action: DENY, roles: [x]}], providers: 5}\nlisteners: [{name: o, port: 1}]",
    ],
)
def test_no_warning_follows_from_an_error(text: str) -> None:
    problems = load_texts(text).problems
    assert [problem.severity for problem in problems] == ["error"], "\n".join(map(str, problems))
