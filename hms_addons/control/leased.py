"""Keys that live only as long as somebody repeats them: instances, sidecars' reports.

A repetition that says nothing new only keeps the key's lease alive and writes nothing, so a thousand
sidecars that renew cost no disk and wake nobody.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from hms_addons.control.store.protocol import ConflictError, LeaseError

if TYPE_CHECKING:
    from hms_addons.control.store.protocol import Store


class _Kept(NamedTuple):
    value: bytes
    ttl: float
    lease: str


class LeasedKeys:
    """Keys with a lease each, in `store`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._kept: dict[str, _Kept] = {}
        """What this process wrote last and knows to have a lease; a cache, never the truth."""

    def __repr__(self) -> str:
        return f"<LeasedKeys {len(self._kept)}>"

    async def put(self, key: str, value: bytes, ttl: float) -> int | None:
        """Let `key` hold `value` for `ttl` seconds from now.

        Returns:
            The revision of the write; None when it held that already and was only renewed.

        Raises:
            StoreError: it could not be written.
        """
        kept = self._kept.get(key)
        if (
            kept is not None
            and (kept.value, kept.ttl) == (value, ttl)
            and await self._store.keep_alive(kept.lease)
        ):
            return None
        while True:
            try:
                return await self._write(key, value, ttl)
            except (ConflictError, LeaseError):
                continue  # written, or run out, meanwhile: look again

    async def delete(self, key: str) -> int | None:
        """Delete `key`; the revision, or None when there is none."""
        self._kept.pop(key, None)  # its lease ends by itself
        return await self._store.delete(key)

    def forget(self, key: str) -> None:
        """It is gone from the store."""
        self._kept.pop(key, None)

    async def _write(self, key: str, value: bytes, ttl: float) -> int | None:
        entry = await self._store.get(key)
        kept = self._kept.get(key)
        lease = None
        if entry is not None and entry.lease is not None and (kept is None or kept.ttl == ttl):
            lease = entry.lease if await self._store.keep_alive(entry.lease) else None
        if lease is not None and entry is not None and entry.value == value:
            self._kept[key] = _Kept(value, ttl, lease)
            return None
        if lease is None:
            lease = await self._store.grant(ttl)
        expected = 0 if entry is None else entry.revision
        revision = await self._store.put(key, value, expected=expected, lease=lease)
        self._kept[key] = _Kept(value, ttl, lease)
        return revision
