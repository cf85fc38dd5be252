from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.load import load
from hms_addons.config.snapshot import (
    Direction,
    EndpointSpec,
    Limits,
    OutlierDetection,
    Thresholds,
    TlsMode,
    UpstreamTls,
)
from tests.fakes.configs import errors_of, load_texts, snapshot_of

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Cluster

SECRET = "secrets: {s: {certificate: c.pem, key: k.pem, bundle: b.pem}}\n"


def cluster_of(text: str, prefix: str = "") -> Cluster:
    return snapshot_of(f"{prefix}clusters: [{text}]").clusters["a-svc-v2"]


def test_the_seed_s_file_is_valid_as_it_is(seed: Path) -> None:
    snapshot = load([("routes.yaml", (seed / "routes.yaml").read_bytes())]).snapshot
    assert snapshot is not None
    (listener,) = snapshot.listeners
    assert (listener.host, listener.port, listener.direction) == ("127.0.0.1", 15001, "outbound")
    route = listener.services["auth-svc"].match("/verify-id", "", "GET", {})
    assert route is not None
    assert (route.timeout, route.retry.attempts) == (1.0, 2)
    assert route.thresholds == Thresholds(max_connections=100)
    cluster = snapshot.clusters["auth-svc"]
    assert cluster.connect_timeout == 0.25
    # No secret, no endpoint, but never plain text: TLS stays asked for.
    assert cluster.tls == UpstreamTls(secret="mesh_certs", peers=frozenset({"svc/auth-svc"}))
    assert not cluster.endpoints


def test_a_second_file_makes_the_seed_s_run(seed: Path) -> None:
    overlay = b"""\
trust_domain: mpsa.mil
clusters: [{name: auth-svc, endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"]}]
secrets: {mesh_certs: {certificate: claims.pem, key: claims.key, bundle: /etc/bundle.pem}}
"""
    snapshot = load(
        [("routes.yaml", (seed / "routes.yaml").read_bytes()), ("/srv/mesh/local.yaml", overlay)]
    ).snapshot
    assert snapshot is not None
    cluster = snapshot.clusters["auth-svc"]
    assert [endpoint.address for endpoint in cluster.endpoints] == [
        "127.0.0.1:9001",
        "127.0.0.1:9002",
    ]
    assert cluster.tls is not None
    assert cluster.tls.peers == {"spiffe://mpsa.mil/svc/auth-svc"}
    secret = snapshot.secrets["mesh_certs"]
    assert secret.certificate == "/srv/mesh/claims.pem"
    assert secret.bundle == "/etc/bundle.pem"
    assert snapshot.source == "routes.yaml, /srv/mesh/local.yaml"


def test_relative_paths_are_relative_to_the_file_that_wrote_them() -> None:
    snapshot = load(
        [
            ("/one/a.yaml", b"secrets: {s: {certificate: c, key: ../k, bundle: b}}"),
            ("two/b.yaml", (b"secrets: {s: {bundle: sub/b}}\n"
             b"rbac: {providers: [{name: p, jwks_file: j}, {name: q, issuer: q, public_key_file: /k}]}")),
        ]
    ).snapshot  # fmt: skip
    assert snapshot is not None
    secret = snapshot.secrets["s"]
    here = Path.cwd()
    assert (secret.certificate, secret.key) == ("/one/c", "/k")
    assert secret.bundle == str(here / "two/sub/b")
    first, second = snapshot.rbac.providers
    assert (first.jwks_file, second.public_key_file) == (str(here / "two/j"), "/k")


def test_cluster_defaults() -> None:
    cluster = cluster_of("{name: a-svc-v2}")
    assert cluster.service == "a-svc"
    assert (cluster.connect_timeout, cluster.idle_timeout) == (5.0, 60.0)
    assert (cluster.load_balancer, cluster.thresholds) == ("round_robin", Thresholds())
    assert cluster.outlier_detection == OutlierDetection()
    assert cluster.tls is None


def test_cluster_in_full() -> None:
    cluster = cluster_of(
        "{name: a-svc-v2, service: b, connect_timeout: 1s, idle_timeout: 0, load_balancer: random,"
        " endpoints: ['h:1', {address: '[::1]:2', weight: 3, zone: z, priority: 1}], dns: 'd:3',"
        " circuit_breakers: {max_requests: 7}, outlier_detection: {consecutive_5xx: 2, interval: 1s}}"
    )
    assert cluster.service == "b"
    assert cluster.endpoints == (
        EndpointSpec(host="h", port=1),
        EndpointSpec(host="::1", port=2, weight=3, zone="z", priority=1),
    )
    assert cluster.dns == (EndpointSpec(host="d", port=3),)
    assert cluster.thresholds == Thresholds(max_requests=7)
    assert cluster.outlier_detection == OutlierDetection(consecutive_5xx=2, interval=1.0)
    assert (cluster.connect_timeout, cluster.idle_timeout) == (1.0, 0.0)


def test_outlier_detection_can_be_switched_off() -> None:
    assert cluster_of("{name: a-svc-v2, outlier_detection: false}").outlier_detection is None
    assert cluster_of("{name: a-svc-v2, outlier_detection: true}").outlier_detection is not None


