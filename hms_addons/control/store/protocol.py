"""What a store does: the contract between the control plane and whatever keeps its state.

Modelled on etcd's data model (https://etcd.io/docs/v3.5/learning/data_model/), so that etcd can
stand behind it: one revision for the whole store, compare by the revision of a key's last write,
leases that end keys, watches that start after a revision and fail when the history is gone.

Keys are texts of at most `MAX_KEY_LENGTH` characters, by convention a path (`services/auth-svc/7`). A prefix is a
plain prefix of the key: end it with `/` to mean a folder.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from hms_addons.errors import MeshError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

MAX_KEY_LENGTH: Final = 1024
"""Characters. A key is not empty and holds neither NUL nor half a surrogate pair."""


class StoreError(MeshError):
    """The store could not do what was asked, and nothing has changed. The message says why."""


class StoreClosedError(StoreError):
    """The store has been closed."""


class ConflictError(StoreError):
    """A key is not as the writer expected it: somebody else has written it.

    Args:
        key: which one.
        revision: of its last write; 0 when there is no such key.
    """

    def __init__(self, key: str, revision: int) -> None:
        now = f"was last written at revision {revision}" if revision else "does not exist"
        super().__init__(f"{key} has changed meanwhile: it {now}; read it again and decide anew")
        self.key = key
        self.revision = revision


class CompactedError(StoreError):
    """A watch cannot go on: changes after its revision are no longer known.

    The remedy: `list` again, and watch after the store's revision from before that.

    Args:
        revision: the store's, now.
    """

    def __init__(self, revision: int) -> None:
        super().__init__(f"the history is gone; read everything again (now revision {revision})")
        self.revision = revision


class LeaseError(StoreError):
    """There is no such lease: it has expired, was revoked, or was never granted."""

    def __init__(self, lease: str) -> None:
        super().__init__(f"the lease {lease} is over; take a new one")
        self.lease = lease


class Entry(NamedTuple):
    """What one key holds."""

    key: str
    value: bytes
    revision: int
    """Of its last write."""
    lease: str | None
    """The lease that it ends with; None: it stays."""


class Event(NamedTuple):
    """One key's change."""

    key: str
    value: bytes | None
    """None: it was deleted, or its lease is over."""
    revision: int
    """Of the batch that did it; the events of one batch all have the same."""


class Write(NamedTuple):
    """One key's change in a batch."""

    key: str
    value: bytes | None
    """None deletes; to delete what is not there changes nothing."""
    expected: int | None = None
    """The revision that the key's last write must have: 0, there must be no such key; None, any."""
    lease: str | None = None
    """The lease that the key ends with from now on; None: none, whatever it had before."""


class Store(Protocol):
    """Keys and values, for one process that owns them.

    Every method may raise `StoreError`. A write that has returned is on disk: it survives the process
    being killed. One that was cancelled, or that raised anything but `ConflictError` or `LeaseError`, may
    or may not have taken place, but has done so whole or not at all, and a watch tells.
    """

    @property
    def revision(self) -> int:
        """Of the last write; 0: nothing was ever written.

        It grows by one with each batch that changes anything, never goes back, survives restarts.
        """

    async def get(self, key: str) -> Entry | None:
        """What `key` holds, or None."""

    async def put(
        self, key: str, value: bytes, *, expected: int | None = None, lease: str | None = None
    ) -> int:
        """Write one key. The same value again is a write like any other.

        Args:
            key: which.
            value: what it shall hold.
            expected: see `Write`.
            lease: see `Write`.

        Returns:
            The revision.

        Raises:
            ConflictError: the key is not as expected.
            LeaseError: there is no such lease.
        """

    async def delete(self, key: str, *, expected: int | None = None) -> int | None:
        """Delete one key.

        Returns:
            The revision; None when there was no such key.

        Raises:
            ConflictError: the key is not as expected.
        """

    async def write(self, writes: Sequence[Write]) -> int:
        """Make several changes at once, or none of them.

        Returns:
            The revision, the same for all of them; the present one when nothing changed (deletes of
            what was not there, or no writes).

        Raises:
            ConflictError: a key is not as expected; the first such.
            LeaseError: there is no such lease.
            ValueError: a key is there twice, or is none (see `check_key`).
        """

    async def list(self, prefix: str) -> list[Entry]:
        """All entries whose key begins with `prefix`, by key, as they were at one moment."""

    async def grant(self, ttl: float) -> str:
        """A new lease, which ends `ttl` seconds from now or from the last `keep_alive`.

        With it end the keys written under it, all in one batch. Time is that of a clock which is
        never set; while the store is not running it stands still, and a lease that was there when
        the store stops gets its whole TTL when it starts again. So an outage of the store ends
        nothing. The lease itself goes when it ends, not when its last key goes.
        """

    async def keep_alive(self, lease: str) -> bool:
        """Let the lease begin anew; False when it is over. Cheap: writes nothing."""

    async def revoke(self, lease: str) -> None:
        """End a lease and its keys now; nothing happens when it is over already."""

    def watch(self, prefix: str, after: int) -> AsyncIterator[tuple[Event, ...]]:
        """Every change of keys that begin with `prefix`, after the revision `after`, in order.

        Yields batches: the events of one revision, by key, at least one. So a reader never sees half
        of what was written at once, and may go on after the revision of any batch. It waits
        for further ones until it is closed or cancelled.

        A reader that is too slow does not make the store keep more for it: it gets a
        `CompactedError`.

        Raises:
            CompactedError: the changes after `after` are no longer all known, or `after` is above
                the store's revision, that is, of another history.
            StoreClosedError: the store was closed; also while waiting.
        """

    async def close(self) -> None:
        """Finish what was begun, let go of the file, end the watches. Idempotent."""


def check_key(key: str) -> None:
    """Raise ValueError unless `key` can be one."""
    if not key or len(key) > MAX_KEY_LENGTH or "\0" in key or not _encodable(key):
        message = f"{key[:80]!r} is no key: 1 to {MAX_KEY_LENGTH} characters, without NUL"
        raise ValueError(message)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
