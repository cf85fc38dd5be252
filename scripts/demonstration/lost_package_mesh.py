"""The Lost-Package mesh from files: Auth-SVC's replicas and Claims-SVC's sidecar, each with its own."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from hms_addons.control.ca.offline import init_ca, issue_svid
from scripts.demonstration.calls import call
from scripts.demonstration.children import DemoError, until
from scripts.demonstration.mesh import Mesh, listener_routes
from scripts.demonstration.mesh_files import (
    TRUST_DOMAIN,
    VERIFY_ONLY,
    Overlay,
    Section,
    Shared,
    replica_file,
    to_yaml,
)
from scripts.demonstration.processes import await_answer
from scripts.demonstration.replica import Replica
from scripts.demonstration.verify import TARGET

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from scripts.demonstration.ports import FreePorts

REPLICAS = 5
RELOAD_SECONDS = 15.0


class LostPackageMesh(Mesh):
    """The mesh whose sidecars read files."""

    def __init__(self, work: Path, ports: FreePorts) -> None:
        super().__init__(work, ports)
        self.overlay_path = work / "overlay.yaml"
        self._shared = self._make_shared()
        self.replicas = [
            self._replica("auth-svc", f"auth-{n}", VERIFY_ONLY) for n in range(1, REPLICAS + 1)
        ]
        self.payments = self._replica("payments-svc", "payments-1")
        self.standby = self._replica("payments-svc", "payments-2")
        self.next_port = 0
        """Where the next version of Payments-SVC will listen."""
        self.overlay = Overlay(
            self._shared, [one.port for one in self.replicas], listener_routes(self.routes)
        )

    # -- files ----------------------------------------------------------------------------------

    def _make_shared(self) -> Shared:
        """Keys and certificates: made here, now, and gone with the work folder."""
        token_key = self.work / "token-key.pem"
        self.issuer.write_public_key(token_key)
        authority, certificates = self.work / "ca", self.work / "certificates"
        init_ca(authority, TRUST_DOMAIN)
        for service in ("claims-svc", "auth-svc", "payments-svc"):
            issue_svid(service, authority, certificates)
        return Shared(self.governance_port, token_key, certificates)

    def _replica(self, service: str, name: str, allow: Section | None = None) -> Replica:
        config = self.work / f"{name}.yaml"
        take = self.ports.take
        replica = Replica(service, name, take(), take(), take(), ("--config", str(config)))
        content = replica_file(
            self._shared, service, port=replica.port, app_port=replica.app_port, allow=allow
        )
        config.write_text(to_yaml(content), encoding="utf-8")
        return replica

    def write_overlay(self, text: str) -> None:
        """Replace the overlay in one step, as an editor does."""
        fresh = self.overlay_path.with_suffix(".new")
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.overlay_path)

    # -- start and stop -------------------------------------------------------------------------

    def everyone(self) -> list[Replica]:
        """The replicas of all services."""
        return [*self.replicas, self.payments, self.standby]

    def hints(self, authorization: str) -> list[str]:
        """Commands to try while it runs; `authorization` is curl's option for a token."""
        admin = f"http://127.0.0.1:{self.admin_port}"
        overlay = shlex.quote(str(self.overlay_path))
        routes = shlex.quote(str(self.routes))
        return [
            f"curl {authorization} 'http://localhost:{self.listener_port}{TARGET}'",
            f"curl {admin}/clusters",
            f"curl {admin}/config",
            f"hms explain {routes},{overlay} 'GET http://auth-svc.svc/verify-id'",
            f"$EDITOR {overlay}      # takes effect when it is saved",
        ]

    @property
    def command(self) -> list[str]:
        """What starts Claims-SVC's sidecar: the card's command, with the seed's file and ours."""
        return self.claims_command({"hms_config": f"{self.routes},{self.overlay_path}"})

    def start(self) -> None:
        """Start everything at once, and wait until all of it serves.

        Raises:
            DemoError: something did not start; the message says why.
        """
        self.write_overlay(self.overlay.text())
        self.start_governance()
        self._spawn(self.everyone())
        command = self.processes.program(self.command)
        self.claims = self.processes.spawn("claims-sidecar", command)
        self.processes.await_replicas(self.everyone())
        await_answer(self.claims, self.admin_port, "/ready")

    def restart(self, replicas: Iterable[Replica]) -> None:
        """Start replicas that have been killed, on the same ports, and wait until they serve."""
        replicas = tuple(replicas)
        self._spawn(replicas)
        self.processes.await_replicas(replicas)

    def _spawn(self, replicas: Iterable[Replica]) -> None:
        for replica in replicas:
            self.processes.spawn_replica(replica)

    def make_way(self) -> None:
        """Move Claims-SVC's sidecar to another port while it runs: the seed's is wanted elsewhere."""
        port = self.ports.take()
        self.overlay.move_listener(port)
        status = self.reload(self.overlay.text())
        if status["rejected"] is not None:
            raise DemoError(f"the listener did not move: {status['rejected']['reason']}")
        self.listener_port = port

    # -- what the tour asks of it ---------------------------------------------------------------

    def endpoints(self) -> dict[str, dict[str, Any]]:
        """The live state of Auth-SVC's endpoints, by replica name."""
        by_address = self.endpoint_states("auth-svc")
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
