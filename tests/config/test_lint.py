from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.lint import _covers, _unreachable_routes
from hms_addons.config.load import load
from hms_addons.config.problems import Place, Report
from hms_addons.config.route_table import RouteTable
from tests.config.test_route_table import fields, paths, route, route_matches
from tests.fakes.configs import warnings_of
from tests.fakes.exchange import make_listener


def routes_warned_of(*matches: str, second: str = "a") -> list[str]:
    """Warnings about routes with these matches: all lead to cluster a, the last to `second`."""
    lines = ["listeners:", "- name: out", "  port: 1", "  routes:"]
    for n, match in enumerate(matches):
        cluster = second if n == len(matches) - 1 else "a"
        lines.append(f"  - {{name: r{n}, match: {{{match}}}, action: {{cluster: {cluster}}}}}")
    lines.append("clusters: [{name: a, endpoints: ['h:1']}, {name: b, endpoints: ['h:1']}]")
    found = warnings_of("\n".join(lines))
    return [line.partition("warning: ")[2] for line in found if "routes[" in line]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("", "prefix: /a"),
        ("prefix: /", "path: /a"),
        ("prefix: /a", "prefix: /a"),
        ("prefix: /a", "prefix: /a/b"),
        ("prefix: /a", "path: /a/b/c"),
        ("prefix: /a", "path: /a"),
        ("path: /a", "path: /a, methods: [GET]"),
        ("regex: /a.*", "regex: /a.*"),
        ("prefix: /a, methods: [GET, PUT]", "prefix: /a, methods: [GET]"),
        ("host: '*.b'", "hosts: [a.b, '*.a.b']"),
        ("headers: {x: {present: true}}", "headers: {X: '1'}"),
        ("headers: {x: {regex: '[0-9]+'}}", "headers: {x: '1'}, query: {q: a}"),
    ],
)
def test_a_route_that_an_earlier_one_hides(earlier: str, later: str) -> None:
    assert routes_warned_of(earlier, later) == [
        "listeners[0].routes[1]: never reached: the earlier route r0 matches all that this one could"
    ]


def test_a_route_behind_one_that_answers_by_itself_is_not_even_reached_by_naming_its_service() -> (
    None
):
    found = warnings_of(
        """
        listeners:
          - name: l
            port: 1
            routes:
              - {match: {prefix: /a}, action: {redirect: {}}}
              - {match: {prefix: /a/b}, action: {cluster: c}}
        clusters: [{name: c, endpoints: ["h:1"]}]
        """
    )
    assert [text for text in found if "never reached" in text]


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("prefix: /a", "prefix: /ab"),
        ("prefix: /a/b", "prefix: /a"),
        ("path: /a", "prefix: /a"),
        ("path: /a", "path: /a/"),
        ("regex: /a.*", "path: /ab"),
        ("prefix: /a, methods: [GET]", "prefix: /a"),
        ("host: a.b", "host: '*.b'"),
        ("host: '*.b'", "host: b"),
        ("host: a", ""),
        ("headers: {x: '1'}", "headers: {x: {present: true}}"),
        ("headers: {x: '1'}", "headers: {y: '1'}"),
        ("headers: {x: {present: false}}", "headers: {x: '1'}"),
        ("query: {x: '1'}", "headers: {x: '1'}"),
    ],
)
def test_a_route_that_can_be_reached(earlier: str, later: str) -> None:
    assert not routes_warned_of(earlier, later)


def test_a_hidden_route_to_another_service_is_reached_by_naming_it() -> None:
    assert routes_warned_of("prefix: /", "prefix: /a", second="b") == [
        (
            "listeners[0].routes[1]: reached only by naming b.svc: the earlier route r0 matches all "
            "that this one could"
        )
    ]


@given(st.lists(route_matches(), min_size=2, max_size=6), paths, st.sampled_from(["", "q"]), fields)
def test_a_route_that_is_warned_of_is_never_taken(
    matches: list[object], path: str, query: str, head: dict[bytes, bytes]
) -> None:
    table = RouteTable((match, route(str(n))) for n, match in enumerate(matches))  # type: ignore[misc]
    report = Report(lambda _path, _key: Place("f", 1, 1))
    _unreachable_routes(make_listener(routes=table), (), report)
    warned = {problem.path for problem in report.problems}
    found = table.match(path, query, "GET", head)
    assert found is None or f"routes[{found.name}]" not in warned


@given(route_matches())
def test_every_route_covers_itself(match: object) -> None:
    assert _covers(match, match)  # type: ignore[arg-type]


SECRET = "secrets: {s: {certificate: /nope/c, key: /nope/k, bundle: /nope/b}}\n"
LISTENER = "listeners: [{name: out, port: 1, routes: [{action: {cluster: a}}]}]\n"


