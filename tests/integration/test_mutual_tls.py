"""Mutual TLS between sidecars and with strangers: who gets in, who is believed, and rotation."""

from __future__ import annotations

import ssl
import threading
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import pytest

from hms_addons.control.ca.authority import CertificateAuthority
from tests.fakes import pki
from tests.integration.basics import free_port, until
from tests.integration.clients import Connection, fetch
from tests.integration.conftest import inbound_config, outbound_config, secret_yaml
from tests.integration.processes import hms_sidecar
from tests.integration.servers import Upstream, refusing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from tests.integration.clients import Response
    from tests.integration.conftest import Backends, ConfigFile

ROTATION = 15.0
"""Seconds for changed certificate files to be noticed."""


@pytest.fixture(scope="module")
def strict(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from _inbound(backends, tmp_path_factory.mktemp("strict"), "strict")


@pytest.fixture(scope="module")
def permissive(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    yield from _inbound(backends, tmp_path_factory.mktemp("permissive"), "permissive")


def _inbound(backends: Backends, folder: Path, tls: str) -> Iterator[int]:
    port = free_port()
    files = pki.write_secret(folder, pki.svid("auth-svc"))
    config = folder / "mesh.yaml"
    config.write_text(inbound_config(port, backends.app.port, files, tls))
    with hms_sidecar("--config", config) as program:
        program.wait_listening(port)
        yield port
        assert program.stop() == 0
        assert "Traceback" not in program.output


def client(tmp_path: Path, kind: str | None = None) -> ssl.SSLContext:
    """A client's context: a good one, with a bad certificate, or (`none`) without any."""
    if kind == "none":
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(cadata=pki.bundle().to_pem().decode())
        return context
    if kind is None:
        good = pki.svid("claims-svc")
        presented = pki.Presented(good.chain_pem(), good.key_pem())
    elif kind == "other ca":
        stranger = pki.svid("claims-svc", "other.example")
        presented = pki.Presented(stranger.chain_pem(), stranger.key_pem())
    elif kind == "self signed":
        presented = pki.make_leaf(authority=CertificateAuthority.create(pki.TRUST_DOMAIN))
    else:
        presented = pki.bad_svid(kind)
    return pki.context_presenting(presented, tmp_path, server=False)


def assert_refused(port: int, context: ssl.SSLContext | None, app: Upstream) -> None:
    """No answer comes over such a connection, and nothing of it arrives."""
    before = len(app.requests)
    with pytest.raises((OSError, EOFError)):  # noqa: SIM117 - the connection itself may fail
        with Connection(port, context) as connection:
            connection.exchange("GET", "/secret")
    assert len(app.requests) == before


BAD_CLIENTS = [kind for kind in pki.BAD_KINDS if kind != "server_only"]


@pytest.mark.parametrize("kind", [*BAD_CLIENTS, "server_only", "other ca", "self signed", "none"])
def test_strict_takes_only_the_mesh(strict: int, app: Upstream, tmp_path: Path, kind: str) -> None:
    assert_refused(strict, client(tmp_path, kind), app)


def test_strict_takes_no_plain_text(strict: int, app: Upstream) -> None:
    assert_refused(strict, None, app)


@pytest.mark.parametrize("tls", ["strict", "permissive"])
def test_a_good_peer_is_named(
    request: pytest.FixtureRequest, app: Upstream, tmp_path: Path, tls: str
) -> None:
    port = request.getfixturevalue(tls)
    app.requests.clear()
    answer = fetch(port, "GET", f"/named-{tls}", tls=client(tmp_path))
    assert answer.status == 200
    got = app.one(f"/named-{tls}")
    assert got.header("x-caller-service") == "spiffe://mpsa.mil/svc/claims-svc"
    assert got.header("x-forwarded-proto") == "https"


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_tls_1_2_and_1_3(strict: int, tmp_path: Path, version: ssl.TLSVersion) -> None:
    context = client(tmp_path)
    context.minimum_version = context.maximum_version = version
    assert fetch(strict, "GET", "/x", tls=context).status == 200


def test_permissive_marks_who_shows_no_certificate(
    permissive: int, app: Upstream, tmp_path: Path
) -> None:
    app.requests.clear()
    forged = "X-Caller-Service: spiffe://mpsa.mil/svc/root"
    answer = fetch(permissive, "GET", "/anon", forged, tls=client(tmp_path, "none"))
    assert answer.status == 200
    got = app.one("/anon")
    assert got.header("x-caller-service") is None
    assert got.header("x-forwarded-client-cert") is None


@pytest.mark.parametrize("kind", ["expired", "other_trust_domain", "not_spiffe", "other ca"])
def test_permissive_refuses_a_bad_certificate_all_the_same(
    permissive: int, app: Upstream, tmp_path: Path, kind: str
) -> None:
    assert_refused(permissive, client(tmp_path, kind), app)


def test_a_handshake_that_stalls_or_breaks_leaves_nothing(strict: int, tmp_path: Path) -> None:
    stalled = [Connection(strict) for _ in range(20)]
    for index, connection in enumerate(stalled):
        connection.send(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[: index % 11 + 1])
    for connection in stalled:
        connection.close()
    assert fetch(strict, "GET", "/x", tls=client(tmp_path)).status == 200


# -- the caller's side -----------------------------------------------------------------------------


NOT_THE_SERVICE = {
    "wrong service": "spiffe://mpsa.mil/svc/payments-svc",
    "other ca": "certificate",
    "expired": "expired",
    "not_yet_valid": "not yet valid",
    "other_trust_domain": "spiffe://other.example/svc/bad",
    "no_uri": "URI",
    "not_spiffe": "https://mpsa.mil/svc/bad",
    "client_only": "purpose",
}
"""Certificates that an endpoint of auth-svc may not show, and what is said of each."""


@dataclass
class Way:
    """One way an endpoint can be, and the listener that leads to it alone."""

    cluster: str
    listener: int
    endpoint: Upstream | None

    def fetch(self, *fields: str) -> Response:
        """One request to it, through the caller's sidecar."""
        return fetch(self.listener, "GET", "/secret", *fields)


def server(tmp_path: Path, kind: str) -> ssl.SSLContext:
    """A server's context with the certificate of `kind`."""
    if kind == "other ca":
        stranger = pki.svid("auth-svc", "other.example")
        presented = pki.Presented(stranger.chain_pem(), stranger.key_pem())
    elif kind == "wrong service":
        wrong = pki.svid("payments-svc")
        presented = pki.Presented(wrong.chain_pem(), wrong.key_pem())
    else:
        presented = pki.bad_svid(kind)
    return pki.context_presenting(presented, tmp_path, server=True)


def caller_config(files: pki.SecretFiles, ways: Iterable[tuple[Way, int, str]]) -> str:
    """An outbound sidecar with a listener and a cluster of auth-svc for each way, its port, its peer."""
    listeners, clusters = "", ""
    for way, port, peer in ways:
        name, route = way.cluster, f"{{cluster: {way.cluster}, timeout: 30s}}"
        listeners += f"""
          - name: to-{name}
            port: {way.listener}
            routes: [{{match: {{prefix: /}}, action: {route}}}]"""
        clusters += f"""
          - name: {name}
            endpoints: ["127.0.0.1:{port}"]
            tls_context: {{sds: certs{peer}}}"""
    return f"""
        trust_domain: mpsa.mil
        listeners:{listeners}
        clusters:{clusters}
        secrets: {secret_yaml(files)}
        """


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Way]]:
    """One sidecar that calls auth-svc, with an endpoint for each way it can be."""
    folder = tmp_path_factory.mktemp("caller")
    greeting = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
    with ExitStack() as until_the_end:

        def tls(kind: str) -> Upstream:
            place = folder / kind.replace(" ", "-")
            place.mkdir()
            return until_the_end.enter_context(Upstream(tls=server(place, kind)))

        upstreams: dict[str, Upstream] = {kind: tls(kind) for kind in NOT_THE_SERVICE}
        upstreams["plain"] = until_the_end.enter_context(Upstream(greeting=greeting))
        found = {
            name: (Way(f"auth-svc-v{number}", free_port(), upstream), upstream.port, "")
            for number, (name, upstream) in enumerate(upstreams.items(), 1)
        }
        dead = until_the_end.enter_context(refusing()).getsockname()[1]
        found["gone"] = (Way("auth-svc-gone", free_port(), None), dead, "")
        found["named"] = (
            Way("auth-svc-named", free_port(), upstreams["wrong service"]),
            upstreams["wrong service"].port,
            ", peer: spiffe://mpsa.mil/svc/payments-svc",
        )
        files = pki.write_secret(folder, pki.svid("claims-svc"))
        config = folder / "out.yaml"
        config.write_text(caller_config(files, found.values()))
        program = until_the_end.enter_context(hms_sidecar("--config", config))
        program.wait_listening(*(way.listener for way, _, _ in found.values()))
        yield {name: way for name, (way, _, _) in found.items()}
        assert program.stop() == 0
        assert "Traceback" not in program.output


