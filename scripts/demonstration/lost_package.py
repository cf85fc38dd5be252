"""The Lost-Package mesh while it runs: its file, its tokens, calls through it, and its operator."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlencode

from hms_addons.up.machine import marked, send
from hms_addons.up.run_state import RunState
from scripts.demonstration.calls import Answer, call
from scripts.demonstration.leaving import held
from scripts.demonstration.mesh_file import NAME, ROOT, MeshFile
from scripts.demonstration.up import DemoError, Up

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

DOOR, MESH, GOVERNANCE, ISSUER = 15080, 15001, 15090, 15091
"""Ports of the portal's door, of Claims-SVC's sidecar, of HMS-GOV and of the issuer: mesh.yaml says so."""
ROLE = "PROGRAM_MANAGER"
START_SECONDS = 180.0
"""For what a crowded machine may take to start."""
COMMAND_SECONDS = 60.0
SEED = ROOT.parent / "shared" / "seed" / "claims.py"
TARGET = "/verify-id?host=auth-svc.svc"
"""What the seed's caller asks its sidecar for."""
JSON = {"Content-Type": "application/json"}


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    text: str
    """What it printed."""


class LostPackage:
    """The mesh.

    Args:
        work: a new folder for its file, state and logs.
        say: shows a line of `hms up`.
    """

    def __init__(self, work: Path, say: Callable[[str], object]) -> None:
        self.work = work
        self.file = MeshFile(work)
        self.state = RunState(self.file.path)
        self._say = say
        self._up: Up | None = None
        self._people = count(1)
        self.caller = SEED if SEED.is_file() else ROOT / "scripts" / "lost_package" / "claims.py"
        self.serials: dict[str, str] = {}
        """Of the certificates, as they were at the start."""
        self.governance_stopped = 0.0
        """When HMS-GOV was, by the monotonic clock."""
        # A cache of functions, not of methods: tokens live as long as this mesh.
        self.token: Callable[..., str] = cache(self._token)

    def __repr__(self) -> str:
        return f"<LostPackage {self.file.path}>"

    # -- start and end --------------------------------------------------------------------------

    def start(self) -> float:
        """`hms up`, until all is ready. Returns how many seconds that took.

        Raises:
            DemoError: it has not come up; the message says why.
        """
        began = time.monotonic()
        command = [_hms(), "up", str(NAME), "--plain"]
        log = self.work / "up.log"
        with held():
            self._up = Up(command, cwd=self.work, env=_environment(), log=log, shown=self._say)
        self._up.wait_for("instances are ready", within=START_SECONDS)
        self._up.hush()
        return time.monotonic() - began

    @property
    def up(self) -> Up:
        """The process, or `DemoError` when it has not been started."""
        if self._up is None:
            raise DemoError("hms up has not been started")
        return self._up

    def end(self) -> int:
        """Ctrl-C to `hms up`. Returns its exit code, 0 if it never started; idempotent."""
        return self._up.end() if self._up is not None else 0

    def left_over(self) -> list[int]:
        """Processes of this mesh that still run."""
        return marked(self.state.folder)

    # -- calls ----------------------------------------------------------------------------------

    def _token(self, *roles: str, subject: str = "soldier-4711", lifetime: float = 28800.0) -> str:
        words = [*(("role", role) for role in roles or (ROLE,)), ("subject", subject)]
        asked = urlencode([*words, ("lifetime", f"{lifetime:g}")])
        return call(ISSUER, f"/token?{asked}").body.decode()

    def someone(self) -> str:
        """A program manager's token, each time another person's: refunds are counted by person."""
        return self.token(subject=f"manager-{next(self._people)}")

    def claim(
        self, token: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:  # fmt: skip
        """File a claim at the portal's door; token "" is none at all."""
        token = self.someone() if token is None else token
        sent = {
            **JSON,
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **(headers or {}),
        }
        body = json.dumps({"amount": "120.00 USD"}).encode()
        return call(DOOR, "/claims", sent, method="POST", body=body)

    def verify(self, token: str | None = None) -> Answer:
        """The seed's call: Claims-SVC asks Auth-SVC through its sidecar."""
        return call(MESH, TARGET, {"Authorization": self.token() if token is None else token})

    def run_caller(self, token: str) -> str:
        """Run the seed's `claims.py` as it stands. Returns what it printed."""
        return self._run([sys.executable, str(self.caller)], {"SOLDIER_JWT": token}).text

    # -- its operator ---------------------------------------------------------------------------

    def _run(self, command: list[str], more: Mapping[str, str] | None = None) -> Done:
        done = subprocess.run(
            command,
            cwd=self.work,
            env={**_environment(), **(more or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return Done(done.returncode, done.stdout.strip())

    def hms(self, *words: str) -> Done:
        """Run an `hms` command as a person does who has said `eval "$(hms open control-plane)"`."""
        told = self.state.told()
        variables = {
            "HMS_CONTROL": told["control"],
            "HMS_CA_PIN": told["ca_pin"],
            "HMS_ADMIN_TOKEN": self.state.admin_token or "",
            # What this operator has seen is the demo's, not that of whoever runs it.
            "XDG_STATE_HOME": str(self.work / "operator-state"),
        }
        return self._run([_hms(), *words], variables)

    def instances(self) -> dict[str, dict[str, Any]]:
        """Where everything is, by name."""
        return {one["name"]: one for one in self.state.told()["instances"]}

    def admin(self, instance: str, path: str) -> Any:
        """What a sidecar's admin port says, as JSON."""
        port = self.instances()[instance]["admin"]
        return call(port, path, {"Accept": "application/json"}).json()

    def cluster(self, name: str, at: str = "claims-svc-1") -> list[dict[str, Any]]:
        """The endpoints of a cluster, as a sidecar sees them."""
        found = next(one for one in self.admin(at, "/clusters") if one["name"] == name)
        endpoints: list[dict[str, Any]] = found["endpoints"]
        return endpoints

    def serials_now(self) -> dict[str, str]:
        """The serial of each sidecar's certificate."""
        names = [name for name, one in self.instances().items() if one["admin"]]
        return {name: self.admin(name, "/certs")[0]["serial"] for name in names}

    # -- what can be done to it -----------------------------------------------------------------

    def kill(self, *instances: str) -> float:
        """SIGKILL for sidecar and app of each. Returns when, by the monotonic clock."""
        for name in instances:
            send(marked(self.state.folder, name), signal.SIGKILL)
        return time.monotonic()

    def await_back(self, names: Iterable[str], *, after: int, since: float) -> float:
        """Wait until `hms up` has brought them back. Returns how many seconds that took."""
        for name in names:
            self.up.wait_for(f"{name} is ready", within=START_SECONDS, after=after)
        return time.monotonic() - since

    def edit(self, old: str, new: str, says: str, *, below: str = "") -> str:
        """Edit mesh.yaml and wait until `hms up` has said `says` about it. Returns the change."""
        after = self.up.mark()
        change = self.file.edit(old, new, below=below)
        self.up.wait_for(says, within=START_SECONDS, after=after)
        return change

    def in_force(self, condition: Callable[[], object], what: str) -> None:
        """Wait for a change to reach the sidecars: a moment."""
        self.up.until(lambda: condition() or None, within=START_SECONDS, what=what)


def _hms() -> str:
    return f"{sysconfig.get_path('scripts')}/hms"


def _environment() -> dict[str, str]:
    """That of whoever runs the demo, less what would change a mesh or lead its calls elsewhere."""
    kept = {name: text for name, text in os.environ.items() if not name.startswith("HMS_")}
    return {**kept, "NO_PROXY": "*", "no_proxy": "*"}
