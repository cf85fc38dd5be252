from __future__ import annotations

import pytest

from tests.fakes.configs import errors_of, snapshot_of


def action_errors(action: str, match: str = "{prefix: /a}", more: str = "") -> list[str]:
    """Errors of one action written on one line, without their place."""
    found = errors_of(
        f"""
        listeners:
        - {{name: l, port: 1, routes: [{{match: {match}, action: {action}}}]}}
        clusters: [{{name: c}}]
        {more}
        """
    )
    return [error.partition("routes[0].action")[2] for error in found]


CONTRADICTIONS = [
    (
        "{cluster: c, redirect: {}}",
        ".cluster: a redirect is answered here and sent nowhere, so this",
    ),
    (
        "{direct_response: {status: 200}, retries: 2}",
        ".retries: a direct_response is answered here and sent nowhere, so this",
    ),
    (
        "{direct_response: {status: 200}, timeout: 2s}",
        ".timeout: a direct_response is answered here and sent nowhere, so this",
    ),
    (
        "{redirect: {}, direct_response: {status: 200}}",
        ".direct_response: give redirect or direct_response, not both",
    ),
    ("{redirect: {}, rewrite: {path: /x}}", ".rewrite: a redirect is answered here"),
    (
        "{cluster: c, rewrite: {path: /x, prefix: /y}}",
        ".rewrite.path: give prefix or path, not both",
    ),
    ("{cluster: c, rewrite: {}}", ".rewrite: nothing is rewritten; give prefix, path or host"),
    ("{redirect: {path: /x, prefix: /y}}", ".redirect.prefix: give prefix or path, not both"),
    ("{redirect: {status: 200}}", ".redirect.status: expected"),
    ("{redirect: {host: '*.x.org'}}", ".redirect.host: a redirect leads to one host"),
    ("{redirect: {port: 0}}", ".redirect.port: must be at least 1, not 0"),
    ("{direct_response: {}}", ".direct_response: the key 'status' is missing"),
    ("{direct_response: {status: 101}}", ".direct_response.status: must be at least 200, not 101"),
    (
        "{direct_response: {status: 204, body: x}}",
        ".direct_response.body: an answer with 204 has no body",
    ),
    ("{cluster: c, fault: {}}", ".fault: nothing is injected; give delay, abort, or both"),
    ("{cluster: c, fault: {abort: 199}}", ".fault.abort.status: must be at least 200, not 199"),
    ("{cluster: c, fault: {abort: 600}}", ".fault.abort.status: must be at most 599, not 600"),
    (
        "{cluster: c, fault: {abort: 205}}",
        ".fault.abort.status: an abort says in its body why, and an answer with 205 has none",
    ),
    ("{cluster: c, fault: {abort: often}}", ".fault.abort: expected a status, or a mapping"),
    ("{cluster: c, fault: {delay: 5}}", ".fault.delay: a duration needs a unit"),
    (
        "{cluster: c, fault: {abort: 503, percent: 101}}",
        ".fault.percent: must be at most 100, not 101",
    ),
    (
        "{cluster: c, fault: {abort: 503, percent: -1}}",
        ".fault.percent: must be at least 0, not -1",
    ),
    (
        "{cluster: c, fault: {abort: {status: 503, percent: 5}, percent: 10}}",
        ".fault.percent: delay and abort each have a percent of their own",
    ),
    (
        "{cluster: c, fault: {abort: 503, when: {headers: {a: b}}}}",
        ".fault.when.headers: unknown key 'headers' (did you mean header?)",
    ),
    (
        "{cluster: c, rate_limit: {requests: 0, per: 1s}}",
        ".rate_limit",
    ),
    ("{cluster: c, rate_limit: {requests: 1, per: 0s}}", ".rate_limit"),
    ("{cluster: c, rate_limit: {requests: 1, per: 1s, burst: 0}}", ".rate_limit"),
    ("{cluster: c, rate_limit: {requests: 1, per: 1s, by: path}}", ".rate_limit"),
    ("{cluster: c, rate_limit: {requests: 1, per: 1s, by: 'header:'}}", ".rate_limit"),
    ("{cluster: c, rate_limit: []}", ".rate_limit: must not be empty"),
    ("{cluster: c, request_headers: {}}", ".request_headers: nothing is edited"),
    (
        "{cluster: c, request_headers: {set: {Host: x}}}",
        ".request_headers.set.Host: Host says whom the request is for: use `rewrite: {host: …}`",
    ),
    (
        "{cluster: c, request_headers: {remove: [Content-Length]}}",
        ".request_headers.remove[0]: Content-Length frames the message",
    ),
    (
        '{cluster: c, response_headers: {set: {X-A: "a\\nX-B: b"}}}',
        ".response_headers.set.X-A: a value is one line",
    ),
    (
        "{cluster: c, response_headers: {set: {X-A: a}, remove: [x-a]}}",
        ".response_headers.remove[0]: x-a is here under set, too; say once",
    ),
    (
        "{cluster: c, response_headers: {add: {X-A: []}}}",
        ".response_headers.add.X-A: must not be empty",
    ),
    (
        "{cluster: c, request_headers: {set: {X-Caller-Role: GENERAL}}}",
        ".request_headers.set.X-Caller-Role: X-Caller-Role is one of the headers that only the mesh",
    ),
    (
        "{cluster: c, request_headers: {remove: [x_policy_version]}}",
        ".request_headers.remove[0]: x_policy_version is one of the headers that only the mesh",
    ),
    (
        "{direct_response: {status: 200, headers: {X-Policy-Version: '1'}}}",
        ".direct_response.headers.X-Policy-Version: X-Policy-Version is one of",
    ),
    (
        "{cluster: c, rate_limit: {requests: 1, per: 1s, by: 'header:X-Caller-Role'}}",
        ".rate_limit",
    ),
    (
        "{clusters: [{name: c, request_headers: {set: {X-Caller-Role: A}}}]}",
        ".clusters[0].request_headers.set.X-Caller-Role: X-Caller-Role is one of",
    ),
    ("{cluster: c, rewrite: {path: x}}", ".rewrite.path: a path begins with '/'"),
    ("{cluster: c, rewrite: {host: 'http://x'}}", ".rewrite.host: expected host:port"),
    ("{cluster: c, rewrite: {host: 'x y'}}", ".rewrite.host: expected host:port"),
]