@pytest.mark.parametrize(
    ("text", "warning"),
    [
        ("", "there are no listeners: this sidecar would take no requests"),
        (
            f"{LISTENER}clusters: [{{name: a}}]",
            (
                "clusters[0].name: a has no endpoints: requests to it are answered with 503; add "
                "`endpoints:` or `dns:`"
            ),
        ),
        (
            f"{LISTENER}clusters: [{{name: a}}, {{name: b}}]",
            "clusters[1].name: unused: no route leads to b, nothing but requests that name b.svc",
        ),
        (
            "clusters: [{name: b}]",
            "clusters[0].name: unused: no route leads to b, nothing",
        ),
        (
            f"{LISTENER}clusters: [{{name: a}}, {{name: a-v2, trafficPolicy: weight=0}}]",
            "clusters[1].trafficPolicy: weight 0: a-v2 gets nothing but what names it",
        ),
        (
            (
                "listeners: [{name: out, port: 1, routes: [{action: {clusters: [{name: a, weight: 1},"
                " {name: a-v2, weight: 0}]}}]}]\nclusters: [{name: a}, {name: a-v2}]"
            ),
            (
                "listeners[0].routes[0].action.clusters[1].weight: weight 0: a-v2 gets nothing from "
                "this route"
            ),
        ),
        (
            f"{SECRET}clusters: [{{name: a, tls_context: {{sds: s}}}}, {{name: b}}]",
            "clusters[1].name: b is called in plain text, though others have TLS; add `tls_context:`",
        ),
        (
            f"{SECRET}listeners: [{{name: p, port: 1, direction: inbound, app: 'h:1'}}]",
            (
                "listeners[0].name: takes plain text from anyone, though the mesh has certificates; "
                "add tls: strict"
            ),
        ),
        (
            (
                "listeners: [{name: out, port: 1, routes: [{action: {cluster: a, timeout: 1s, retries:"
                " {attempts: 1, per_try_timeout: 2s}}}]}]\nclusters: [{name: a}]"
            ),
            (
                "listeners[0].routes[0].action.retries.per_try_timeout: not shorter than the route's "
                "timeout of 1s, which includes it"
            ),
        ),
        (SECRET, "secrets.s.bundle: there is no file /nope/b"),
        (
            "rbac: {providers: [{name: p, jwks_file: /nope/j}]}",
            "rbac.providers[0].jwks_file: there is no file /nope/j",
        ),
        (
            "rbac: {providers: [{name: p, jwks_uri: 'https://id/', jwks_ca_file: /nope/c}]}",
            "rbac.providers[0].jwks_ca_file: there is no file /nope/c",
        ),
        (
            "clusters: [{name: auth}]\nrbac: {policies: [{name: p, action: DENY, services: [auht]}]}",
            (
                "rbac.policies[0].services[0]: no route here leads to the service auht, so this never "
                "applies (did you mean auth?)"
            ),
        ),
        (
            "rbac: {policies: [{name: p, action: DENY, roles: [r]}]}",
            "rbac.policies[0].name: needs a token, but there are no providers to verify one",
        ),
        (
            (
                "rbac: {providers: [{name: p, hs256_secret_env: S}],"
                " policies: [{name: p, action: DENY, methods: [GET]}]}"
            ),
            (
                "rbac.providers: no policy asks for a role or a subject: tokens are verified and "
                "passed on as headers only"
            ),
        ),
    ],
)
def test_warnings(text: str, warning: str) -> None:
    found = [line.partition("warning: ")[2] for line in warnings_of(text)]
    assert warning in found


def test_nothing_is_said_of_what_is_well() -> None:
    assert not warnings_of(f"{LISTENER}clusters: [{{name: a, endpoints: ['h:1']}}]")


def test_plain_text_on_a_loopback_address_comes_from_this_machine_alone() -> None:
    text = f"{SECRET}listeners: [{{name: p, port: 1, host: {{}}, direction: inbound, app: 'h:1'}}]"
    for host, warned in (("127.0.0.1", False), ("10.0.0.1", True)):
        told = "\n".join(warnings_of(text.replace("{}", host)))
        assert ("takes plain text" in told) is warned


def test_what_a_control_plane_adds_is_not_missed() -> None:
    text = b"clusters: [{name: a}]"
    assert load([("a.yaml", text)], control=True).problems == ()
    assert len(load([("a.yaml", text)]).problems) == 3


def test_secrets_are_left_out_of_a_pushed_configuration() -> None:
    text = b"secrets: {s: {certificate: /dev/null, key: /dev/null, bundle: /dev/null}}"
    (warning,) = load([("a.yaml", text)], control=True).problems
    assert str(warning) == (
        "a.yaml:1:1: warning: secrets: left out of what sidecars get: the control plane provides "
        "their certificates"
    )
    assert not load([("a.yaml", text)], control=True, service="x").problems, "a sidecar's own file"
