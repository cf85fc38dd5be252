"""`hms iptables`, as far as nothing is applied; tests/integration/test_interception.py does that."""

from __future__ import annotations

import json

import pytest

from hms_addons.iptables import applied
from tests.fakes.cli import help_of, hms


def test_up_prints_what_it_would_do() -> None:
    result = hms("iptables", "up", "--ports", "80, 8080", "--uid", "root", "--uid", "7")
    assert result.exit_code == 0
    head, _, script = result.stdout.partition("\n# Nothing is changed yet: ")
    assert head.startswith(
        "# calls to ports 80, 8080 are led to port 15001; left alone: calls of the"
    )
    assert "-m owner --uid-owner 0 -j RETURN\n-A HMS_OUTPUT -m owner --uid-owner 7" in script
    assert "iptables-restore --noflush" in script


def test_for_scripts() -> None:
    found = json.loads(hms("iptables", "up", "--dns", "15053", "--json").stdout)
    assert found["applied"] is False
    assert found["namespace"].startswith("net:[")
    assert (
        "-p udp --dport 53 -j REDIRECT --to-ports 15053" in found["rules"]["iptables"]["HMS_OUTPUT"]
    )
    assert found["script"].startswith("iptables-restore")
    assert json.loads(hms("iptables", "down", "--json").stdout)["applied"] is False
    assert "-X HMS_OUTPUT" in hms("iptables", "down").stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--ports 80,x", "--ports 80,x: give ports with commas, as 80,8080"),
        ("--ports 65536", "--ports 65536: give ports"),
        ("--ports 0", "--ports 0: give ports"),
        (f"--ports {','.join(map(str, range(1, 66)))}", "65 ports are more than the 64"),
        (
            "--ports 15001",
            "--ports 15001 and --to 15001: a listener's own port cannot be led to it",
        ),
        ("--inbound 15006", "--inbound 15006 and --inbound-to 15006"),
        ("--ports 53 --dns 15053", "DNS over TCP can go to one of them only"),
        ("--exclude here", "--exclude here: give an address or a network, as 10.0.0.0/8"),
        ("--uid nobody-of-this-name", "there is no such user here; give its number"),
        ("--variant ebpf", "--variant ebpf: give nft or legacy"),
    ],
)
def test_refused(words: str, said: str) -> None:
    result = hms("iptables", "up", *words.split(), *([] if "variant" not in words else ["--apply"]))
    assert result.exit_code == 2
    assert said in result.stderr


def test_tls_is_warned_of() -> None:
    result = hms("iptables", "up", "--ports", "80,443")
    assert result.exit_code == 0
    assert "port 443 is usually TLS" in result.stderr


def test_a_machines_own_namespace_is_not_changed_by_mistake(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whether this machine has an init system is not for a test to say.
    monkeypatch.setattr(applied, "is_the_machines", lambda: True)
    for verb in ("up", "down"):
        result = hms("iptables", verb, "--apply")
        assert result.exit_code == 1
        assert "the machine's own network namespace" in result.stderr
        assert "--host" in result.stderr


def test_help_teaches() -> None:
    assert "http://auth-svc.svc" in help_of("iptables")
    up = help_of("iptables up")
    for word in ("--dns", "--uid", "HMS_IPTABLES_PORTS", "Example", "--apply", "127.240.240.1"):
        assert word in up
    assert "Example" in help_of("iptables down")
