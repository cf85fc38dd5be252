"""Real mitmproxy programs with the mesh in them, for tests: processes, an app behind, a web client.

`App` is the service behind the mesh (and HMS-GOV); `MeshFiles` writes configurations; `mitm` starts
`mitmdump` or `mitmweb`; `Web` speaks mitmweb's own HTTP API; `Desk` is all of it around a mitmweb.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import requests
import yaml
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from tests.fakes import pki
from tests.integration.basics import MESH, PATIENCE, Closing, free_port, until
from tests.integration.processes import Program
from tests.integration.servers import Upstream, cut, governance, says

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.integration.servers import Received

PASSWORD = "open sesame"
VERIFY = "/verify-id?host=auth-svc.svc&id=7"

# --- the app --------------------------------------------------------------------------------------


class App(Upstream):
    """The service behind the mesh, which is also HMS-GOV: `/policy-header` is its.

    It echoes. `/plain/cut` promises more than it sends, `/plain/big` says a mebibyte and a half.
    """

    def __init__(self) -> None:
        super().__init__()
        self.on("/policy-header", governance)
        promise = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
        self.on("/plain/cut", cut(promise % 3_000_000 + b"x" * 1000))
        self.on("/plain/big", says(promise % (3 << 19) + b"big " * (3 << 17)))

    @property
    def seen(self) -> list[Received]:
        """The requests that were for the service."""
        return [request for request in self.requests if request.path != "/policy-header"]

    @property
    def last(self) -> Received:
        return self.seen[-1]


# --- configurations -------------------------------------------------------------------------------


class MeshFiles:
    """Writes the configuration of a small mesh: an outbound listener, and a strict one before the app.

    Nobody may `/verify-id/no`; `/admin` is for the role CLERK.
    """

    def __init__(self, folder: Path, app: App) -> None:
        self.folder = folder
        self.app = app
        self.out = free_port()
        self.peers = free_port()
        self.key = pki.jwt_key("RS256")
        (folder / "idp.pem").write_bytes(self.key.public_pem)
        self.endpoints = [self.peers]

    def token(self, *roles: str) -> dict[str, str]:
        """The header of a caller with these roles."""
        claims = pki.claims(roles=list(roles) or ["PROGRAM_MANAGER"])
        return {"Authorization": f"Bearer {self.key.sign(claims)}"}

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.out}{path}"

    def common(self, service: str) -> dict[str, Any]:
        """Identity, policy version, tokens and policies."""
        secrets = {}
        for name in ("claims-svc", "auth-svc"):
            files = pki.write_secret(self.folder, pki.svid(name), name=name)
            paths = {"certificate": files.certificate, "key": files.key, "bundle": files.bundle}
            secrets[name] = {kind: str(path) for kind, path in paths.items()}
        provider = {
            "name": "idp",
            "issuer": pki.ISSUER,
            "audiences": [pki.AUDIENCE],
            "algorithms": ["RS256"],
            "public_key_file": str(self.folder / "idp.pem"),
        }
        deny = {"name": "nobody", "action": "DENY", "paths": ["/verify-id/no*"]}
        clerks = {"name": "clerks", "action": "ALLOW", "paths": ["/admin*"], "roles": ["CLERK"]}
        others = {
            "name": "others",
            "action": "ALLOW",
            "paths": ["/verify-id*", "/plain*", "/dead*"],
        }
        return {
            "trust_domain": pki.TRUST_DOMAIN,
            "service": service,
            "secrets": secrets,
            "governance": {"url": f"http://127.0.0.1:{self.app.port}", "ttl": "60s"},
            "rbac": {"providers": [provider], "policies": [deny, clerks, others]},
        }

    def outbound(self) -> dict[str, Any]:
        """The caller's sidecar: `/verify-id` over mutual TLS to `peers`, `/plain` to the app."""
        routes = [
            {"match": {"prefix": "/verify-id"}, "action": {"cluster": "auth-svc", "retries": 1}},
            {"match": {"prefix": "/admin"}, "action": {"cluster": "auth-svc"}},
            {"match": {"prefix": "/plain"}, "action": {"cluster": "plain", "retries": 0}},
            {"match": {"prefix": "/dead"}, "action": {"cluster": "dead", "retries": 0}},
        ]
        clusters = [
            {
                "name": "auth-svc",
                "tls_context": {"sds": "claims-svc"},
                "endpoints": [f"127.0.0.1:{port}" for port in self.endpoints],
            },
            {"name": "plain", "endpoints": [f"127.0.0.1:{self.app.port}"]},
            {"name": "dead", "endpoints": ["127.0.0.1:1"]},
        ]
        listener = {"name": "out", "host": "127.0.0.1", "port": self.out, "routes": routes}
        return {**self.common("claims-svc"), "listeners": [listener], "clusters": clusters}

    def inbound(self, port: int | None = None, app: App | None = None) -> dict[str, Any]:
        """The callee's sidecar: strict mutual TLS, the app inside."""
        listener = {
            "name": "peers",
            "host": "127.0.0.1",
            "port": port or self.peers,
            "direction": "inbound",
            "tls": "strict",
            "secret": "auth-svc",
            "app": f"http://127.0.0.1:{(app or self.app).port}",
        }
        return {**self.common("auth-svc"), "listeners": [listener]}

    def both(self) -> dict[str, Any]:
        """Both in one sidecar, which calls itself."""
        outbound = self.outbound()
        outbound["listeners"] += self.inbound()["listeners"]
        return outbound

    def write(self, name: str, document: dict[str, Any]) -> Path:
        """Write `document` to the file `name`; whole at once, for a sidecar may be watching."""
        path = self.folder / name
        new = path.with_suffix(".new")
        new.write_text(yaml.safe_dump(document), encoding="utf-8")
        new.replace(path)
        return path


