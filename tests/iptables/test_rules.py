"""Which rules a redirection is. That the kernel takes them: tests/integration/test_interception.py."""

from __future__ import annotations

from ipaddress import ip_network

from hms_addons.iptables.rules import (
    IPV4,
    IPV6,
    Redirection,
    restore_text,
    rules_of,
    script_down,
    script_up,
)

EVERYTHING = Redirection(
    ports=(80, 8080),
    uids=(1337, 0),
    exclude=(ip_network("10.0.0.0/8"), ip_network("fd00::/8")),
    dns=15053,
    inbound=(8000,),
    ipv6=True,
)


def test_the_least_that_it_can_be() -> None:
    assert rules_of(Redirection(), IPV4) == {
        "HMS_OUTPUT": [
            "-m owner --uid-owner 1337 -j RETURN",
            "-d 127.240.240.1/32 -p tcp --dport 80 -j REDIRECT --to-ports 15001",
            "-d 127.0.0.0/8 -j RETURN",
            "-p tcp --dport 80 -j REDIRECT --to-ports 15001",
        ],
        "HMS_INBOUND": [],
    }


def test_the_sidecars_own_calls_come_first_and_dns_before_the_loopback_addresses() -> None:
    found = rules_of(EVERYTHING, IPV4)
    assert found["HMS_OUTPUT"][:5] == [
        "-m owner --uid-owner 1337 -j RETURN",
        "-m owner --uid-owner 0 -j RETURN",
        "-p udp --dport 53 -j REDIRECT --to-ports 15053",
        "-p tcp --dport 53 -j REDIRECT --to-ports 15053",
        "-d 127.240.240.1/32 -p tcp --dport 80 -j REDIRECT --to-ports 15001",
    ]
    assert found["HMS_OUTPUT"][6:] == [
        "-d 127.0.0.0/8 -j RETURN",
        "-d 10.0.0.0/8 -j RETURN",
        "-p tcp --dport 80 -j REDIRECT --to-ports 15001",
        "-p tcp --dport 8080 -j REDIRECT --to-ports 15001",
    ]
    assert found["HMS_INBOUND"] == ["-p tcp --dport 8000 -j REDIRECT --to-ports 15006"]


def test_addresses_are_in_the_rules_of_their_own_version() -> None:
    found = rules_of(EVERYTHING, IPV6)["HMS_OUTPUT"]
    assert "-d fd00::/8 -j RETURN" in found
    assert "-d ::1/128 -j RETURN" in found
    assert not [rule for rule in found if "127." in rule or "10.0.0.0" in rule]


def test_chains_are_filled_all_at_once_and_no_others_are_named() -> None:
    lines = restore_text(EVERYTHING, IPV4).splitlines()
    assert lines[:3] == ["*nat", ":HMS_OUTPUT - [0:0]", ":HMS_INBOUND - [0:0]"]
    assert lines[-1] == "COMMIT"
    assert {line.split()[1] for line in lines[3:-1]} == {"HMS_OUTPUT", "HMS_INBOUND"}


def test_scripts_are_about_what_is_asked_for() -> None:
    assert "ip6tables" not in script_up(Redirection())
    assert "PREROUTING" not in script_up(Redirection())
    whole = script_up(EVERYTHING)
    assert whole.count("<<'RULES'") == whole.count("\nRULES\n") == 2
    assert whole.count("-I PREROUTING 1 -j HMS_INBOUND") == 2
    for word in ("iptables -w", "ip6tables -w", "HMS_OUTPUT", "HMS_INBOUND"):
        assert word in script_down()


def test_what_is_done_is_said_in_words() -> None:
    assert str(Redirection()) == (
        "calls to port 80 are led to port 15001; left alone: calls of the user 1337, calls to 127.0.0.0/8 "
        "(but 127.240.240.1), all of IPv6"
    )
    said = str(EVERYTHING)
    for words in (
        "ports 80, 8080",
        "DNS queries to port 15053",
        "from outside to port 8000",
        "to fd00",
    ):
        assert words in said
    assert "IPv6" not in said
