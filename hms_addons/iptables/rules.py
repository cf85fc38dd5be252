"""Which rules a redirection is, and the same as a script to be read, or run, by a person."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.config.snapshot_interception import MESH_ADDRESS

if TYPE_CHECKING:
    from collections.abc import Iterator

type Network = IPv4Network | IPv6Network

DNS: Final = 53
PATIENCE: Final = 5
"""Seconds that iptables waits for whoever else changes rules."""


class Chain(NamedTuple):
    """A chain of ours, and the one of the kernel's that leads to it."""

    name: str
    of: str


OUTPUT: Final = Chain("HMS_OUTPUT", "OUTPUT")
INBOUND: Final = Chain("HMS_INBOUND", "PREROUTING")
CHAINS: Final = (OUTPUT, INBOUND)


class Family(NamedTuple):
    """An IP version, as iptables has it."""

    version: int
    command: str
    loopback: Network


IPV4: Final = Family(4, "iptables", ip_network("127.0.0.0/8"))
IPV6: Final = Family(6, "ip6tables", ip_network("::1/128"))
FAMILIES: Final = (IPV4, IPV6)


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirection:
    """What is led where.

    Attributes:
        ports: TCP ports that the app calls.
        to: the transparent listener's port.
        uids: users whose calls are left alone: the sidecar's.
        exclude: networks that are called as before.
        dns: the DNS listener's port; None leaves DNS alone.
        inbound: TCP ports of the app that others call.
        inbound_to: the inbound listener's port.
        ipv6: IPv6 too, by ip6tables; the listeners must be there, on ::1.
    """

    ports: tuple[int, ...] = (80,)
    to: int = 15001
    uids: tuple[int, ...] = (1337,)
    exclude: tuple[Network, ...] = ()
    dns: int | None = None
    inbound: tuple[int, ...] = ()
    inbound_to: int = 15006
    ipv6: bool = False

    @property
    def families(self) -> tuple[Family, ...]:
        """The IP versions that it is about."""
        return FAMILIES if self.ipv6 else (IPV4,)

    @property
    def chains(self) -> tuple[Chain, ...]:
        """Those of our chains that have rules."""
        return CHAINS if self.inbound else (OUTPUT,)

    def __str__(self) -> str:
        """In words, for whoever is about to do it."""
        users = " and ".join(map(str, self.uids))
        led = [f"calls to {_named(self.ports)} are led to port {self.to}"]
        if self.dns is not None:
            led.append(f"DNS queries to port {self.dns}")
        if self.inbound:
            led.append(f"calls from outside to {_named(self.inbound)} to port {self.inbound_to}")
        left = [f"calls of the user {users}", f"calls to {IPV4.loopback} (but {MESH_ADDRESS})"]
        left += [f"to {network}" for network in self.exclude]
        if not self.ipv6:
            left.append("all of IPv6")
        return f"{', '.join(led)}; left alone: {', '.join(left)}"


def _named(ports: tuple[int, ...]) -> str:
    return f"port{'s' if len(ports) > 1 else ''} {', '.join(map(str, ports))}"


def rules_of(redirection: Redirection, family: Family) -> dict[str, list[str]]:
    """The rules of each of our chains, as iptables takes them after `-A CHAIN`.

    Both chains are there, an unused one without rules: what an earlier redirection had in it is gone.
    """
    inbound = [_redirect("tcp", port, redirection.inbound_to) for port in redirection.inbound]
    return {OUTPUT.name: list(_output(redirection, family)), INBOUND.name: inbound}


def _output(redirection: Redirection, family: Family) -> Iterator[str]:
    for uid in redirection.uids:
        # First: else the sidecar's own calls would come back to it.
        yield f"-m owner --uid-owner {uid} -j RETURN"
    if redirection.dns is not None:
        # Before the loopback addresses: a resolver is often at 127.0.0.11 or 127.0.0.53.
        for protocol in ("udp", "tcp"):
            yield _redirect(protocol, DNS, redirection.dns)
    if family is IPV4:
        for port in redirection.ports:
            yield f"-d {MESH_ADDRESS}/32 {_redirect('tcp', port, redirection.to)}"
    yield f"-d {family.loopback} -j RETURN"
    for network in redirection.exclude:
        if network.version == family.version:
            yield f"-d {network} -j RETURN"
    for port in redirection.ports:
        yield _redirect("tcp", port, redirection.to)


def _redirect(protocol: str, port: int, to: int) -> str:
    return f"-p {protocol} --dport {port} -j REDIRECT --to-ports {to}"


def restore_text(redirection: Redirection, family: Family) -> str:
    """What `iptables-restore --noflush` reads: fills our chains, all at once, and touches no other."""
    rules = rules_of(redirection, family)
    lines = ["*nat", *(f":{chain} - [0:0]" for chain in rules)]
    lines += [f"-A {chain} {rule}" for chain, found in rules.items() for rule in found]
    return "\n".join([*lines, "COMMIT", ""])


def script_up(redirection: Redirection) -> str:
    """The shell script that does it; run twice, it does no more than once."""
    parts = []
    for family in redirection.families:
        iptables = family.command
        parts.append(f"{iptables}-restore --noflush --wait {PATIENCE} <<'RULES'\n")
        parts.append(f"{restore_text(redirection, family)}RULES\n")
        for chain in redirection.chains:
            jump = f"{chain.of} -j {chain.name}"
            there = f"{iptables} -w {PATIENCE} -t nat -C {jump} 2>/dev/null"
            first = f"{iptables} -w {PATIENCE} -t nat -I {chain.of} 1 -j {chain.name}"
            parts.append(f"{there} || {first}\n")
    return "".join(parts)


def script_down() -> str:
    """The shell script that takes away what any redirection has put there, and nothing else."""
    parts = []
    for family in FAMILIES:
        iptables = f"{family.command} -w {PATIENCE} -t nat"
        for chain in CHAINS:
            parts += [
                f"while {iptables} -D {chain.of} -j {chain.name} 2>/dev/null; do :; done\n",
                f"{iptables} -F {chain.name} 2>/dev/null && {iptables} -X {chain.name}\n",
            ]
    return "".join(parts)