@pytest.mark.parametrize(("kind", "reason"), NOT_THE_SERVICE.items())
def test_an_endpoint_that_is_not_the_service_is_uf_with_the_reason(
    ways: dict[str, Way], kind: str, reason: str
) -> None:
    way = ways[kind]
    assert way.endpoint is not None
    way.endpoint.requests.clear()
    for _ in range(2):
        answer = way.fetch("Authorization: Bearer secret")
        assert (answer.status, answer.flag) == (503, "UF")
        assert reason.lower() in answer.json["detail"].lower(), answer.json["detail"]
        assert f"cluster {way.cluster}" in answer.json["detail"]
    assert way.endpoint.requests == [], "not a byte of the request may reach it"


def test_an_endpoint_that_speaks_plain_http_is_uf(ways: dict[str, Way]) -> None:
    answer = ways["plain"].fetch()
    assert (answer.status, answer.flag) == (503, "UF")
    assert "TLS" in answer.json["detail"]
    assert ways["plain"].endpoint is not None
    assert ways["plain"].endpoint.requests == []


def test_peers_may_be_named(ways: dict[str, Way]) -> None:
    assert ways["named"].fetch().status == 200


def test_a_tls_listener_that_is_gone_is_uf(ways: dict[str, Way]) -> None:
    answer = ways["gone"].fetch()
    assert (answer.status, answer.flag) == (503, "UF")
    assert "refused" in answer.json["detail"]


