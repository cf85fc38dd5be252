"""Run `hms` in this process, and files for it to read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from typer.testing import CliRunner

from hms_addons.cli import app

if TYPE_CHECKING:
    from typer.testing import Result

GOOD = """\
listeners:
  - name: out
    port: 15001
    routes:
      - { name: verify, match: { prefix: /verify-id }, action: { cluster: auth-svc } }
clusters:
  - { name: auth-svc, endpoints: [127.0.0.1:9001] }
"""
BAD = GOOD.replace("port: 15001", "port: 150010").replace("prefix", "prefx")
"""Two errors: in its lines 3 and 5."""


def hms(*arguments: Any, env: dict[str, str] | None = None) -> Result:
    """Run the command; whatever it raises but its exit is a bug."""
    result = CliRunner().invoke(app, [str(word) for word in arguments], env=env)
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def help_of(command: str) -> str:
    """What `hms COMMAND --help` says, in one line."""
    result = hms(*command.split(), "--help", env={"COLUMNS": "160", "TERMINAL_WIDTH": "160"})
    assert result.exit_code == 0
    return " ".join(result.stdout.split())
