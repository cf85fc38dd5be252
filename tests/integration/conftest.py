"""What the integration tests share: upstreams, one sidecar per lane, and its log when a test fails.

`lane` runs a test three times: against `hms sidecar` (the fast lane), against the fast lane inside
mitmdump, and against the native lane, in mitmdump's stock `reverse:` mode. The same configuration,
the same upstreams, the same assertions.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes import pki
from tests.integration.basics import free_port, until
from tests.integration.clients import Connection, Response, fetch
from tests.integration.ports import is_free
from tests.integration.processes import (
    STARTED,
    Program,
    hms_sidecar,
    mitmdump_mesh,
    mitmdump_reverse,
)
from tests.integration.servers import Unreachable, Upstream, governance, refusing, status

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

JWT_ENV = {"HMS_TEST_SECRET": pki.jwt_key("HS256").secret}


WELL_KNOWN = (15000, 15001, 15006, 15010, 15080, 15081, 15090, 15091)
"""Ports that the README, the seed's caller, the Lost-Package mesh and the demo name."""


@pytest.fixture
def well_known() -> Iterator[None]:
    """The ports that users know, for one test alone, however many processes run tests."""
    lock = Path(tempfile.gettempdir()) / "hms-svc-well-known-ports.lock"
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for port in WELL_KNOWN:
            until(lambda: is_free(port), f"free port {port}", 90)  # noqa: B023 - used at once
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what the processes printed while a failed test ran."""
    report = yield
    if report.failed:
        for program in STARTED:
            if text := program.recent:
                report.sections.append((f"output of {program.name}", text[-20_000:]))
    return report


@pytest.fixture(autouse=True)
def _mark_output() -> None:
    STARTED[:] = [program for program in STARTED if not program.ended]
    for program in STARTED:
        program.mark()


@dataclass
class Backends:
    """The upstreams that every lane's configuration leads to."""

    app: Upstream
    second: Upstream
    governance: Upstream
    collector: Upstream
    dead: int
    hole: int


@pytest.fixture(scope="session")
def backends() -> Iterator[Backends]:
    closed, hole = refusing(), Unreachable()
    with (
        closed,
        Upstream() as app,
        Upstream() as second,
        Upstream(governance) as policies,
        Upstream(status(200, body=b"")) as collector,
    ):
        yield Backends(app, second, policies, collector, closed.getsockname()[1], hole.port)
        assert not app.errors
        assert not second.errors
    hole.close()


@pytest.fixture
def app(backends: Backends) -> Upstream:
    """The upstream behind most routes, and the app behind the inbound listener."""
    return backends.app


@dataclass
class Lane:
    """A running sidecar, reached through one of its lanes."""

    name: str
    port: int
    inbound: int
    admin: int
    program: Program
    audit_log: Path
    access_log: Path

    @property
    def native(self) -> bool:
        """mitmproxy's own layers speak to the client."""
        return self.name == "native"

    def connect(self) -> Connection:
        """A connection to the outbound listener."""
        return Connection(self.port)

    def fetch(self, method: str, target: str, *fields: str, **options: Any) -> Response:
        """One request to the outbound listener."""
        return fetch(self.port, method, target, *fields, **options)