# -- rotation --------------------------------------------------------------------------------------


class Traffic:
    """Requests without a pause from several threads; collects what went wrong."""

    def __init__(self, port: int, threads: int = 4) -> None:
        self._port = port
        self._stop = threading.Event()
        self.served = 0
        self.failures: list[Any] = []
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(threads)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(20)

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            try:
                with Connection(self._port) as connection:
                    for _ in range(1 if number % 2 else 20):
                        answer = connection.exchange("GET", "/traffic")
                        if answer.status != 200:
                            self.failures.append(answer.body)
                        self.served += 1
            except (OSError, EOFError) as error:
                self.failures.append(error)
                self._stop.wait(0.05)


def serial(port: int, tmp_path: Path) -> int:
    """Serial number of the certificate that a listener shows."""
    with Connection(port, client(tmp_path)) as connection:
        assert isinstance(connection.sock, ssl.SSLSocket)
        shown = connection.sock.getpeercert()
        assert shown is not None
        return int(str(shown["serialNumber"]), 16)


def test_certificates_are_replaced_while_traffic_flows(backends: Backends, tmp_path: Path) -> None:
    port, peers = free_port(), free_port()
    callee = pki.write_secret(tmp_path, pki.svid("auth-svc"), name="callee")
    caller = pki.write_secret(tmp_path, pki.svid("claims-svc"), name="caller")
    (tmp_path / "out.yaml").write_text(outbound_config(port, peers, caller))
    (tmp_path / "in.yaml").write_text(inbound_config(peers, backends.app.port, callee))
    with (
        hms_sidecar("--config", tmp_path / "out.yaml") as first,
        hms_sidecar("--config", tmp_path / "in.yaml") as second,
    ):
        first.wait_listening(port)
        second.wait_listening(peers)
        with Traffic(port) as traffic:
            until(lambda: traffic.served > 50, "traffic")
            for _ in range(2):
                fresh = pki.svid("auth-svc", lifetime=3600)
                pki.write_secret(tmp_path, fresh, name="callee")
                fresh_caller = pki.svid("claims-svc", lifetime=3600)
                pki.write_secret(tmp_path, fresh_caller, name="caller")
                until(
                    lambda want=fresh.serial: serial(peers, tmp_path) == want,  # type: ignore[misc]
                    "the new certificate on the listener",
                    ROTATION,
                )
                served = traffic.served
                until(lambda want=served: traffic.served > want + 100, "more traffic")  # type: ignore[misc]
        assert traffic.failures == []
        # A certificate and a key that do not go together: the old pair serves on, with a word.
        served = traffic.served
        stranger = pki.svid("auth-svc", lifetime=7200)
        callee.key.write_bytes(stranger.key_pem())
        second.wait_for("callee", ROTATION)
        assert fetch(port, "GET", "/x").status == 200
        assert (first.stop(), second.stop()) == (0, 0)


def test_a_sidecar_does_not_start_with_a_bad_certificate(
    config: ConfigFile, tmp_path: Path, backends: Backends
) -> None:
    files = pki.write_secret(tmp_path, pki.bad_svid("expired"))
    config.write(inbound_config(free_port(), backends.app.port, files))
    with hms_sidecar("--config", config.path) as program:
        assert program.wait() == 1
    assert "expired" in program.output
    assert str(files.certificate) in program.output
    assert "Traceback" not in program.output
