"""All processes of one part of the demo: started in the project's folder, each with a log, ended together."""

from __future__ import annotations

import os
import subprocess
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from scripts.demonstration.calls import answers_ok
from scripts.demonstration.children import Child, DemoError, kill_pid, stop_all, until
from scripts.demonstration.leaving import held

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from scripts.demonstration.replica import Replica

ROOT = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
"""What a process is given until it answers; a crowded machine is slow."""


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    text: str
    """What it wrote, errors included, without the last line's end."""


class Processes:
    """Starts, finds and ends them. `close` ends all, whatever state they are in.

    Args:
        logs: folder of the logs; made here.
    """

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True)
        self.logs = logs
        self.env = child_environment()
        self._programs = Path(sysconfig.get_path("scripts"))
        self._children: list[Child] = []
        self._replicas: list[Replica] = []

    def program(self, command: Sequence[str]) -> list[str]:
        """`command` with the program of our own environment."""
        return [str(self._programs / command[0]), *command[1:]]

    def spawn(
        self,
        name: str,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        output: Path | None = None,
    ) -> Child:
        """Start a process, with `env` beside what all have; `output`: not its log, but this file."""
        with held():
            child = Child(
                name,
                argv,
                logs=self.logs,
                cwd=ROOT,
                env={**self.env, **(env or {})},
                output=output,
            )
            self._children.append(child)
        return child

    def run(self, argv: Sequence[str], env: Mapping[str, str] | None = None) -> Done:
        """Run a command to its end.

        Raises:
            DemoError: it does not end.
        """
        try:
            done = subprocess.run(
                argv,
                cwd=ROOT,
                env={**self.env, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding="utf-8",
                timeout=START_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise DemoError(f"{Path(argv[0]).name} has not ended in {START_SECONDS:g} s") from error
        return Done(done.returncode, done.stdout.rstrip())

    # -- replicas -------------------------------------------------------------------------------

    def spawn_replica(self, replica: Replica, env: Mapping[str, str] | None = None) -> None:
        """Start a replica: its sidecar, which starts the app once it is ready."""
        if replica not in self._replicas:
            self._replicas.append(replica)
        replica.sidecar = self.spawn(replica.name, self.program(replica.command), env=env)

    def await_replicas(self, replicas: Iterable[Replica]) -> None:
        """Wait until these serve: the sidecar is ready, and the app behind it answers."""
        for replica in replicas:
            child = replica.sidecar
            if child is None:
                raise DemoError(f"{replica.name} has not been started")
            await_answer(child, replica.admin_port, "/ready")
            await_answer(child, replica.app_port, "/healthz")

    def kill(self, replicas: Iterable[Replica]) -> None:
        """Kill app and sidecar with SIGKILL, as a machine that fails: no drain, no goodbye."""
        for replica in replicas:
            app = replica.app_pid()
            if replica.sidecar is not None:
                kill_pid(replica.sidecar.pid)
                replica.sidecar.wait(START_SECONDS)
            if app is not None:
                kill_pid(app)

    # -- the end --------------------------------------------------------------------------------

    def close(self) -> None:
        """End every process. Idempotent."""
        stop_all(self._children)
        for replica in self._replicas:
            # A sidecar ends its app; one that had to be killed could not.
            app = replica.app_pid()
            if app is not None:
                kill_pid(app)

    def log_tails(self, lines: int = 8) -> str:
        """The last words of every process that has written any."""
        logs = {child.name: child for child in self._children}
        tails = ((name, child.log_tail(lines)) for name, child in logs.items())
        return "\n".join(f"{name}:\n{tail}" for name, tail in tails if tail)


def await_answer(child: Child, port: int, path: str) -> None:
    """Wait until `child` answers with 200.

    Raises:
        DemoError: it has ended, or does not answer in time.
    """
    until(
        lambda: answers_ok(port, path),
        within=START_SECONDS,
        what=f"{child.name} should answer http://127.0.0.1:{port}{path} with 200",
        needs=[child],
    )


def child_environment() -> dict[str, str]:
    """Ours, without what would lead the children astray."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("HMS_")}
    # Calls to this machine never go through a proxy that the person's shell names.
    env["NO_PROXY"] = env["no_proxy"] = "127.0.0.1,localhost,::1"
    env.pop("PYTHONPATH", None)  # They run in the project's folder and find what they need.
    env["PYTHONUNBUFFERED"] = env["PYTHONUTF8"] = "1"
    return env