def lane_config(port: int, inbound: int, backends: Backends) -> str:
    """The configuration of all three; each cluster shows one thing."""
    app, second = f"127.0.0.1:{backends.app.port}", f"127.0.0.1:{backends.second.port}"
    dead, hole = f"127.0.0.1:{backends.dead}", f"127.0.0.1:{backends.hole}"
    return dedent(f"""
        trust_domain: mpsa.mil
        service: claims-svc
        listeners:
          - name: outbound
            port: {port}
            limits: {{max_body: 8MiB}}
            propagate_identity: true
            routes:
              - {{match: {{path: /m/exact}}, action: {{cluster: second}}}}
              - {{match: {{regex: '/m/[0-9]+'}}, action: {{cluster: second}}}}
              - {{match: {{prefix: /m, methods: [PUT]}}, action: {{cluster: second}}}}
              - {{match: {{prefix: /m, headers: {{x-canary: "yes"}}}}, action: {{cluster: second}}}}
              - {{match: {{prefix: /m, query: {{v: "2"}}}}, action: {{cluster: second}}}}
              - {{match: {{prefix: /m, host: "*.eu.test"}}, action: {{cluster: second}}}}
              - {{match: {{prefix: /m}}, action: {{cluster: app}}}}
              - {{match: {{prefix: /app}}, action: {{cluster: app, timeout: 5s}}}}
              - {{match: {{prefix: /guarded}}, action: {{cluster: guarded}}}}
              - {{match: {{prefix: /short}}, action: {{cluster: app, timeout: 300ms}}}}
              - match: {{prefix: /tries}}
                action:
                  {{cluster: app, timeout: 5s, retries: {{attempts: 2, per_try_timeout: 250ms}}}}
              - {{match: {{prefix: /pair}}, action: {{cluster: pair, retries: 2}}}}
              - {{match: {{prefix: /detour}}, action: {{cluster: detour, retries: 2}}}}
              - match: {{prefix: /sticky/user}}
                action: {{cluster: sticky, hash_on: {{header: X-User}}}}
              - {{match: {{prefix: /sticky}}, action: {{cluster: sticky}}}}
              - match: {{prefix: /split}}
                action:
                  clusters: [{{name: app-one}}, {{name: app-two}}]
                  hash_on: {{query: user}}
              - {{match: {{prefix: /dead}}, action: {{cluster: dead}}}}
              - {{match: {{prefix: /hole}}, action: {{cluster: hole}}}}
              - {{match: {{prefix: /empty}}, action: {{cluster: empty}}}}
              - {{match: {{prefix: /single}}, action: {{cluster: single}}}}
              - {{match: {{prefix: /queue}}, action: {{cluster: queue, timeout: 5s}}}}
              - {{match: {{prefix: /old}}, action: {{redirect: {{prefix: /app/new, status: 301}}}}}}
              - match: {{prefix: /fixed}}
                action:
                  direct_response: {{status: 418, body: short and stout, headers: {{X-Fixed: "1"}}}}
                  response_headers: {{set: {{X-Rule: edited}}}}
              - match: {{prefix: /moved}}
                action: {{cluster: app, rewrite: {{prefix: /app/new, host: "legacy.test:81"}}}}
              - {{match: {{prefix: /around}}, action: {{cluster: app, rewrite: {{prefix: /app}}}}}}
              - match: {{prefix: /edited}}
                action:
                  cluster: app
                  request_headers: {{set: {{X-Set: new}}, add: {{X-Add: [b, c]}}, remove: [X-Gone]}}
                  response_headers: {{set: {{X-From: mesh}}, add: {{Set-Cookie: [b=2, c=3]}}, remove: [X-Gone]}}
              - {{match: {{prefix: /edited-dead}}, action: {{cluster: dead, response_headers: {{set: {{X-Rule: edited}}}}}}}}
              - {{match: {{prefix: /failover}}, action: {{cluster: gone}}}}
              - match: {{prefix: /fall/fixed}}
                action:
                  cluster: dead
                  fallback: {{response: {{status: 203, body: "[]", headers: {{Content-Type: application/json}}}}}}
              - {{match: {{prefix: /fall/other}}, action: {{cluster: dead, fallback: {{cluster: dead-other}}}}}}
              - {{match: {{prefix: /fall/stale}}, action: {{cluster: app, fallback: {{stale: 60s}}}}}}
              - {{match: {{prefix: /mirrored}}, action: {{cluster: app, mirror: {{cluster: app-shadow}}}}}}
              - {{match: {{prefix: /hedged}}, action: {{cluster: hedged, timeout: 10s, hedge: {{after: 50ms}}}}}}
              - match: {{prefix: /limited}}
                action:
                  cluster: app
                  rate_limit:
                    - {{name: keyed, requests: 7, per: 1h, by: "header:X-Key"}}
                    - {{name: all, requests: 1000, per: 1h}}
              - match: {{prefix: /guarded-limit}}
                action: {{cluster: guarded, rate_limit: {{requests: 1, per: 1h}}}}
              - match: {{prefix: /faulty}}
                action:
                  cluster: app
                  fault:
                    abort: 503
                    when: {{header: {{X-Fault: abort}}}}
              - {{match: {{prefix: /hop}}, action: {{cluster: hop, retries: 2}}}}
              - match: {{prefix: /delayed}}
                action: {{cluster: app, timeout: 600ms, fault: {{delay: 700ms}}}}
          - name: peers
            port: {inbound}
            host: 127.0.0.1
            direction: inbound
            app: http://{app}
        clusters:
          - {{name: app, endpoints: ["{app}"], outlier_detection: false}}
          - {{name: second, endpoints: ["{second}"], outlier_detection: false}}
          - {{name: guarded, endpoints: ["{app}"], outlier_detection: false}}
          - {{name: pair, endpoints: ["{app}", "{second}"], outlier_detection: false}}
          - name: sticky
            endpoints: ["{app}", "{second}"]
            outlier_detection: false
            hash_on: {{cookie: hms-session, ttl: 1h, path: /}}
          - {{name: app-one, service: split, endpoints: ["{app}"], load_balancer: maglev}}
          - {{name: app-two, service: split, endpoints: ["{second}"], load_balancer: maglev}}
          - {{name: detour, endpoints: ["{dead}", "{app}"], outlier_detection: false}}
          - {{name: dead, endpoints: ["{dead}"], outlier_detection: false}}
          - {{name: hole, endpoints: ["{hole}"], outlier_detection: false, connect_timeout: 300ms}}
          - {{name: empty, endpoints: []}}
          - {{name: gone, endpoints: [], failover: gone-dr}}
          - {{name: gone-dr, service: gone, endpoints: ["{app}"], outlier_detection: false}}
          - {{name: dead-other, service: dead, endpoints: ["{app}"], outlier_detection: false}}
          - {{name: app-shadow, service: app, endpoints: ["{second}"], outlier_detection: false}}
          - {{name: hop, endpoints: ["127.0.0.1:{inbound}"], outlier_detection: false}}
          - {{name: hedged, endpoints: ["{app}", "{second}"], outlier_detection: false}}
          - name: single
            endpoints: ["{app}"]
            outlier_detection: false
            circuit_breakers: {{max_requests: 1}}
          - name: queue
            endpoints: ["{app}"]
            outlier_detection: false
            circuit_breakers: {{max_connections: 1, max_pending_requests: 1}}
        governance:
          url: http://127.0.0.1:{backends.governance.port}
          headers: [X-Zone]
        rbac:
          providers:
            - name: idp
              issuer: {pki.ISSUER}
              audiences: [{pki.AUDIENCE}]
              hs256_secret_env: HMS_TEST_SECRET
            - name: fetched
              issuer: https://fetched.test
              algorithms: [ES256]
              jwks_uri: http://{second}/jwks
              forward: false
          policies:
            - {{name: managers, action: ALLOW, services: [guarded], roles: [PROGRAM_MANAGER]}}
            - {{name: no-delete, action: DENY, services: [guarded], methods: [DELETE]}}
            - {{name: closed, action: DENY, services: [app], paths: [/app/closed*]}}
            - {{name: no-beta, action: DENY, services: [app], when: [{{header: X-Env, values: [beta]}}]}}
            - {{name: strong, action: DENY, services: [app], paths: [/app/strong], when: [{{claim: acr.level, not_values: ["3"]}}]}}
            - {{name: trial, action: DENY, services: [app], paths: [/app/trial], mode: audit}}
          audit_log: {{path: audit.log}}
        access_log: {{path: access.log, sample: 0.5, headers: [Authorization, X-Tier]}}
        tracing: {{otlp: "http://127.0.0.1:{backends.collector.port}", sample: 0}}
        """)


