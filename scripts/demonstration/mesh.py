"""What both parts' meshes have: HMS-GOV, replicas with their sidecars, and Claims-SVC's sidecar."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import yaml

from scripts.demonstration.calls import call
from scripts.demonstration.children import Child, DemoError
from scripts.demonstration.mesh_files import LISTENER, LISTENER_PORT
from scripts.demonstration.ports import is_free
from scripts.demonstration.processes import ROOT, Processes, await_answer
from scripts.demonstration.tokens import Issuer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from scripts.demonstration.mesh_files import Section
    from scripts.demonstration.ports import FreePorts
    from scripts.demonstration.replica import Replica

SEED = ROOT.parent / "shared" / "seed"
MITMPROXY_PORT = 8080
"""mitmproxy opens it for a moment, before it has read its scripts (DESIGN §9)."""


def seed_file(name: str, otherwise: Path) -> Path:
    """A file of the seed as it stands beside the repository, or our own when it is not there."""
    path = SEED / name
    return path if path.is_file() else otherwise


class Mesh(ABC):
    """A mesh of real processes; how its sidecars come to their configuration, a subclass knows.

    Args:
        work: a folder that is not there yet, for keys, files and logs.
        ports: where free ones come from.
    """

    def __init__(self, work: Path, ports: FreePorts) -> None:
        work.mkdir(mode=0o700, parents=True)
        self.work = work
        self.ports = ports
        self.routes = seed_file("routes.yaml", ROOT / "configs" / "routes.yaml")
        self.caller = seed_file("claims.py", ROOT / "scripts" / "lost_package" / "claims.py")
        self.issuer = Issuer()
        self.processes = Processes(work / "logs")
        self.governance_port = ports.take()
        self.admin_port = ports.take()
        self.listener_port = LISTENER_PORT
        """Where Claims-SVC's sidecar takes the app's calls."""
        self.claims: Child | None = None
        """Claims-SVC's sidecar."""

    def start_governance(self) -> None:
        """Start HMS-GOV: sidecars ask it as they start, and again only a second after a failure."""
        command = [sys.executable, "-m", "scripts.lost_package.hms_gov"]
        governance = self.processes.spawn(
            "hms-gov", [*command, "--port", str(self.governance_port)]
        )
        await_answer(governance, self.governance_port, "/healthz")

    def claims_command(self, options: Mapping[str, str]) -> list[str]:
        """The card's own command, with these options of the mesh.

        mitmproxy opens its default port before it has read its scripts; where somebody else holds
        that port, `-n` keeps it from trying.
        """
        command = ["mitmdump", "-s", "hms_addons/mesh.py"]
        settings = {
            **options,
            "hms_admin": f"127.0.0.1:{self.admin_port}",
            "confdir": str(self.work / "mitmproxy"),
        }
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        if not (is_free(MITMPROXY_PORT, "0.0.0.0") and is_free(MITMPROXY_PORT, "::")):  # noqa: S104 - asked, not bound
            command.append("-n")
        return command

    @property
    def running_claims(self) -> Child:
        """Claims-SVC's sidecar, or `DemoError` when it has ended."""
        if self.claims is None:
            raise DemoError("Claims-SVC's sidecar has not been started")
        self.claims.ensure_running()
        return self.claims

    def run_caller(self, token: str) -> str:
        """Run the seed's `claims.py` as it stands. Returns what it printed, or why it failed."""
        done = self.processes.run([sys.executable, str(self.caller)], {"SOLDIER_JWT": token})
        if done.code:
            return f"it ended with status {done.code}: {done.text.rpartition('\n')[2]}"
        return done.text

    # -- what the tour asks of it ---------------------------------------------------------------

    def admin(self, path: str, port: int | None = None) -> Any:
        """What a sidecar's admin port says, as JSON; Claims-SVC's unless `port` names another."""
        if port is None:
            port = self.admin_port
            self.running_claims.ensure_running()
        return call(port, path, {"Accept": "application/json"}).json()

    def config_status(self) -> dict[str, Any]:
        """What Claims-SVC's sidecar says of its configuration."""
        found: dict[str, Any] = self.admin("/config")
        return found

    def endpoint_states(self, cluster: str) -> dict[str, dict[str, Any]]:
        """The live state of a cluster's endpoints at Claims-SVC's sidecar, by address."""
        clusters = self.admin("/clusters")
        found = next(item for item in clusters if item["name"] == cluster)
        return {item["address"]: item for item in found["endpoints"]}

    def addresses(self) -> list[tuple[str, str]]:
        """What is where, for people."""
        return [
            ("Claims-SVC's sidecar", f"http://localhost:{self.listener_port}"),
            ("  its admin port", f"http://127.0.0.1:{self.admin_port}"),
            ("HMS-GOV", f"http://127.0.0.1:{self.governance_port}/policy-header"),
            *(
                (one.name, f"mutual TLS on {one.address}, app on port {one.app_port}")
                for one in self.everyone()
            ),
            ("files and logs", str(self.work)),
        ]

    @abstractmethod
    def everyone(self) -> list[Replica]:
        """The replicas of all services."""

    @abstractmethod
    def hints(self, authorization: str) -> list[str]:
        """Commands to try while it runs; `authorization` is curl's option for a token."""

    def close(self) -> None:
        """End every process. Idempotent."""
        self.processes.close()


def listener_routes(path: Path) -> list[Section]:
    """The routes of the app-facing listener in the seed's file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for listener in content["listeners"]:
        if listener["name"] == LISTENER:
            routes: list[Section] = listener["routes"]
            return routes
    raise DemoError(f"{path} has no listener {LISTENER!r}: {json.dumps(content['listeners'])}")
