from __future__ import annotations

import subprocess
import sys

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


def test_commands_start_without_what_only_a_sidecar_needs() -> None:
    """Scripts call `hms` by the dozen; the data path and the cryptography take most of a second."""
    heavy = ("hms_addons.addons", "hms_addons.upstream", "cryptography", "pydantic", "httpx")
    code = f"import sys, hms_addons.cli; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, encoding="utf-8", check=True
    )
    assert done.stdout == "[]\n"
