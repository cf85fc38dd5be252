from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.header_edits import HeaderEdits
from hms_addons.config.local_answers import DirectResponse, Redirect
from hms_addons.config.path_rewrite import PathRewrite, Rewrite
from hms_addons.config.shaping import Fault, LimitBy, RateLimit, Shaping
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Route


def route_of(
    action: str, match: str = "{prefix: /a/}", listener: str = "", direction: str = "outbound"
) -> Route:
    snapshot = snapshot_of(
        f"""
        service: own
        listeners:
        - {{name: l, port: 1, direction: {direction}, routes: [{{match: {match}, action: {action}}}] {listener}}}
        clusters: [{{name: c}}, {{name: c-v2}}]
        """
    )
    return next(iter(snapshot.listeners[0].routes))


def shaping_of(action: str, match: str = "{prefix: /a/}", listener: str = "") -> Shaping:
    shaping = route_of(action, match, listener).shaping
    assert shaping is not None
    return shaping


def test_a_route_that_shapes_nothing_has_none() -> None:
    assert route_of("{cluster: c}").shaping is None


def test_limits_are_named_after_their_numbers_and_the_route_s_come_first() -> None:
    shaping = shaping_of(
        "{cluster: c, rate_limit: [{requests: 100, per: 1s, burst: 20},"
        " {requests: 9, per: 24h, by: subject}, {requests: 9, per: 24h, by: subject},"
        " {name: keys, requests: 1, per: 250ms, by: 'header:X-Key'}]}",
        listener=", rate_limit: {requests: 5, per: 1s, by: caller}",
    )
    where = "listener l, route prefix:/a"
    assert [(limit.name, limit.place) for limit in shaping.rate_limits] == [
        ("100-per-1s-by-route", where + "/"),
        ("9-per-86400s-by-subject", where + "/"),
        ("9-per-86400s-by-subject-3", where + "/"),
        ("keys", where + "/"),
        ("5-per-1s-by-caller", "listener l"),
    ]
    first, second, _, keys, _ = shaping.rate_limits
    assert (first.burst, second.burst, second.per) == (20, 9, 86400.0)
    assert (keys.by, keys.header) == (LimitBy.HEADER, b"x-key")


def test_a_fault_s_percent_is_for_both_unless_they_say() -> None:
    assert shaping_of(
        "{cluster: c, fault: {delay: 100ms, abort: 503, percent: 10}}"
    ).fault == Fault(delay=0.1, delay_percent=10, abort=503, abort_percent=10)
    fault = shaping_of(
        "{cluster: c, fault: {delay: {duration: 1s, percent: 2.5}, abort: 503,"
        " when: {header: {X-Fault: 'yes'}}, max_active: 3}}"
    ).fault
    assert fault is not None
    assert (fault.delay_percent, fault.abort_percent, fault.max_active) == (2.5, 100.0, 3)
    assert [str(condition) for condition in fault.when] == ["x-fault = 'yes'"]


def test_header_rules_are_bytes_the_cluster_s_apart_and_the_listener_s_last() -> None:
    shaping = shaping_of(
        "{clusters: [{name: c, request_headers: {set: {B: c}}}, {name: c-v2}],"
        " request_headers: {set: {A: é}, add: {L: [x, y]}, remove: [R]}}",
        listener=", request_headers: {remove: [Z]}, response_headers: {set: {S: v}}",
    )
    assert shaping.request_headers == (
        HeaderEdits(set=((b"A", b"\xe9"),), add=((b"L", b"x"), (b"L", b"y")), remove=(b"R",)),
        HeaderEdits(remove=(b"Z",)),
    )
    assert shaping.response_headers == (HeaderEdits(set=((b"S", b"v"),)),)
    assert list(shaping.by_cluster) == ["c"]
    assert shaping.by_cluster["c"].request == HeaderEdits(set=((b"B", b"c"),))
    assert shaping.by_cluster["c"].response is None


def test_a_rewrite_knows_the_prefix_that_it_replaces() -> None:
    assert shaping_of("{cluster: c, rewrite: {prefix: /x/, host: 'h:1'}}").rewrite == Rewrite(
        path=PathRewrite(matched="/a", replacement="/x"), host=b"h:1"
    )
    assert shaping_of("{cluster: c, rewrite: {prefix: /x}}", "{}").rewrite == Rewrite(
        path=PathRewrite(matched="", replacement="/x")
    )
    assert shaping_of("{cluster: c, rewrite: {path: /x/}}", "{regex: /a}").rewrite == Rewrite(
        path=PathRewrite(replacement="/x/")
    )


def test_a_redirect_is_302_unless_it_says() -> None:
    assert shaping_of("{redirect: {}}").answer == Redirect()
    assert shaping_of("{redirect: {scheme: https, status: 308, prefix: /}}").answer == Redirect(
        status=308, scheme="https", path=PathRewrite(matched="/a", replacement="")
    )


def test_a_direct_response_with_a_body_has_a_type() -> None:
    assert shaping_of("{direct_response: {status: 503, body: ž}}").answer == DirectResponse(
        status=503,
        body="ž".encode(),
        headers=((b"Content-Type", b"text/plain; charset=utf-8"),),
    )
    own = shaping_of("{direct_response: {status: 200, body: '{}', headers: {content-type: a/b}}}")
    assert own.answer == DirectResponse(
        status=200, body=b"{}", headers=((b"content-type", b"a/b"),)
    )
    assert shaping_of("{direct_response: {status: 404}}").answer == DirectResponse(status=404)


def test_a_route_that_answers_leads_to_no_service_or_to_the_own_one() -> None:
    outbound = route_of("{redirect: {}}")
    assert (outbound.clusters, outbound.service, outbound.answers) == ((), "", True)
    inbound = route_of("{redirect: {}}", direction="inbound")
    assert (inbound.clusters, inbound.service) == ((), "own")


def test_routes_that_nobody_has_written_have_their_listener_s_rules() -> None:
    snapshot = snapshot_of(
        """
        service: own
        listeners:
          - {name: out, port: 1, rate_limit: {requests: 1, per: 1s}}
          - {name: in, port: 2, direction: inbound, app: "127.0.0.1:9", response_headers: {remove: [Server]}}
        clusters: [{name: c}]
        """
    )
    outbound, inbound = snapshot.listeners
    (named,) = outbound.services["c"]
    (app,) = inbound.routes
    limit = RateLimit(name="1-per-1s-by-route", place="listener out", requests=1, per=1.0, burst=1)
    assert named.shaping == Shaping(rate_limits=(limit,))
    assert app.shaping == Shaping(response_headers=(HeaderEdits(remove=(b"Server",)),))
