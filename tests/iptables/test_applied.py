"""The commands that change rules, against a machine of a few lines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from hms_addons.iptables.applied import (
    Iptables,
    IptablesError,
    Ran,
    is_the_machines,
    namespace,
    run,
)
from hms_addons.iptables.rules import Redirection

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FINE = Ran(0, "")
NO = Ran(1, "Bad rule (does a matching rule exist in that chain?).")
ROOT = Ran(
    4, "iptables v1.8.9 (nf_tables): Could not fetch rule set: Permission denied (you must be root)"
)
NO_TABLE = Ran(3, "can't initialize ip6tables table `nat': Table does not exist")


class Machine:
    """Jumps and chains of the nat table, by command."""

    def __init__(self, **refused: Ran) -> None:
        self.jumps: list[tuple[str, str, str]] = []
        self.chains: set[tuple[str, str]] = set()
        self.refused = refused
        self.commands: list[str] = []

    def __call__(self, command: Sequence[str], given: str) -> Ran:
        self.commands.append(" ".join(command))
        who = command[0].removesuffix("-restore").replace("-", "_")
        if who in self.refused:
            return self.refused[who]
        if "-restore" in command[0]:
            named = [line[1:].split()[0] for line in given.splitlines() if line.startswith(":")]
            self.chains |= {(who, name) for name in named}
            return FINE
        verb, chain = command[5:7]
        jump = (who, chain, command[-1])
        if verb == "-I":
            assert (who, command[-1]) in self.chains, "a jump to a chain that is not there"
            self.jumps.append(jump)
        elif verb in {"-C", "-D"}:
            if jump not in self.jumps:
                return NO
            if verb == "-D":
                self.jumps.remove(jump)
        elif verb == "-S":
            return FINE if chain == "OUTPUT" or (who, chain) in self.chains else NO
        elif verb == "-X":
            self.chains.remove((who, chain))
        return FINE


def test_up_is_up_however_often() -> None:
    machine = Machine()
    for _ in range(2):
        Iptables(runs=machine).up(Redirection(inbound=(8000,), ipv6=True))
    assert sorted(machine.jumps) == [
        (who, of, chain)
        for who in ("ip6tables", "iptables")
        for of, chain in (("OUTPUT", "HMS_OUTPUT"), ("PREROUTING", "HMS_INBOUND"))
    ]


def test_what_is_not_asked_for_any_more_goes() -> None:
    machine = Machine()
    Iptables(runs=machine).up(Redirection(inbound=(8000,), ipv6=True))
    Iptables(runs=machine).up(Redirection())
    assert machine.jumps == [("iptables", "OUTPUT", "HMS_OUTPUT")]
    assert machine.chains == {("iptables", "HMS_OUTPUT")}


def test_down_takes_what_up_has_made_and_leaves_what_others_have() -> None:
    machine = Machine()
    machine.jumps.append(("iptables", "OUTPUT", "DOCKER"))
    machine.chains.add(("iptables", "DOCKER"))
    Iptables(runs=machine).up(Redirection(inbound=(8000,), ipv6=True))
    machine.jumps.append(("iptables", "OUTPUT", "HMS_OUTPUT"))  # somebody's script, run twice
    for _ in range(2):
        Iptables(runs=machine).down()
    assert machine.jumps == [("iptables", "OUTPUT", "DOCKER")]
    assert machine.chains == {("iptables", "DOCKER")}


def test_the_kind_of_iptables_can_be_chosen() -> None:
    machine = Machine()
    Iptables("legacy", machine).up(Redirection(ipv6=True))
    assert {command.split()[0] for command in machine.commands} == {
        "iptables-legacy-restore",
        "iptables-legacy",
        "ip6tables-legacy-restore",
        "ip6tables-legacy",
    }


def test_without_the_right_it_is_said_what_it_takes() -> None:
    refused = Iptables(runs=Machine(iptables=ROOT))
    for act in (partial(refused.up, Redirection()), refused.down):
        with pytest.raises(IptablesError, match="CAP_NET_ADMIN, in the network namespace") as error:
            act()
        assert "you must be root" in str(error.value)


def test_a_kernel_without_the_table_is_told_of_by_ipv4_only() -> None:
    machine = Machine(ip6tables=NO_TABLE)
    Iptables(runs=machine).up(Redirection())
    Iptables(runs=machine).down()
    with pytest.raises(IptablesError, match=r"--variant legacy or nft \(IPv4 is led already\)"):
        Iptables(runs=machine).up(Redirection(ipv6=True))


def test_without_ip6tables_there_is_nothing_to_take_away() -> None:
    machine = Machine()

    def runs(command: Sequence[str], given: str) -> Ran:
        if command[0].startswith("ip6"):
            return run(["/nowhere/ip6tables"])
        return machine(command, given)

    Iptables(runs=runs).up(Redirection())
    Iptables(runs=runs).down()
    with pytest.raises(IptablesError, match="apt-get install iptables"):
        Iptables(runs=lambda command, given: run(["/nowhere/iptables"])).down()


def test_a_command_is_run_with_what_it_is_given() -> None:
    assert run(
        ["sh", "-c", "read x; echo '# Warning: no matter' >&2; echo $x >&2; exit 3"], "why"
    ) == (
        3,
        "why",
    )


def test_the_machines_own_namespace_is_known_by_its_init(tmp_path: Path) -> None:
    for process in ("1", "self"):
        (tmp_path / process / "ns").mkdir(parents=True)
        (tmp_path / process / "ns" / "net").symlink_to("net:[1]")
    for name, its in (("systemd", True), ("hms", False)):
        (tmp_path / "1" / "comm").write_text(f"{name}\n")
        assert is_the_machines(tmp_path) is its
    (tmp_path / "1" / "comm").write_text("systemd\n")
    (tmp_path / "self" / "ns" / "net").unlink()
    (tmp_path / "self" / "ns" / "net").symlink_to("net:[2]")
    assert not is_the_machines(tmp_path)
    assert namespace(tmp_path) == "net:[2]"
    assert not is_the_machines(tmp_path / "nothing")
    assert namespace(tmp_path / "nothing") == "this network namespace"
