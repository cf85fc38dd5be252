"""Transparent and DNS listeners, compiled."""

from __future__ import annotations

from hms_addons.config.compile_interception import default_dns
from hms_addons.config.snapshot_interception import MESH_ADDRESS, ORIGINAL_DESTINATION
from tests.fakes.configs import snapshot_of
from tests.fakes.intercepted import transparent

MESH = """\
listeners:
  - name: out
    port: 1
    routes:
      - {match: {hosts: [API.Partner.example, "*.Shop.example", auth-svc.svc]}, action: {cluster: auth-svc}}
  - {name: in, port: 2, direction: inbound, app: "http://127.0.0.1:1",
     routes: [{match: {host: mine.example}, action: {}}]}
clusters: [{name: auth-svc}, {name: Pay}, {name: auth-svc-v2, trafficPolicy: weight=1}]
"""


def test_only_routes_that_name_a_host_count_for_intercepted_calls() -> None:
    (listener,) = transparent().listeners
    assert listener.intercept is not None
    assert [route.name for route in listener.intercept.routes] == ["named"]
    assert [route.name for route in listener.routes] == ["any", "named"]


def test_refused_unless_it_is_asked_for() -> None:
    snapshot = transparent()
    assert snapshot.listeners[0].intercept is not None
    assert snapshot.listeners[0].intercept.passthrough is None
    assert "original:caught" not in snapshot.clusters


def test_what_passes_through_goes_to_a_cluster_of_its_own() -> None:
    snapshot = transparent("original")
    intercept = snapshot.listeners[0].intercept
    assert intercept is not None
    route = intercept.passthrough
    assert route is not None
    assert (route.service, route.timeout, route.retry.attempts) == ("", None, 0)
    cluster = snapshot.clusters[route.clusters[0].cluster]
    assert cluster.load_balancer == ORIGINAL_DESTINATION
    assert (cluster.endpoints, cluster.outlier_detection, cluster.tls) == ((), None, None)


def test_an_ordinary_listener_intercepts_nothing() -> None:
    snapshot = snapshot_of(MESH)
    assert [item.intercept for item in snapshot.listeners] == [None, None]
    assert snapshot.dns == ()


def test_dns_knows_the_services_and_the_hosts_of_outbound_routes() -> None:
    snapshot = snapshot_of(MESH, "listeners: [{name: names, kind: dns, port: 53}]")
    (dns,) = snapshot.dns
    assert [item.name for item in snapshot.listeners] == ["out", "in"]
    assert dns.services == {"auth-svc", "auth-svc-v2", "pay"}
    assert dns.names == {"api.partner.example"}
    assert dns.suffixes == (".shop.example",)
    assert (dns.host, dns.port, dns.addresses) == ("127.0.0.1", 53, ("127.0.0.1",))
    assert (dns.resolvers, dns.forwards, dns.ttl) == ((), True, 5.0)


def test_dns_as_it_is_written() -> None:
    text = """\
    listeners:
      - name: names
        kind: dns
        port: 53
        host: 0.0.0.0
        unmatched: original
        dns: {addresses: [10.0.0.1, "::1"], names: ["*.Mesh", one.mesh.example],
              resolvers: [192.0.2.1, "192.0.2.2:5300", "2001:db8::1", "[2001:db8::2]:54"], ttl: 1m}
    """
    (dns,) = snapshot_of(text).dns
    assert dns.addresses == ("10.0.0.1", "::1")
    assert dns.names == {"one.mesh.example"}
    assert (dns.suffixes, dns.ttl) == ((".mesh",), 60.0)
    assert dns.resolvers == (
        ("192.0.2.1", 53),
        ("192.0.2.2", 5300),
        ("2001:db8::1", 53),
        ("2001:db8::2", 54),
    )
    refusing = "listeners: [{name: names, unmatched: refuse, kind: dns, port: 53}]"
    assert not snapshot_of(refusing).dns[0].forwards


def test_beside_a_transparent_listener_names_stand_for_what_is_led_there() -> None:
    snapshot = snapshot_of(
        "listeners: [{name: names, kind: dns, port: 53}, {name: c, kind: transparent, port: 1}]"
    )
    assert snapshot.dns[0].addresses == (MESH_ADDRESS,)
    assert default_dns(snapshot.listeners).addresses == (MESH_ADDRESS,)
    assert default_dns(snapshot_of(MESH).listeners).services == {"auth-svc", "auth-svc-v2", "pay"}


def test_a_dns_listener_is_only_its_services_sidecars() -> None:
    text = "listeners: [{name: names, kind: dns, port: 53, services: [a]}, {name: o, port: 1}]"
    assert len(snapshot_of(text, service="a").dns) == 1
    assert snapshot_of(text, service="b").dns == ()
