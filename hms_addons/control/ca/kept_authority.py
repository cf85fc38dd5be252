"""The CA's state in the store: read once, written by one process, never guessed at."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.authority_state import AuthorityState

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.control.store.protocol import Store

STATE_KEY: Final = "ca/state"

_TRACES: Final = ("ca/", "tokens/", "sidecars/")
"""What a control plane writes only once it has a CA."""


class KeptAuthority:
    """One trust domain's `AuthorityState` in a store.

    Args:
        store: where it lies, under `STATE_KEY`; no other process may write there.
        clock: tells now.
        trust_domain: whose it must be.
    """

    __slots__ = ("_clock", "_doubtful", "_revision", "_store", "_trust_domain")

    def __init__(self, store: Store, clock: Clock, trust_domain: str) -> None:
        self._store = store
        self._clock = clock
        self._trust_domain = trust_domain
        self._revision = 0
        self._doubtful = False

    def __repr__(self) -> str:
        return f"<KeptAuthority {self._trust_domain} revision={self._revision}>"

    async def read(self) -> AuthorityState | None:
        """What the store holds; None if it has never held any.

        Raises:
            CaError: it is damaged, foreign or expired; or the store has traces of a CA, and no CA.
            StoreError: it cannot say.
        """
        entry = await self._store.get(STATE_KEY)
        if entry is None:
            for prefix in _TRACES:
                if await self._store.list(prefix):
                    message = (
                        f"this store holds `{prefix}…` but no CA: it has lost it; restore the "
                        "data folder from a backup, or begin anew with another --data"
                    )
                    raise CaError(message)
            return None
        state = AuthorityState.from_bytes(entry.value, self._trust_domain, self._clock.wall())
        self._revision = entry.revision
        return state

    async def write(self, state: AuthorityState) -> None:
        """Write a state over the one that was read or written last.

        Raises:
            ConflictError: another process has written meanwhile.
            StoreError: it may or may not be written; `read_again` tells.
        """
        self._doubtful = True  # whatever ends the write without an answer
        self._revision = await self._store.put(STATE_KEY, state.to_bytes(), expected=self._revision)
        self._doubtful = False

    async def read_again(self) -> AuthorityState | None:
        """After a write without an answer: what the store holds, if that is something new.

        Raises:
            CaError: it cannot be used, or is gone.
            StoreError: the store cannot say.
        """
        if not self._doubtful:
            return None
        entry = await self._store.get(STATE_KEY)
        if entry is None:
            message = "the store has lost the CA: stop, and restore the data folder from a backup"
            raise CaError(message)
        state = None
        if entry.revision != self._revision:
            state = AuthorityState.from_bytes(entry.value, self._trust_domain, self._clock.wall())
            self._revision = entry.revision
        self._doubtful = False
        return state
