"""The rules, put into this network namespace and taken out of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.errors import MeshError
from hms_addons.iptables.rules import CHAINS, FAMILIES, PATIENCE, Family, restore_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hms_addons.iptables.rules import Chain, Redirection

LIMIT: Final = 60.0
"""Seconds that one command has."""
_INITS: Final = frozenset({"systemd", "init", "openrc-init", "runit", "s6-svscan", "launchd"})
_NOT_ALLOWED: Final = ("you must be root", "operation not permitted", "permission denied")


class IptablesError(MeshError):
    """The rules could not be changed; says why, and what helps."""


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    error: str


def run(command: Sequence[str], given: str = "") -> Ran:
    """Run a command to its end.

    Raises:
        IptablesError: there is no such command, or it does not end.
    """
    try:
        done = subprocess.run(  # noqa: S603 - the command is ours
            command, input=given, capture_output=True, text=True, timeout=LIMIT, check=False
        )
    except FileNotFoundError:
        message = f"{command[0]} is not installed; on Debian: apt-get install iptables"
        raise IptablesError(message) from None
    except (OSError, subprocess.TimeoutExpired) as error:
        raise IptablesError(f"{command[0]}: {error}") from None
    said = [line for line in done.stderr.splitlines() if not line.startswith("# Warning")]
    return Ran(done.returncode, "\n".join(said).strip())


class Iptables:
    """Changes rules by the commands `iptables` and `ip6tables`.

    Args:
        variant: which of the two kinds, as `nft` or `legacy`; empty: the machine's default.
        runs: runs a command.
    """

    def __init__(self, variant: str = "", runs: Callable[[Sequence[str], str], Ran] = run) -> None:
        self._variant = f"-{variant}" if variant else ""
        self._runs = runs

    def up(self, redirection: Redirection) -> None:
        """Lead calls to the sidecar; once it is so, again changes nothing but what is different.

        Raises:
            IptablesError: it is not so, or only for IPv4, which the message says.
        """
        done: list[str] = []
        for family in redirection.families:
            try:
                self._up(redirection, family)
            except IptablesError as error:
                so_far = f" ({', '.join(done)} is led already)" if done else ""
                raise IptablesError(f"{error}{so_far}") from None
            done.append(f"IPv{family.version}")
        for family in FAMILIES:
            if family not in redirection.families:
                self._down(family)  # of an earlier redirection

    def _up(self, redirection: Redirection, family: Family) -> None:
        restore = (f"{family.command}{self._variant}-restore", "--noflush", "-w", str(PATIENCE))
        self._must(family, restore, restore_text(redirection, family))
        for chain in CHAINS:
            if chain not in redirection.chains:
                self._remove(family, chain)
            elif self._nat(family, "-C", chain.of, "-j", chain.name).code:
                # First, before what others lead elsewhere: Docker's resolver, say.
                self._must(family, self._command(family, "-I", chain.of, "1", "-j", chain.name))

    def down(self) -> None:
        """Take away what `up` has made, and nothing else; nothing there is fine.

        Raises:
            IptablesError: something of it may still be there.
        """
        for family in FAMILIES:
            self._down(family)

    def _down(self, family: Family) -> None:
        try:
            looked = self._nat(family, "-S", "OUTPUT")
        except IptablesError:
            if family is FAMILIES[0]:
                raise
            return  # without ip6tables nobody has made rules for IPv6
        if looked.code:
            if family is FAMILIES[0] or _is_about_rights(looked.error):
                raise self._failed(family, looked)
            return  # this kernel has no such table
        for chain in CHAINS:
            self._remove(family, chain)

    def _remove(self, family: Family, chain: Chain) -> None:
        while not self._nat(family, "-D", chain.of, "-j", chain.name).code:
            pass
        if self._nat(family, "-S", chain.name).code:
            return  # it is not there
        self._must(family, self._command(family, "-F", chain.name))
        self._must(family, self._command(family, "-X", chain.name))

    def _command(self, family: Family, *words: str) -> tuple[str, ...]:
        return (f"{family.command}{self._variant}", "-w", str(PATIENCE), "-t", "nat", *words)

    def _nat(self, family: Family, *words: str) -> Ran:
        return self._runs(self._command(family, *words), "")

    def _must(self, family: Family, command: Sequence[str], given: str = "") -> None:
        ran = self._runs(command, given)
        if ran.code:
            raise self._failed(family, ran)

    def _failed(self, family: Family, ran: Ran) -> IptablesError:
        said = ran.error or f"it ended with {ran.code}"
        if _is_about_rights(said):
            remedy = (
                "that takes root, or the capability CAP_NET_ADMIN, in the network namespace of the app; "
                "without --apply the commands are printed"
            )
        else:
            remedy = (
                "the kernel must have the nat table and the match `owner` for it; or try the other kind, "
                "--variant legacy or nft"
            )
        return IptablesError(f"{family.command}{self._variant}: {said}\n{remedy}")


def _is_about_rights(said: str) -> bool:
    return any(words in said.lower() for words in _NOT_ALLOWED)


def namespace(proc: Path = Path("/proc")) -> str:
    """The name of the network namespace that this runs in, as `net:[4026531840]`."""
    try:
        return str((proc / "self/ns/net").readlink())
    except OSError:
        return "this network namespace"


def is_the_machines(proc: Path = Path("/proc")) -> bool:
    """Whether that is a whole machine's: the one of its init system, as far as can be seen."""
    try:
        init = (proc / "1/comm").read_text(encoding="utf-8").strip()
        same = (proc / "1/ns/net").readlink() == (proc / "self/ns/net").readlink()
    except OSError:
        return False
    return same and init in _INITS
