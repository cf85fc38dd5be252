"""Real processes of the mesh: started, waited for, read, and ended by their own pid.

    with hms_sidecar("--config", file) as program:
        program.wait_listening(port)
        …
        assert program.stop() == 0

What a program has printed is shown when the test that used it fails (see `conftest.py`).
"""

from __future__ import annotations

import os
import subprocess
import threading
from pathlib import Path
from typing import IO, TYPE_CHECKING

from tests.integration.basics import MESH, ROOT, Closing, accepts, until

if TYPE_CHECKING:
    import signal
    from collections.abc import Mapping

START = 90.0
"""Seconds for a program to be ready: with ten others on two cores, thirty were seen."""

STARTED: list[Program] = []
"""Programs whose output a failing test should show."""


class Program(Closing):
    """A running process.

    Args:
        command: what to run; found on PATH, where this environment comes first.
        env: variables to add.
        cwd: folder to run it in.
    """

    def __init__(
        self,
        *command: str | Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
    ) -> None:
        self.name = " ".join(Path(word).name for word in command[:4])
        clean = {name: value for name, value in os.environ.items() if not name.startswith("HMS_")}
        self._process = subprocess.Popen(
            command,
            env={**clean, "PYTHONUNBUFFERED": "1", **(env or {})},
            cwd=cwd or ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            errors="replace",
        )
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._shown = 0
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,))
        self._reader.start()
        STARTED.append(self)

    def _read(self, lines: IO[str]) -> None:
        with lines:
            for line in lines:
                with self._changed:
                    self._lines.append(line)
                    self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    # -- what it says ---------------------------------------------------------------------------

    @property
    def output(self) -> str:
        """All it has printed so far."""
        with self._changed:
            return "".join(self._lines)

    def mark(self) -> None:
        """A new test begins: what was printed before is not shown when it fails."""
        self._shown = len(self._lines)

    @property
    def recent(self) -> str:
        """What it has printed since the last `mark`."""
        with self._changed:
            return "".join(self._lines[self._shown :])

    def wait_for(self, text: str, timeout: float = START, *, after: int = 0) -> None:
        """Wait until it has printed `text` (in its output from character `after` on).

        Raises:
            AssertionError: it has not, or it has ended without.
        """

        def said() -> bool:
            return text in "".join(self._lines)[after:]

        with self._changed:
            done = self._changed.wait_for(
                lambda: said() or not self._reader.is_alive() or self.ended, timeout
            )
        assert done, f"{self.name} has not said {text!r} in {timeout:g} s:\n{self.output}"
        if not said():
            self._reader.join(5)
        assert said(), f"{self.name} has ended without saying {text!r}:\n{self.output}"

    def wait_listening(self, *ports: int) -> None:
        """Wait until something accepts connections on each of `ports`."""

        def taken(port: int) -> bool:
            assert not self.ended, f"{self.name} has ended:\n{self.output}"
            return accepts(port)

        for port in ports:
            until(lambda: taken(port), f"listener on {port}", START)  # noqa: B023 - used at once

    # -- its life -------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """It runs no more."""
        return self._process.poll() is not None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def wait(self, timeout: float = START) -> int:
        """Wait for its end; its exit code."""
        try:
            code = self._process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(
                f"{self.name} has not ended in {timeout:g} s:\n{self.output}"
            ) from None
        self._reader.join(5)
        return code

    def stop(self) -> int:
        """End it as a service manager would; its exit code."""
        self._process.terminate()
        return self.wait()

    def close(self) -> None:
        """See to it that it is gone."""
        if not self.ended:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self._reader.join(10)

    @property
    def rss(self) -> int:
        """Bytes of memory it has resident now; of Linux's /proc."""
        return self._memory("VmRSS")

    @property
    def peak_rss(self) -> int:
        """The most bytes it has had resident since its start, or since `forget_peak`."""
        return self._memory("VmHWM")

    def forget_peak(self) -> None:
        """From now on the peak is that of what comes."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5", encoding="ascii")

    def _memory(self, name: str) -> int:
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        line = next(line for line in status.splitlines() if line.startswith(f"{name}:"))
        return int(line.split()[1]) * 1024

    @property
    def open_sockets(self) -> int:
        """Sockets it has open; of Linux's /proc."""
        found = 0
        for entry in Path(f"/proc/{self.pid}/fd").iterdir():
            try:
                found += str(entry.readlink()).startswith("socket:")
            except OSError:
                continue
        return found


# -- the mesh's own programs -------------------------------------------------------------------


def hms_sidecar(*arguments: str | Path, env: Mapping[str, str] | None = None) -> Program:
    """`hms sidecar ARGUMENTS` without an admin port, unless they name one."""
    admin = () if "--admin" in arguments else ("--admin", "off")
    return Program("hms", "sidecar", *admin, *arguments, env=env)


def mitmdump_mesh(
    *configs: Path,
    options: tuple[str, ...] = (),
    env: Mapping[str, str] | None = None,
    admin: str = "off",
) -> Program:
    """`mitmdump -s hms_addons/mesh.py` with these configuration files; by default no admin port."""
    return Program(
        "mitmdump",
        *("-s", MESH, "-n", "--set", f"hms_config={','.join(map(str, configs))}"),
        *("--set", f"hms_admin={admin}"),
        *options,
        env=env,
    )


def mitmdump_reverse(
    app_port: int,
    *ports: int,
    config: Path,
    env: Mapping[str, str] | None = None,
    admin: str = "off",
) -> Program:
    """mitmdump with stock `reverse:` modes on `ports`: what the native lane serves."""
    modes = [
        word
        for port in ports
        for word in ("--mode", f"reverse:http://127.0.0.1:{app_port}@127.0.0.1:{port}")
    ]
    return Program(
        "mitmdump",
        *modes,
        *("-s", MESH, "--set", f"hms_config={config}", "--set", f"hms_admin={admin}"),
        env=env,
    )
