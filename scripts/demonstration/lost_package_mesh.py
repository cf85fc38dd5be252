"""The Lost-Package mesh: HMS-GOV, Auth-SVC's replicas, and Claims-SVC's sidecar, all running."""

from __future__ import annotations

import json
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from hms_addons.control.ca.offline import init_ca, issue_svid
from scripts.demonstration.calls import answers_ok, call
from scripts.demonstration.children import Child, DemoError, kill_pid, stop_all, until
from scripts.demonstration.leaving import held
from scripts.demonstration.mesh_files import (
    LISTENER,
    TRUST_DOMAIN,
    VERIFY_ONLY,
    Overlay,
    Section,
    Shared,
    replica_file,
    to_yaml,
)
from scripts.demonstration.ports import FreePorts, is_free
from scripts.demonstration.replica import Replica
from scripts.demonstration.tokens import Issuer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROOT = Path(__file__).resolve().parents[2]
SEED = ROOT.parent / "shared" / "seed"
REPLICAS = 5
START_SECONDS = 30.0
"""What a process is given until it answers; a crowded machine is slow."""
RELOAD_SECONDS = 15.0
MITMPROXY_PORT = 8080
"""mitmproxy opens it for a moment, before it has read its scripts (DESIGN §9)."""


def seed_file(name: str, otherwise: Path) -> Path:
    """A file of the seed as it stands beside the repository, or our own when it is not there."""
    path = SEED / name
    return path if path.is_file() else otherwise


