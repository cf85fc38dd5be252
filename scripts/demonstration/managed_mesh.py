"""The Lost-Package mesh by a control plane: every sidecar has a name and a join token, and no file."""

from __future__ import annotations

import shlex
import time
from typing import TYPE_CHECKING, Any, Final

from scripts.demonstration.children import Child, DemoError, kill_pid, until
from scripts.demonstration.managed_files import MeshOverlay
from scripts.demonstration.mesh import Mesh, listener_routes
from scripts.demonstration.operating import Operator
from scripts.demonstration.ports import is_free
from scripts.demonstration.processes import START_SECONDS, await_answer
from scripts.demonstration.pulse import Pulse
from scripts.demonstration.replica import Replica
from scripts.demonstration.verify import TARGET, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from scripts.demonstration.ports import FreePorts
    from scripts.demonstration.processes import Done

CONTROL_PORT: Final = 15010
SYNC_SECONDS: Final = 15.0
"""What the fleet is given to agree; a crowded machine is slow."""
SHORT_LIFETIME: Final = "30s"
"""Of certificates, so that their replacement can be watched; 24 h by default."""


class ManagedMesh(Mesh):
    """The mesh whose sidecars have all from a control plane."""

    def __init__(self, work: Path, ports: FreePorts) -> None:
        super().__init__(work, ports)
        self.control_port = CONTROL_PORT if is_free(CONTROL_PORT) else ports.take()
        self.control: Child | None = None
        exports = work / "operator.env"
        exports.touch(0o600)
        self.operator = Operator(self.processes, exports)
        self.overlay_path = work / "overlay.yaml"
        self.overlay = MeshOverlay(self.governance_port, listener_routes(self.routes))
        self.auth = [self.replica("auth-svc", f"auth-{n}") for n in (1, 2)]
        self.canary = self.replica("auth-svc", "auth-v2", "v2")
        self.payments = self.replica("payments-svc", "payments-1")
        self.joined: list[Replica] = []
        """Replicas that came later."""
        self.serials_before: dict[str, str] = {}
        """Of certificates, when the load began."""
        self.pushed = 0
        """Configurations that the control plane has taken."""
        self.killed_at = 0.0
        """When a replica was, by the monotonic clock."""
        self._pulse: Pulse | None = None

    def everyone(self) -> list[Replica]:
        """The replicas of all services."""
        return [*self.auth, self.canary, self.payments, *self.joined]

    def hints(self, authorization: str) -> list[str]:
        """Commands to try while it runs; `authorization` is curl's option for a token."""
        routes, overlay = shlex.quote(str(self.routes)), shlex.quote(str(self.overlay_path))
        public = [f"export {name}={value}" for name, value in self.operator.public().items()]
        return [
            *public,
            f". {shlex.quote(str(self.operator.exports))}      # the admin token too; mode 0600",
            "hms status",
            "hms services",
            f"$EDITOR {overlay}; hms config push {routes} {overlay}",
            f"curl {authorization} 'http://localhost:{self.listener_port}{TARGET}'",
        ]

    # -- the control plane ----------------------------------------------------------------------

    def control_command(self, lifetime: str | None = None) -> list[str]:
        """What starts the control plane."""
        command = ["hms", "control", "--data", str(self.work / "control")]
        if self.control_port != CONTROL_PORT:
            command += ["--listen", f"127.0.0.1:{self.control_port}"]
        return [*command, *(() if lifetime is None else ("--svid-lifetime", lifetime))]

    def start_control(self, lifetime: str | None = None) -> float:
        """Start it, and wait until it has said where it is. Returns the seconds that took."""
        exports = self.operator.exports
        said = exports.read_text(encoding="utf-8").count("HMS_CONTROL=")
        began = time.monotonic()
        command = self.processes.program(self.control_command(lifetime))
        child = self.control = self.processes.spawn("control-plane", command, output=exports)
        until(
            lambda: (
                exports.read_text(encoding="utf-8").count("HMS_CONTROL=") > said
                and self.operator.environment()
            ),
            within=START_SECONDS,
            what=f"hms control should print `export HMS_CONTROL=…` into {exports}",
            needs=[child],
        )
        return time.monotonic() - began

    def kill_control(self) -> None:
        """Kill the control plane with SIGKILL."""
        child = self.running_control
        kill_pid(child.pid)
        child.wait(START_SECONDS)

    @property
    def running_control(self) -> Child:
        """The control plane, or `DemoError` when it has ended."""
        if self.control is None:
            raise DemoError("the control plane has not been started")
        self.control.ensure_running()
        return self.control

    # -- sidecars -------------------------------------------------------------------------------

    def replica(self, service: str, name: str, version: str = "") -> Replica:
        """A replica with ports of its own; a token it gets when it is started."""
        take = self.ports.take
        port, app_port, admin_port = take(), take(), take()
        options = ["--service", service, *(("--version", version) if version else ())]
        # On a machine of its own it would need none of these: the standard ports would do.
        options += ["--inbound", f"127.0.0.1:{port}", "--outbound", "off"]
        options += ["--app", f"http://127.0.0.1:{app_port}", "--state", str(self.state(name))]
        return Replica(service, name, port, app_port, admin_port, options)

    def state(self, name: str) -> Path:
        """The folder in which a sidecar keeps its own state."""
        return self.work / "state" / name

    def enrol(self, replica: Replica) -> None:
        """Create a join token for a replica and start it with that.

        By a variable: everybody on the machine can see a command's words.
        """
        token = {"HMS_TOKEN": self.operator.token(replica.service)}
        self.processes.spawn_replica(replica, self.operator.public() | token)

    def claims_options(self, token: str) -> dict[str, str]:
        """What Claims-SVC's sidecar is told."""
        public = self.operator.public()
        return {
            "hms_control": public["HMS_CONTROL"],
            "hms_ca_pin": public["HMS_CA_PIN"],
            "hms_service": "claims-svc",
            "hms_token": token,
            "hms_inbound": "off",
            "hms_state": str(self.state("claims")),
        }

    def enrol_claims(self) -> None:
        """Create a join token for Claims-SVC's sidecar, and start it inside mitmdump."""
        command = self.claims_command(self.claims_options(self.operator.token("claims-svc")))
        self.claims = self.processes.spawn("claims-sidecar", self.processes.program(command))

    def await_everyone(self) -> None:
        """Wait until all that has been started serves."""
        self.processes.await_replicas(self.everyone())
        await_answer(self.running_claims, self.admin_port, "/ready")

    def serials(self) -> dict[str, str]:
        """Serial numbers of the certificates that the running sidecars use, by name."""
        ports = {"claims": self.admin_port}
        ports |= {one.name: one.admin_port for one in self.everyone()}
        return {name: serial(self.admin("/certs", port)) for name, port in ports.items()}

    # -- load -----------------------------------------------------------------------------------

    def begin_load(self) -> None:
        """Have a client call Auth-SVC all the time."""
        token = self.issuer.token()
        self._pulse = Pulse(lambda: verify(token))
        self._pulse.start()

    def end_load(self) -> Pulse:
        """End that.

        Raises:
            DemoError: it has not begun.
        """
        pulse, self._pulse = self._pulse, None
        if pulse is None:
            raise DemoError("the load has not begun")
        pulse.stop()
        return pulse

    def close(self) -> None:
        """End every process, and the load. Idempotent."""
        if self._pulse is not None:
            self.end_load()
        super().close()

    # -- configuration --------------------------------------------------------------------------

    def push(self, overlay: MeshOverlay | None = None) -> Done:
        """Push the seed's routes and the overlay; with `overlay` that becomes the mesh's."""
        if overlay is not None:
            self.overlay = overlay
        return self.push_text(self.overlay.text())

    def push_text(self, text: str) -> Done:
        """Push the seed's routes and this text as the overlay."""
        self.overlay_path.write_text(text, encoding="utf-8")
        done = self.operator.run(*self.push_words)
        self.pushed += done.code == 0
        return done

    @property
    def push_words(self) -> Sequence[str]:
        """The words after `hms`."""
        return ("config", "push", str(self.routes), str(self.overlay_path))

    def await_config(self, version: str, what: str) -> dict[str, Any]:
        """Wait until Claims-SVC's sidecar has another configuration than `version`."""
        return self.await_claims(lambda now: now["version"] != version, what)

    def await_claims(self, wanted: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Wait until Claims-SVC's sidecar says of its configuration what is wanted."""

        def judged() -> dict[str, Any] | None:
            now = self.config_status()
            return now if wanted(now) else None

        return until(judged, within=SYNC_SECONDS, what=what, needs=[self.running_claims])

    def await_status(self, code: int, what: str) -> Done:
        """Ask `hms status` until its exit code is `code`, and return what it said."""

        def asked() -> Done | None:
            done = self.operator.run("status")
            return done if done.code == code else None

        return until(asked, within=SYNC_SECONDS, what=what, needs=[self.running_control])


def serial(certificates: Any) -> str:
    """The serial number of a sidecar's own certificate in what its `/certs` says."""
    (found,) = {item["serial"] for item in certificates}
    return str(found)
