"""Real mitmproxy programs with the mesh in them, for tests: processes, an app behind, a web client.

`App` is the service behind the mesh (and HMS-GOV); `MeshFiles` writes configurations; `Program` runs
`mitmdump`, `mitmweb` or `hms` and reads its log; `Web` speaks mitmweb's own HTTP API.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import json
import signal
import socket
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import requests
import yaml
from mitmproxy.http import HTTPFlow
from mitmproxy.io import FlowReader

from scripts.demonstration.ports import FreePorts
from tests.fakes import pki

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
MESH = ROOT / "hms_addons" / "mesh.py"
PASSWORD = "open sesame"
POLICY_VERSION = "1.3.4"
PATIENCE = 20.0
"""Seconds that anything here may take on a busy machine."""

_ports = FreePorts()
free_port = _ports.take


def until[T](ask: Callable[[], T | None], what: str, patience: float = PATIENCE) -> T:
    """What `ask` says once it says something true; asks every 20 ms."""
    pause = threading.Event()
    deadline = time.monotonic() + patience
    while True:
        if found := ask():
            return found
        assert time.monotonic() < deadline, f"in {patience:g} s there was no {what}"
        pause.wait(0.02)


# --- the app --------------------------------------------------------------------------------------


class Seen(NamedTuple):
    """One request as the app got it; header names in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class App:
    """An HTTP/1.1 server that answers with what it was asked, as JSON, and keeps it in `seen`.

    `/policy-header` is HMS-GOV's. `/slow` waits for `release`. `/cut` promises more than it sends.
    `/big` streams a mebibyte and a half. `/chunks` sends three pieces, chunked.
    """

    def __init__(self, name: str = "app") -> None:
        self.name = name
        self.seen: list[Seen] = []
        self.release = threading.Event()
        self._connections: list[socket.socket] = []
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: Any) -> None:
                """Say nothing."""

            def serve(self) -> None:
                app._serve(self)

        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            setattr(Handler, f"do_{method}", Handler.serve)

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def process_request(self, request: Any, client_address: Any) -> None:
                app._connections.append(request)
                super().process_request(request, client_address)

            def handle_error(self, request: Any, client_address: Any) -> None:
                """A client that left is no matter."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._thread.join()

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        body = _read_body(request)
        headers = {name.lower(): value for name, value in request.headers.items()}
        path = request.path.split("?")[0]
        if path == "/policy-header":
            self._answer(request, {"version": POLICY_VERSION})
            return
        self.seen.append(Seen(request.command, request.path, headers, body))
        if path.endswith("/slow"):
            self.release.wait(PATIENCE)
        if path.endswith("/cut"):
            request.send_response(200)
            request.send_header("Content-Length", "3000000")
            request.end_headers()
            request.wfile.write(b"x" * 1000)
            request.close_connection = True
        elif path.endswith("/big"):
            request.send_response(200)
            request.send_header("Content-Length", str(3 << 19))
            request.end_headers()
            request.wfile.write(b"big " * (3 << 17))
        elif path.endswith("/chunks"):
            request.send_response(200)
            request.send_header("Transfer-Encoding", "chunked")
            request.end_headers()
            request.wfile.write(b"3\r\none\r\n3\r\ntwo\r\n5\r\nthree\r\n0\r\n\r\n")
        else:
            answer = {
                "app": self.name,
                "method": request.command,
                "path": request.path,
                "headers": headers,
                "body": body.decode("latin-1"),
            }
            self._answer(request, answer)

    @staticmethod
    def _answer(request: BaseHTTPRequestHandler, document: dict[str, Any]) -> None:
        data = json.dumps(document).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(data)


def _read_body(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") != "chunked":
        return request.rfile.read(int(request.headers.get("Content-Length") or 0))
    body = b""
    while size := int(request.rfile.readline(), 16):
        body += request.rfile.read(size)
        request.rfile.readline()
    request.rfile.readline()
    return body


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


class Program:
    """A running program; its output goes to a file, which `log` reads."""

    def __init__(self, folder: Path, *command: str | Path, cwd: Path | None = None) -> None:
        self._path = folder / f"{Path(command[0]).name}-{time.monotonic_ns()}.log"
        self._position = 0
        with self._path.open("wb") as output:
            self.process = subprocess.Popen(
                list(command),
                cwd=cwd or folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise

    @property
    def log(self) -> str:
        return self._path.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str, *, times: int = 1) -> None:
        """Wait until the log holds `text`, so many times."""

        def said() -> bool:
            if self.log.count(text) >= times:
                return True
            assert self.process.poll() is None, f"it ended and never said {text!r}:\n{self.log}"
            return False

        try:
            until(said, repr(text))
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log}") from None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, give the exit code."""
        self.process.send_signal(number)
        return self.finish()

    def finish(self) -> int:
        return self.process.wait(PATIENCE)


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
        folder: for its log and its own settings.
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
    running = Program(folder, *command, *arguments)
    if ready is not None:
        try:
            running.says(ready)
            if files and ready == "configuration ":
                running.says("HMS mesh listener")
        except BaseException:
            running.__exit__(None, None, None)
            raise
    return running


# --- mitmweb --------------------------------------------------------------------------------------


class Web:
    """A person at mitmweb, by its own HTTP API."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Bearer {PASSWORD}"
        # Cookie and header must say the same; which token it is, the client may choose.
        self._session.headers["X-XSRFToken"] = "c0ffee"
        self._session.cookies["_mitmproxy_xsrf"] = "c0ffee"
        until(self._greet, "mitmweb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
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
