"""A mesh with a real control plane: `hms control`, and sidecars that know its address and a token."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.basics import PATIENCE, Closing, free_port
from tests.integration.processes import START, Program, hms_sidecar

if TYPE_CHECKING:
    from pathlib import Path

_EXPORT = re.compile(r"export (HMS_\w+)=(\S+)")


class ControlPlane(Closing):
    """`hms control` as an operator runs it; `start` and `stop` as often as a test likes.

    `with ControlPlane(folder) as control: control.start() …`
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "control"
        self.port = free_port()
        self.env: dict[str, str] = {}
        """What it prints for its operator to copy."""
        self.program: Program | None = None
        self._client = httpx.Client(verify=False, timeout=PATIENCE, trust_env=False)

    def close(self) -> None:
        """End it."""
        self._client.close()
        if self.program is not None:
            self.program.close()

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it on its data folder and its port."""
        self.program = Program(
            "hms", "control", "--data", self.data, "--listen", f"127.0.0.1:{self.port}"
        )
        self.program.wait_for("export HMS_CONTROL=")
        self.program.wait_listening(self.port)
        self.env |= dict(_EXPORT.findall(self.program.output))

    def stop(self) -> None:
        """End it in good order."""
        assert self.program is not None
        assert self.program.stop() == 0

    # -- what an operator does ------------------------------------------------------------------

    def ask(self, method: str, path: str, **more: Any) -> Any:
        """One request with the admin token; the answer's JSON."""
        headers = {"Authorization": f"Bearer {self.env['HMS_ADMIN_TOKEN']}"}
        answer = self._client.request(
            method, self.url + path, headers={**headers, **more.pop("headers", {})}, **more
        )
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def push(self, document: dict[str, Any]) -> int:
        """Push a configuration (JSON is YAML). Returns its version."""
        answer = self.ask(
            "PUT",
            "/v1/config",
            content=json.dumps(document),
            headers={"Content-Type": "application/yaml"},
        )
        version: int = answer["version"]
        return version

    def token(self, service: str) -> str:
        """A join token."""
        made: str = self.ask("POST", "/v1/tokens", json={"service": service, "ttl": 600})["token"]
        return made

    def fleet(self) -> list[dict[str, Any]]:
        """Every sidecar as the control plane knows it."""
        found: list[dict[str, Any]] = self.ask("GET", "/v1/sidecars")["sidecars"]
        return found

    def instances(self, service: str) -> list[dict[str, Any]]:
        """A service's instances."""
        for found in self.ask("GET", "/v1/services")["services"]:
            if found["name"] == service:
                instances: list[dict[str, Any]] = found["instances"]
                return instances
        return []

    # -- sidecars -------------------------------------------------------------------------------

    def sidecar(
        self,
        service: str,
        app: int | None = None,
        *more: str,
        name: str | None = None,
        token: str | None = None,
    ) -> Sidecar:
        """A sidecar of `service`; one without an app only calls others."""
        token = token or self.token(service)
        return Sidecar(self, service, app, more, self.folder / (name or service), token)


class Sidecar:
    """One sidecar process, started with no file."""

    def __init__(
        self,
        control: ControlPlane,
        service: str,
        app: int | None,
        more: tuple[str, ...],
        state: Path,
        token: str,
    ) -> None:
        self.state = state
        self.outbound, self.inbound, self.admin = free_port(), free_port(), free_port()
        listeners = ("--app", f"127.0.0.1:{app}", "--inbound", f"127.0.0.1:{self.inbound}")
        self._arguments = (
            *("--control", control.url, "--service", service, "--state", state),
            *("--outbound", f"127.0.0.1:{self.outbound}", "--admin", f"127.0.0.1:{self.admin}"),
            *(listeners if app is not None else ("--inbound", "off")),
            *more,
        )
        self.program = hms_sidecar(
            *self._arguments,
            env={"HMS_CA_PIN": control.env["HMS_CA_PIN"], "HMS_TOKEN": token},
        )

    def restart(self) -> None:
        """Start it again, once it has ended: it needs no token any more."""
        self.program = hms_sidecar(*self._arguments)

    def wait_ready(self, timeout: float = START) -> None:
        """Wait until it takes requests."""
        self.program.wait_for("ready: ", timeout)

    def ask(self, path: str) -> httpx.Response:
        """One request to its admin port."""
        url = f"http://127.0.0.1:{self.admin}{path}"
        return httpx.get(url, trust_env=False, timeout=PATIENCE)

    def config(self) -> dict[str, Any]:
        """`/config` of its admin port."""
        found: dict[str, Any] = self.ask("/config?format=json").json()
        return found