class LostPackageMesh:
    """All processes of the demo. `close` ends them, whatever state they are in.

    Args:
        work: an empty folder, for keys, configuration files and logs.
    """

    def __init__(self, work: Path) -> None:
        self.work = work
        self.routes = seed_file("routes.yaml", ROOT / "configs" / "routes.yaml")
        self.caller = seed_file("claims.py", ROOT / "scripts" / "lost_package" / "claims.py")
        self.issuer = Issuer()
        self._programs = Path(sysconfig.get_path("scripts"))
        self._ports = FreePorts()
        self._children: list[Child] = []
        self._env = child_environment()
        self.logs = work / "logs"
        self.overlay_path = work / "overlay.yaml"
        self.governance_port = self._ports.take()
        self.admin_port = self._ports.take()
        self._shared = self._make_shared()
        self.replicas = [
            self._replica("auth-svc", f"auth-{n}", VERIFY_ONLY) for n in range(1, REPLICAS + 1)
        ]
        self.canary = self._replica("auth-svc", "auth-v2", VERIFY_ONLY)
        self.payments = self._replica("payments-svc", "payments-1")
        self.overlay = Overlay(
            self._shared, [one.port for one in self.replicas], listener_routes(self.routes)
        )
        self.claims: Child | None = None
        """Claims-SVC's sidecar."""

    # -- files ----------------------------------------------------------------------------------

    def _make_shared(self) -> Shared:
        """Keys and certificates: made here, now, and gone with the work folder."""
        self.logs.mkdir()
        token_key = self.work / "token-key.pem"
        self.issuer.write_public_key(token_key)
        authority, certificates = self.work / "ca", self.work / "certificates"
        init_ca(authority, TRUST_DOMAIN)
        for service in ("claims-svc", "auth-svc", "payments-svc"):
            issue_svid(service, authority, certificates)
        return Shared(self.governance_port, token_key, certificates)

    def _replica(self, service: str, name: str, allow: Section | None = None) -> Replica:
        replica = Replica(
            service, name, self._ports.take(), self._ports.take(), self._ports.take(), self.work
        )
        content = replica_file(
            self._shared, service, port=replica.port, app_port=replica.app_port, allow=allow
        )
        replica.config.write_text(to_yaml(content), encoding="utf-8")
        return replica

    def write_overlay(self, text: str) -> None:
        """Replace the overlay in one step, as an editor does."""
        fresh = self.overlay_path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.overlay_path)

    # -- start and stop -------------------------------------------------------------------------

    @property
    def claims_command(self) -> list[str]:
        """The card's own command, with the seed's file and ours.

        mitmproxy opens its default port before it has read its scripts; where somebody else holds
        that port, `-n` keeps it from trying.
        """
        command = ["mitmdump", "-s", "hms_addons/mesh.py"]
        settings = {
            "hms_config": f"{self.routes},{self.overlay_path}",
            "hms_admin": f"127.0.0.1:{self.admin_port}",
            "confdir": str(self.work / "mitmproxy"),
        }
        for name, value in settings.items():
            command += ["--set", f"{name}={value}"]
        if not (is_free(MITMPROXY_PORT, "0.0.0.0") and is_free(MITMPROXY_PORT, "::")):  # noqa: S104 - asked, not bound
            command.append("-n")
        return command

    def start(self) -> None:
        """Start everything at once, and wait until all of it serves.

        Raises:
            DemoError: something did not start; the message says why.
        """
        self.write_overlay(self.overlay.text())
        module = "scripts.lost_package.hms_gov"
        port = self.governance_port
        command = [sys.executable, "-m", module, "--port", str(port)]
        governance = self._spawn("hms-gov", command)
        # Sidecars ask it as they start, and ask again only a second after a failure.
        self._await(governance, port, "/healthz")
        everyone = [*self.replicas, self.canary, self.payments]
        self._spawn_replicas(everyone)
        self.claims = self._spawn("claims-sidecar", self._program(self.claims_command))
        self.await_replicas(everyone)
        self._await(self.claims, self.admin_port, "/ready")

    def restart(self, replicas: Iterable[Replica]) -> None:
        """Start replicas that have been killed, on the same ports, and wait until they serve."""
        replicas = tuple(replicas)
        self._spawn_replicas(replicas)
        self.await_replicas(replicas)

    def await_replicas(self, replicas: Iterable[Replica]) -> None:
        """Wait until these serve: the sidecar is ready, and the app behind it answers."""
        for replica in replicas:
            child = replica.sidecar
            if child is None:
                raise DemoError(f"{replica.name} has not been started")
            self._await(child, replica.admin_port, "/ready")
            self._await(child, replica.app_port, "/healthz")

    def kill(self, replicas: Iterable[Replica]) -> None:
        """Kill app and sidecar with SIGKILL, as a machine that fails: no drain, no goodbye."""
        for replica in replicas:
            app = replica.app_pid()
            if replica.sidecar is not None:
                kill_pid(replica.sidecar.pid)
                replica.sidecar.wait(START_SECONDS)
            if app is not None:
                kill_pid(app)

    def close(self) -> None:
        """End every process. Idempotent."""
        stop_all(self._children)
        for replica in (*self.replicas, self.canary, self.payments):
            # A sidecar ends its app; one that had to be killed could not.
            app = replica.app_pid() if replica.sidecar is not None else None
            if app is not None:
                kill_pid(app)

    def _spawn_replicas(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            replica.sidecar = self._spawn(replica.name, self._program(replica.command))

    def _program(self, command: Sequence[str]) -> list[str]:
        """`command` with the program of our own environment."""
        return [str(self._programs / command[0]), *command[1:]]

    def _spawn(self, name: str, argv: Sequence[str]) -> Child:
        with held():
            child = Child(name, argv, logs=self.logs, cwd=ROOT, env=self._env)
            self._children.append(child)
        return child

    @staticmethod
    def _await(child: Child, port: int, path: str) -> None:
        until(
            lambda: answers_ok(port, path),
            within=START_SECONDS,
            what=f"{child.name} should answer http://127.0.0.1:{port}{path} with 200",
            needs=[child],
        )

    def log_tails(self, lines: int = 8) -> str:
        """The last words of every process that has written any."""
        logs = {child.name: child for child in self._children}
        tails = ((name, child.log_tail(lines)) for name, child in logs.items())
        return "\n".join(f"{name}:\n{tail}" for name, tail in tails if tail)

    # -- what the tour asks of it ---------------------------------------------------------------

    @property
    def running_claims(self) -> Child:
        """Claims-SVC's sidecar, or `DemoError` when it has ended."""
        if self.claims is None:
            raise DemoError("Claims-SVC's sidecar has not been started")
        self.claims.ensure_running()
        return self.claims

    def caller_environment(self, token: str) -> dict[str, str]:
        """The environment of the seed's caller."""
        return {**self._env, "SOLDIER_JWT": token}

    def _admin(self, path: str) -> Any:
        """What the admin port of Claims-SVC's sidecar says, as JSON."""
        self.running_claims.ensure_running()
        return call(self.admin_port, path, {"Accept": "application/json"}).json()

    def config_status(self) -> dict[str, Any]:
        """What the admin port of Claims-SVC's sidecar says at `/config`."""
        found: dict[str, Any] = self._admin("/config")
        return found

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """The live state of Auth-SVC's endpoints, by replica name."""
        clusters = self._admin("/clusters")
        cluster = next(item for item in clusters if item["name"] == "auth-svc")
        by_address = {item["address"]: item for item in cluster["endpoints"]}
        return {one.name: by_address[one.address] for one in self.replicas}

    def reload(self, text: str) -> dict[str, Any]:
        """Replace the overlay and wait for the sidecar's word on it: in force, or refused."""
        before = self.config_status()
        self.write_overlay(text)

        def judged() -> dict[str, Any] | None:
            now = self.config_status()
            changed = now["version"] != before["version"] or now["rejected"] != before["rejected"]
            return now if changed else None

        return until(
            judged,
            within=RELOAD_SECONDS,
            what=f"Claims-SVC's sidecar should take note of {self.overlay_path}",
            needs=[self.running_claims],
        )

    def governance_questions(self) -> int:
        """How often HMS-GOV has been asked."""
        asked: int = call(self.governance_port, "/stats").json()["asked"]
        return asked


def listener_routes(path: Path) -> list[Section]:
    """The routes of the app-facing listener in the seed's file."""
    content = yaml.safe_load(path.read_text(encoding="utf-8"))
    for listener in content["listeners"]:
        if listener["name"] == LISTENER:
            routes: list[Section] = listener["routes"]
            return routes
    raise DemoError(f"{path} has no listener {LISTENER!r}: {json.dumps(content['listeners'])}")


def child_environment() -> dict[str, str]:
    """Ours, without what would lead the children astray."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HMS_")}
    # Calls to this machine never go through a proxy that the person's shell names.
    env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost,::1"
    env.pop("PYTHONPATH", None)  # They run in the project's folder and find what they need.
    env["PYTHONUNBUFFERED"] = env["PYTHONUTF8"] = "1"
    return env
