"""The mesh's operator: `hms` commands, run as by a person who has copied what `hms control` printed."""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any

from scripts.demonstration.children import DemoError

if TYPE_CHECKING:
    from pathlib import Path

    from scripts.demonstration.processes import Done, Processes

NEEDED = ("HMS_CONTROL", "HMS_CA_PIN")
"""Variables that `hms control` prints at every start."""
SECRETS = ("HMS_ADMIN_TOKEN",)
_TOKEN = re.compile(r"\bhms1\.[\w.-]+")


class Operator:
    """Runs `hms` commands against one control plane.

    Args:
        processes: where they run.
        exports: the file that `hms control` writes its standard output to; mode 0600.
    """

    def __init__(self, processes: Processes, exports: Path) -> None:
        self._processes = processes
        self.exports = exports

    def __repr__(self) -> str:
        return f"<Operator {self.exports}>"

    def environment(self) -> dict[str, str]:
        """What a shell would have after reading the file; empty while something is missing."""
        found = exported(self.exports.read_text(encoding="utf-8"))
        return found if all(name in found for name in NEEDED) else {}

    def public(self) -> dict[str, str]:
        """The part that sidecars need: no secret in it."""
        return {name: value for name, value in self.environment().items() if name not in SECRETS}

    def run(self, *words: str) -> Done:
        """Run `hms WORDS…` to its end."""
        # What this operator has seen is the demonstration's, not that of whoever runs it.
        own = {"XDG_STATE_HOME": str(self.exports.parent.absolute() / "operator-state")}
        command = self._processes.program(["hms", *words])
        return self._processes.run(command, {**self.environment(), **own})

    def json(self, *words: str) -> tuple[int, Any]:
        """Run `hms WORDS… --json`. Returns its exit code and what it printed.

        Raises:
            DemoError: that is no JSON.
        """
        done = self.run(*words, "--json")
        try:
            return done.code, json.loads(done.text)
        except ValueError as error:
            raise DemoError(f"hms {' '.join(words)} --json has printed:\n{done.text}") from error

    def token(self, service: str) -> str:
        """A join token for one sidecar of `service`.

        Raises:
            DemoError: there is none to be had.
        """
        done = self.run("token", "create", "--service", service)
        found = _TOKEN.search(done.text)
        if done.code or found is None:
            raise DemoError(f"hms token create --service {service} has printed:\n{done.text}")
        return found[0]


def exported(text: str) -> dict[str, str]:
    """The variables that a shell would have after `export NAME=value` lines; later ones count."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["export"]:
            found.update(word.partition("=")[::2] for word in words[1:] if "=" in word)
    return found