@contextmanager
def running_lane(name: str, backends: Backends, folder: Path) -> Iterator[Lane]:
    """The lane of that name, with its configuration and its logs in `folder`."""
    port, inbound, admin = free_port(), free_port(), free_port()
    at = f"127.0.0.1:{admin}"
    keys = pki.jwks(pki.jwt_key("ES256")).encode()
    backends.second.on("/jwks", status(200, body=keys))
    config = folder / "mesh.yaml"
    config.write_text(lane_config(port, inbound, backends))
    if name == "fast":
        program = hms_sidecar("--config", config, "--admin", at, env=JWT_ENV)
    elif name == "mitmdump":
        program = mitmdump_mesh(config, env=JWT_ENV, admin=at)
    else:
        program = mitmdump_reverse(
            backends.app.port, port, inbound, config=config, env=JWT_ENV, admin=at
        )
    with program:
        if name == "native":
            program.wait_for("is in force")
        program.wait_listening(port, inbound, admin)
        audit_log, access_log = config.parent / "audit.log", config.parent / "access.log"
        yield Lane(name, port, inbound, admin, program, audit_log, access_log)
        assert program.stop() == 0
        assert "Traceback" not in program.output


@pytest.fixture(scope="session")
def lanes(
    backends: Backends, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Lane]]:
    """Each lane by name. It is started when it is first asked for, and stays: each file's tests go through all."""
    running: dict[str, Lane] = {}
    with ExitStack() as until_the_end:

        def named(name: str) -> Lane:
            if name not in running:
                folder = tmp_path_factory.mktemp(f"lane-{name}")
                started = running_lane(name, backends, folder)
                running[name] = until_the_end.enter_context(started)
            return running[name]

        yield named