@pytest.mark.parametrize(
    ("tls", "prefix", "peers"),
    [
        ("{sds: s}", "", {"svc/a-svc", "svc/a-svc-v2"}),
        ("{sds: s}", "trust_domain: d\n", {"spiffe://d/svc/a-svc", "spiffe://d/svc/a-svc-v2"}),
        ("{sds: s, peer: spiffe://e/x}", "trust_domain: d\n", {"spiffe://e/x"}),
        ("{sds: s, peers: [spiffe://e/x, spiffe://e/y]}", "", {"spiffe://e/x", "spiffe://e/y"}),
    ],
)
def test_the_peers_that_a_cluster_may_have(tls: str, prefix: str, peers: set[str]) -> None:
    cluster = cluster_of(f"{{name: a-svc-v2, tls_context: {tls}}}", prefix + SECRET)
    assert cluster.tls == UpstreamTls(secret="s", peers=frozenset(peers))


def test_listeners() -> None:
    snapshot = snapshot_of(
        SECRET
        + """\
service: auth-svc
listeners:
  - {name: out, port: 15001, limits: {max_body: 10MiB, head_timeout: 1s}}
  - {name: peers, port: 15006, direction: inbound, tls: strict, app: "http://127.0.0.1:8080/"}
  - {name: plain, host: "::1", port: 0, direction: inbound, app: "[::1]:8080"}
"""
    )
    out, peers, plain = snapshot.listeners
    assert (out.host, out.direction, out.tls, out.secret) == (
        "127.0.0.1", Direction.OUTBOUND, TlsMode.NONE, None,
    )  # fmt: skip
    assert out.limits == Limits(max_body=10 * 2**20, head_timeout=1.0)
    assert (peers.host, peers.tls, peers.secret) == ("0.0.0.0", TlsMode.STRICT, "s")
    assert (plain.host, plain.tls, plain.secret) == ("::1", TlsMode.NONE, None)
    app = snapshot.clusters["app:peers"]
    assert app.endpoints == (EndpointSpec(host="127.0.0.1", port=8080),)
    assert (app.service, app.tls, app.outlier_detection) == ("auth-svc", None, None)
    assert snapshot.clusters["app:plain"].endpoints[0].address == "[::1]:8080"
    assert "app:peers" not in out.services


def test_a_strict_listener_without_a_choice_of_secrets() -> None:
    listener = '{name: p, port: 1, direction: inbound, tls: strict, app: "h:1"}'
    asked = f"listeners: [{listener}]\nclusters: [{{name: a, tls_context: {{sds: mesh}}}}]"
    (error,) = errors_of(asked)
    assert "add `secrets:`" in error, "a sidecar would not start"
    (error,) = errors_of(f"listeners: [{listener}]")
    assert error.endswith(
        "listeners[0].tls: tls: strict needs a certificate to show; add `secrets:`"
    )
    (error,) = errors_of(
        f"listeners: [{listener}]\nsecrets: {{a: {{certificate: c, key: k, bundle: b}},"
        " b: {certificate: c, key: k, bundle: b}}"
    )
    assert "name one of them with `secret:` (a, b)" in error


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        (
            "[{name: a-v2, trafficPolicy: weight=10}, {name: b}]",
            (
                "clusters[0].trafficPolicy: a-v2 is to get a share of the service a, but no other "
                "cluster belongs to it; name the base's with `service:` (clusters: b)"
            ),
        ),
        (
            "[{name: a, trafficPolicy: weight=10}]",
            (
                "clusters[0].trafficPolicy: a is to get a share of the service a, but no other cluster "
                "belongs to it; name the base's with `service:` (clusters: none)"
            ),
        ),
        (
            "[{name: a}, {name: a-v2, trafficPolicy: weight=60}, {name: a-v3, trafficPolicy: weight=41}]",
            (
                "clusters[2].trafficPolicy: the shares of a sum to 101%, more than there is: "
                "a-v2 60 + a-v3 41"
            ),
        ),
        (
            "[{name: Auth}, {name: auth}]",
            "clusters[1].name: 'auth' and 'Auth' differ only in case, which hosts do not tell",
        ),
    ],
)
def test_faults_of_clusters(clusters: str, message: str) -> None:
    (error,) = errors_of(f"clusters: {clusters}")
    assert error.partition(" ")[2] == message


def test_one_port_cannot_be_had_twice() -> None:
    inbound = 'direction: inbound, app: "h:1"'
    (error,) = errors_of(f"listeners:\n- {{name: a, port: 80}}\n- {{name: b, port: 80, {inbound}}}")
    assert error == "1.yaml:3:19: listeners[1].port: the port 80 is taken by the listener a"
    assert not errors_of(
        f"listeners:\n- {{name: a, port: 80}}\n- {{name: b, port: 80, host: 10.0.0.1, {inbound}}}"
    )
    assert not errors_of("listeners:\n- {name: a, port: 0}\n- {name: b, port: 0}")


def test_policies_for_services_need_to_know_the_own_one() -> None:
    """Otherwise a DENY for this very service would be passed over without a word."""
    text = """\
        listeners: [{name: p, port: 1, direction: inbound, app: "h:1"}]
        rbac: {policies: [{name: x, action: DENY, services: [a]}]}
        """
    (error,) = errors_of(text)
    assert "rbac.policies[0].services: this policy is for certain services" in error
    assert not errors_of(text, service="a")
    assert not errors_of(text, "service: a")
    assert load_texts(text, service="a").snapshot.service == "a"  # type: ignore[union-attr]