# --- processes ------------------------------------------------------------------------------------


def mitm(
    program: str,
    folder: Path,
    config: Path | Sequence[Path] | None,
    *arguments: str | Path,
    scripts: Sequence[Path] = (),
    before: Sequence[Path] = (),
    ready: str | None = "configuration ",
) -> Program:
    """Start `mitmdump` or `mitmweb` with the mesh, and wait until it serves.

    Args:
        program: the command.
        folder: where it runs, and for its own settings.
        config: the mesh's configuration files.
        arguments: further ones for the command line.
        scripts: to load after the mesh.
        before: to load before the mesh.
        ready: what the log says once it can be used; None not to wait.
    """
    files = [config] if isinstance(config, Path) else list(config or ())
    options = [f"confdir={folder / 'confdir'}", "hms_admin=off", "termlog_verbosity=info"]
    if files:
        options.append(f"hms_config={','.join(map(str, files))}")
    command: list[str | Path] = [program]
    for script in (*before, MESH, *scripts):
        command += ["-s", script]
    for option in options:
        command += ["--set", option]
    running = Program(*command, *arguments, cwd=folder)
    if ready is not None:
        try:
            running.wait_for(ready)
            if files and ready == "configuration ":
                running.wait_for("HMS mesh listener")
        except BaseException:
            running.close()
            raise
    return running


# --- mitmweb --------------------------------------------------------------------------------------


