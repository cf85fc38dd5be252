from __future__ import annotations

import subprocess
import sys
from textwrap import dedent

import pytest

from tests.fakes.cli import help_of, hms


@pytest.mark.parametrize(
    ("command", "taught"),
    [
        ("", ["check", "explain", "sidecar", "certs"]),
        ("control", ["--data", "--listen", "HMS_LISTEN", "--svid-lifetime", "Example", "SIGTERM"]),
        ("status", ["--watch", "--json", "HMS_CA_PIN", "Example", "Exit code 0"]),
        ("services", ["HMS_ADMIN_TOKEN", "Example"]),
        ("config", ["push", "diff", "history", "rollback", "show", "Example"]),
        (
            "config push",
            [
                "FILE",
                "--dry-run",
                "--made-from",
                "--force",
                "XDG_STATE_HOME",
                "Example",
                "Exit code 0",
            ],
        ),
        ("config diff", ["FROM TO", "Example"]),
        ("config history", ["Example"]),
        ("config rollback", ["N", "Example"]),
        ("config show", ["Example"]),
        ("token", ["create", "list", "revoke", "Example"]),
        ("token create", ["--service", "--ttl", "HMS_TOKEN", "this once"]),
        ("token list", ["never their secrets", "Example"]),
        ("token revoke", ["ID", "Example"]),
        ("ca", ["show", "rotate-root", "Example"]),
        ("ca show", ["--json", "pin"]),
        ("ca rotate-root", ["--now", "--overlap", "join again", "Example"]),
        (
            "sidecar",
            [
                "--control",
                "HMS_TOKEN",
                "--config",
                "HMS_CONFIG",
                "--admin",
                "SIGTERM drains",
                "Example",
            ],
        ),
        ("check", ["FILE", "--json", "Exit code 0"]),
        ("explain", ["FILE", "REQUEST", "--header", "Exit code 0"]),
        ("certs", ["init", "issue"]),
        ("certs init", ["DIR", "--trust-domain", "never overwritten"]),
        ("certs issue", ["SERVICE", "--ca", "--out", "--lifetime"]),
    ],
)
def test_help_teaches(command: str, taught: list[str]) -> None:
    text = help_of(command)
    assert [word for word in taught if word not in text] == []


def test_an_unknown_command_is_a_usage_error() -> None:
    assert hms("sidcar").exit_code == 2


def loaded(code: str, names: tuple[str, ...]) -> str:
    """Which of the modules `names` a fresh Python has loaded after running `code`."""
    look = f"{code}\nprint([name for name in {names} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, encoding="utf-8", check=True
    )
    return done.stdout.splitlines()[-1]


def test_commands_start_without_what_only_a_sidecar_needs() -> None:
    """Scripts call `hms` by the dozen; the data path and the cryptography take most of a second."""
    heavy = ("hms_addons.addons", "hms_addons.upstream", "cryptography", "pydantic", "httpx")
    assert loaded("import sys, hms_addons.cli", heavy) == "[]"


def test_whoever_only_reads_files_does_not_load_what_compiles_them() -> None:
    code = "import sys, hms_addons.operator_client.config_commands, hms_addons.up.starter"
    assert loaded(code, ("hms_addons.config.compile", "hms_addons.config.schema")) == "[]"


def test_what_asks_by_httpx_does_not_load_its_command_line() -> None:
    code = dedent("""
        import sys
        from contextlib import suppress
        from hms_addons.cli import main
        sys.argv = ["hms", "--version"]
        with suppress(SystemExit):
            main()
        import httpx
        httpx.Client, httpx.AsyncClient
        """)
    assert loaded(code, ("rich.console", "pygments", "click", "httpx")) == "['httpx']"