@pytest.mark.parametrize(("action", "error"), CONTRADICTIONS, ids=range(len(CONTRADICTIONS)))
def test_contradictions_are_refused_with_the_place_and_the_reason(action: str, error: str) -> None:
    found = action_errors(action)
    assert len(found) == 1, found
    assert found[0].startswith(error), found


@pytest.mark.parametrize("match", ["{path: /a}", "{regex: /a}"])
def test_a_prefix_is_replaced_only_where_one_is_matched(match: str) -> None:
    (error,) = action_errors("{cluster: c, rewrite: {prefix: /b}}", match)
    assert error.startswith(".rewrite.prefix: replaces the prefix that `match.prefix` names")
    (error,) = action_errors("{redirect: {prefix: /b}}", match)
    assert error.startswith(".redirect.prefix: replaces the prefix")
    assert action_errors("{cluster: c, rewrite: {path: /b}}", match) == []


def test_a_direct_response_is_not_too_long() -> None:
    (error,) = action_errors(f"{{direct_response: {{status: 200, body: {'x' * 70_000}}}}}")
    assert "more than 65536" in error


def test_the_mesh_s_headers_are_those_of_the_configuration() -> None:
    rule = "{cluster: c, request_headers: {set: {X-Rank: A}}}"
    assert action_errors(rule) == []
    (error,) = action_errors(rule, more="headers: {role: X-Rank}")
    assert "only the mesh may set" in error


def test_a_listener_has_rules_of_its_own_with_the_same_checks() -> None:
    (error,) = errors_of(
        "listeners: [{name: l, port: 1, request_headers: {set: {X-Caller-Role: a}}}]"
    )
    assert "only the mesh may set" in error
    (error,) = errors_of("listeners: [{name: l, port: 1, rate_limit: {requests: 0, per: 1s}}]")
    assert "must be at least 1" in error


def test_short_forms_are_the_long_ones() -> None:
    def shaping(action: str) -> object:
        snapshot = snapshot_of(
            f"""
            listeners: [{{name: l, port: 1, routes: [{{action: {action}}}]}}]
            clusters: [{{name: c}}]
            """
        )
        (route,) = snapshot.listeners[0].routes
        return route.shaping

    assert shaping("{cluster: c, fault: {delay: 1s, abort: 503, percent: 10}}") == shaping(
        "{cluster: c, fault: {delay: {duration: 1s, percent: 10}, abort: {status: 503, percent: 10}}}"
    )
    assert shaping("{cluster: c, rate_limit: {requests: 1, per: 60s}}") == shaping(
        "{cluster: c, rate_limit: [{requests: 1, per: 1m, burst: 1, by: route}]}"
    )
    assert shaping("{cluster: c, request_headers: {add: {A: b}}}") == shaping(
        "{cluster: c, request_headers: {add: {A: [b]}}}"
    )
