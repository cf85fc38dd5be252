"""The secrets of one sidecar: an `IdentityHolder` per name, fed from files and kept fresh.

A name that is asked for and that no files provide is the control plane's SVID of this sidecar,
where there is a control plane: all such names share one holder, which is fed elsewhere.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.identity.file_secret import FileSecret
from hms_addons.identity.identity_holder import IdentityHolder, SecretError
from hms_addons.identity.svid import iso_time

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from hms_addons.clock import Clock
    from hms_addons.identity.file_secret import SecretFiles
    from hms_addons.identity.identity_holder import Identity
    from hms_addons.tasks import TaskSet


class SecretsError(SecretError):
    """Some secrets cannot be loaded; holds the name of each, and why."""

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(message for _, message in problems))


class _Entry(NamedTuple):
    """`files` and `secret` are None for what the control plane provides."""

    files: SecretFiles | None
    trust_domain: str | None
    holder: IdentityHolder
    secret: FileSecret | None
    end: Callable[[], object] | None
    """Ends following it; None while it is only staged."""


class SecretStore:
    """Follows a set of file secrets through configuration changes.

    `stage` reads what a new configuration needs without touching what is in use; `commit` makes it
    so; a staged set that is not committed is simply forgotten.

    Args:
        clock: time.
        tasks: runs the file watchers.
        on_change: called with a secret's name after it was swapped for a newer one.
        provided: what the control plane provides; None if there is no control plane.
    """

    def __init__(
        self,
        clock: Clock,
        tasks: TaskSet,
        on_change: Callable[[str], object],
        provided: IdentityHolder | None = None,
    ) -> None:
        self._clock = clock
        self._provided = provided
        self._tasks = tasks
        self._on_change = on_change
        self._entries: dict[str, _Entry] = {}

    def __repr__(self) -> str:
        return f"<SecretStore {', '.join(map(repr, self.holders.values()))}>"

    @property
    def holders(self) -> dict[str, IdentityHolder]:
        """Every secret's holder, by name."""
        return {name: entry.holder for name, entry in self._entries.items()}

    def current(self, name: str) -> Identity | None:
        """The identity in use for the secret `name`, or None."""
        entry = self._entries.get(name)
        return entry.holder.current if entry is not None else None

    def problem(self, name: str) -> str | None:
        """Why it could not be renewed, or that it has expired; None if all is well.

        For files: why they cannot be used as they are now.
        """
        entry = self._entries.get(name)
        if entry is None:
            return None
        found = entry.holder.problem if entry.secret is None else entry.secret.problem
        current = entry.holder.current
        if current is None or not self.expired({name}):
            return found
        expired = f"expired at {iso_time(current.svid.not_after)}"
        return expired if found is None else f"{expired}; {found}"

    def expired(self, names: Iterable[str]) -> list[str]:
        """Those of `names` whose identity in use is out of time."""
        now = self._clock.wall()
        return [
            name
            for name in sorted(names)
            if (current := self.current(name)) is not None and current.svid.not_after <= now
        ]

    def describe(self) -> list[dict[str, Any]]:
        """Every secret that is there, as JSON-ready types; no keys."""
        now = self._clock.wall()
        found = []
        for name, holder in self.holders.items():
            if holder.current is None:
                continue
            svid = holder.current.svid
            found.append(
                {
                    "secret": name,
                    "spiffe_id": str(svid.spiffe_id),
                    "serial": f"{svid.serial:x}",
                    "not_before": iso_time(svid.not_before),
                    "not_after": iso_time(svid.not_after),
                    "remaining_s": round(svid.not_after - now, 1),
                    "generation": holder.current.generation,
                    "problem": self.problem(name),
                }
            )
        return found

    def stage(
        self,
        wanted: Mapping[str, SecretFiles],
        trust_domain: str | None,
        asked: Iterable[str] = (),
    ) -> dict[str, _Entry]:
        """Load what is new in `wanted`; what is the same is kept with its generation.

        Args:
            wanted: the files of each secret that has some.
            trust_domain: the only one accepted; None takes any.
            asked: names of all secrets that something refers to.

        Raises:
            SecretsError: new secrets cannot be loaded; all of them are named.
            SecretError: the provided one is of another trust domain. Nothing has changed.
        """
        staged = self._stage_provided(set(asked) - set(wanted), trust_domain)
        problems = []
        for name, files in wanted.items():
            entry = self._entries.get(name)
            if entry is None or entry.files != files or entry.trust_domain != trust_domain:
                holder = IdentityHolder(name)
                secret = FileSecret(files, holder, self._clock, trust_domain)
                try:
                    secret.load()
                except SecretError as error:
                    problems.append((name, str(error)))
                entry = _Entry(files, trust_domain, holder, secret, None)
            staged[name] = entry
        if problems:
            raise SecretsError(problems)
        return staged

    def commit(self, staged: dict[str, _Entry]) -> list[str]:
        """Use `staged` from now on. Returns the names whose identity is another than before."""
        changed = []
        old, self._entries = self._entries, {}
        for name, entry in staged.items():
            if entry is old.get(name):
                self._entries[name] = entry
                continue
            changed.append(name)
            end: Callable[[], object] = entry.holder.subscribe(partial(self._swapped, name))
            if entry.secret is not None:
                end = self._tasks.start(entry.secret.watch(), f"secret {name}").cancel
            self._entries[name] = entry._replace(end=end)
        for name, entry in old.items():
            if staged.get(name) is not entry and entry.end is not None:
                entry.end()
        return changed

    def _stage_provided(self, names: set[str], trust_domain: str | None) -> dict[str, _Entry]:
        holder = self._provided
        if holder is None or not names:
            return {}
        if (
            holder.current is not None
            and trust_domain is not None
            and holder.current.trust_domain != trust_domain
        ):
            message = (
                f"the control plane's SVID is {holder.current.spiffe_id}, which is not of the "
                f"trust domain {trust_domain!r} that the configuration names"
            )
            raise SecretError(message)
        fresh = _Entry(None, trust_domain, holder, None, None)
        staged = {}
        for name in sorted(names):
            entry = self._entries.get(name)
            same = entry is not None and entry._replace(end=None) == fresh
            staged[name] = entry if entry is not None and same else fresh
        return staged

    def _swapped(self, name: str, _identity: Identity) -> None:
        self._on_change(name)