@pytest.fixture(scope="session", params=["fast", "mitmdump", "native"])
def lane(request: pytest.FixtureRequest, lanes: Callable[[str], Lane]) -> Lane:
    return lanes(request.param)


@pytest.fixture
def config(tmp_path: Path) -> ConfigFile:
    """A configuration file of the test's own."""
    return ConfigFile(tmp_path / "mesh.yaml")


class ConfigFile:
    """A configuration file that can be written again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def write(self, text: str) -> Path:
        """Replace its content in one step."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(dedent(text))
        os.replace(fresh, self.path)  # noqa: PTH105 - the same on every Python
        return self.path


# -- two sidecars with mutual TLS between them -----------------------------------------------------


@dataclass
class Pair:
    """claims-svc's outbound sidecar, and auth-svc's strict inbound one before `app`."""

    port: int
    peers: int
    caller: Program
    callee: Program

    def connect(self) -> Connection:
        """A connection to the outbound listener."""
        return Connection(self.port)

    def fetch(self, method: str, target: str, *fields: str, **options: Any) -> Response:
        """One request through both."""
        return fetch(self.port, method, target, *fields, **options)


def secret_yaml(files: pki.SecretFiles, name: str = "certs") -> str:
    """A `secrets:` section, in YAML's flow style."""
    return f"{{{name}: {{certificate: {files.certificate}, key: {files.key}, bundle: {files.bundle}}}}}"


def outbound_config(port: int, endpoint: int, files: pki.SecretFiles, more: str = "") -> str:
    """An outbound sidecar that leads everything to auth-svc over mutual TLS."""
    return f"""
        trust_domain: mpsa.mil
        listeners:
          - name: out
            port: {port}
            routes: [{{match: {{prefix: /}}, action: {{cluster: auth-svc, timeout: 30s}}}}]
        clusters:
          - name: auth-svc
            endpoints: ["127.0.0.1:{endpoint}"]
            tls_context: {{sds: certs}}
            {more}
        secrets: {secret_yaml(files)}
        """


def inbound_config(port: int, app: int, files: pki.SecretFiles, tls: str = "strict") -> str:
    """An inbound sidecar before an app."""
    return f"""
        trust_domain: mpsa.mil
        listeners:
          - name: peers
            port: {port}
            host: 127.0.0.1
            direction: inbound
            tls: {tls}
            app: http://127.0.0.1:{app}
        secrets: {secret_yaml(files)}
        """


@pytest.fixture(scope="session")
def pair(backends: Backends, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    folder = tmp_path_factory.mktemp("pair")
    port, peers = free_port(), free_port()
    caller = pki.write_secret(folder, pki.svid("claims-svc"), name="caller")
    callee = pki.write_secret(folder, pki.svid("auth-svc"), name="callee")
    out = ConfigFile(folder / "out.yaml").write(outbound_config(port, peers, caller))
    into = ConfigFile(folder / "in.yaml").write(inbound_config(peers, backends.app.port, callee))
    with hms_sidecar("--config", out) as first, hms_sidecar("--config", into) as second:
        first.wait_listening(port)
        second.wait_listening(peers)
        yield Pair(port, peers, first, second)
        assert (first.stop(), second.stop()) == (0, 0)
        assert "Traceback" not in first.output + second.output