class Web(Closing):
    """A person at mitmweb, by its own HTTP API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {PASSWORD}"
        # Cookie and header must say the same; which token it is, the client may choose.
        self._session.headers["X-XSRFToken"] = "c0ffee"
        self._session.cookies["_mitmproxy_xsrf"] = "c0ffee"
        until(self._greet, "mitmweb")

    def close(self) -> None:
        self._session.close()

    def _greet(self) -> bool:
        with contextlib.suppress(requests.ConnectionError):
            self._session.get(f"{self.url}/").raise_for_status()
            return True
        return False

    def get(self, path: str) -> Any:
        response = self._session.get(f"{self.url}{path}")
        response.raise_for_status()
        return response.json()

    def send(self, method: str, path: str, document: Any = None) -> str:
        response = self._session.request(method, f"{self.url}{path}", json=document)
        assert response.ok, f"{method} {path}: {response.status_code} {response.text}"
        return response.text

    def flows(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get("/flows")
        return found

    def flow(self, flow_id: str) -> dict[str, Any]:
        return next(flow for flow in self.flows() if flow["id"] == flow_id)

    def one(self, wanted: Callable[[dict[str, Any]], Any], what: str) -> dict[str, Any]:
        """The first flow that is as wanted, once there is one."""
        return until(lambda: next(filter(wanted, self.flows()), None), what)

    def held(self) -> dict[str, Any]:
        """A flow that is intercepted, once there is one."""
        return self.one(lambda flow: flow["intercepted"], "intercepted flow")

    def put(self, flow: dict[str, Any], document: dict[str, Any]) -> None:
        self.send("PUT", f"/flows/{flow['id']}", document)

    def do(self, flow: dict[str, Any], action: str) -> str:
        return self.send("POST", f"/flows/{flow['id']}/{action}")

    def content(self, flow: dict[str, Any], message: str) -> bytes:
        response = self._session.get(f"{self.url}/flows/{flow['id']}/{message}/content.data")
        response.raise_for_status()
        return response.content

    def set(self, **options: Any) -> None:
        self.send("PUT", "/options", options)

    def download(self) -> bytes:
        """All flows, as the download button gives them."""
        response = self._session.get(f"{self.url}/flows/dump")
        response.raise_for_status()
        return response.content

    def upload(self, data: bytes) -> None:
        """Show the flows of a saved file instead."""
        response = self._session.post(f"{self.url}/flows/dump", data=data)
        assert response.ok, response.text

    def saved(self) -> list[HTTPFlow]:
        """All flows, read from the download."""
        return read_flows(self.download())

    def command(self, name: str, *arguments: str) -> Any:
        """Run a command, as the command bar does; its value."""
        answer = json.loads(self.send("POST", f"/commands/{name}", {"arguments": arguments}))
        assert "error" not in answer, answer
        return answer["value"]


def read_flows(data: bytes) -> list[HTTPFlow]:
    """The HTTP flows of a saved file."""
    reader: Any = FlowReader(io.BytesIO(data))
    flows = list(reader.stream())
    return [flow for flow in flows if isinstance(flow, HTTPFlow)]


class Calling(threading.Thread):
    """A request made in the background; `result()` gives the response."""

    def __init__(self, method: str, url: str, **arguments: Any) -> None:
        super().__init__()
        self._make: Callable[[], requests.Response] = lambda: requests.request(
            method, url, timeout=PATIENCE, **arguments
        )
        self._response: requests.Response | None = None
        self._error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            self._response = self._make()
        except requests.RequestException as error:
            self._error = error

    def result(self) -> requests.Response:
        """The response.

        Raises:
            requests.RequestException: there was none.
        """
        self.join(PATIENCE)
        assert not self.is_alive(), "the request has no answer yet"
        if self._error is not None:
            raise self._error
        assert self._response is not None
        return self._response


@contextlib.contextmanager
def connection(port: int) -> Iterator[http.client.HTTPConnection]:
    """A plain client connection, closed at the end."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        yield client
    finally:
        client.close()


class Desk(NamedTuple):
    """A running mitmweb with both ends of a hop in it, and all that a person needs beside it."""

    app: App
    files: MeshFiles
    config: Path
    program: Program
    web: Web

    def call(self, method: str = "GET", path: str = VERIFY, **arguments: Any) -> Calling:
        """A call to the outbound listener, with a token."""
        headers = {**self.files.token(), **arguments.pop("headers", {})}
        return Calling(method, self.files.url(path), headers=headers, **arguments)

    def outbound(self) -> dict[str, Any]:
        """The flow of the caller's side, once it is answered."""
        return self._answered(self.files.out)

    def inbound(self) -> dict[str, Any]:
        """The flow of the callee's side, once it is answered."""
        return self._answered(self.files.peers)

    def _answered(self, port: int) -> dict[str, Any]:
        return self.web.one(
            lambda flow: flow["client_conn"]["sockname"][1] == port and "response" in flow,
            f"answered flow on port {port}",
        )


@contextlib.contextmanager
def mitmweb_desk(folder: Path) -> Iterator[Desk]:
    """Start a mitmweb with the mesh; nothing in its log may be wrong at the end."""
    port = free_port()
    arguments = ("--no-web-open-browser", "--web-port", str(port))
    with App() as app:
        files = MeshFiles(folder, app)
        config = files.write("mesh.yaml", files.both())
        password = ("--set", f"web_password={PASSWORD}")
        with mitm("mitmweb", folder, config, *arguments, *password) as program, Web(port) as web:
            yield Desk(app, files, config, program, web)
            assert program.stop() == 0
        assert "Addon error" not in program.output
        assert "Traceback" not in program.output
