"""What is kept: bounded, the least recently used dropped first."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from hms_addons.http_message import Fields

_OVERHEAD: Final = 1024
"""Bytes that an entry costs besides its content."""

type Key = tuple[bytes, bytes]
"""Digests: of the URI, and of who may have it."""
type Selected = tuple[tuple[bytes, bytes | None], ...]
"""The request fields that `Vary` names, and their values."""


class Entry(NamedTuple):
    """An answer that is kept."""

    status: int
    reason: bytes
    fields: Fields
    """Without `Age`, and with a `Date`."""
    body: bytes
    selected: Selected
    cache_control: str
    """How long it is fresh, in RFC 9111's words: also where `Expires` said so."""
    age: float
    """Seconds, when it was stored or last validated."""
    stored: float
    """Monotonic seconds, of the same moment."""

    @property
    def size(self) -> int:
        """Bytes that it costs."""
        selected = sum(len(n) + len(v or b"") for n, v in self.selected)
        return _OVERHEAD + len(self.body) + sum(len(n) + len(v) for n, v in self.fields) + selected

    def age_at(self, now: float) -> float:
        """Its current age in seconds (RFC 9111 section 4.2.3)."""
        return self.age + max(0.0, now - self.stored)


class Store:
    """Answers by URI, caller and what `Vary` names."""

    def __init__(self) -> None:
        self.max_bytes = 0
        self.max_entries = 0
        self.size = 0
        self.counts: Counter[str] = Counter()
        """`stored`, `evicted` and `invalidated`, since the start."""
        self._entries: OrderedDict[tuple[Key, Selected], Entry] = OrderedDict()
        self._by_key: dict[Key, set[Selected]] = {}
        self._by_uri: dict[bytes, set[Key]] = {}
        self._changes: OrderedDict[bytes, int] = OrderedDict()
        self._forgotten = 0
        self.change = 0
        """Grows with every change of something by a request."""

    def __repr__(self) -> str:
        return f"<Store entries={len(self)} bytes={self.size}>"

    def __len__(self) -> int:
        return len(self._entries)

    def resize(self, max_bytes: int, max_entries: int) -> None:
        """Set the bounds."""
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._shrink()

    def clear(self) -> None:
        """Forget everything."""
        for name, selected in tuple(self._entries):
            self._drop(name, selected)

    def variants(self, key: Key) -> list[Entry]:
        """All answers for a URI and a caller."""
        return [self._entries[key, selected] for selected in self._by_key.get(key, ())]

    def used(self, key: Key, entry: Entry) -> None:
        """It was given again."""
        if (key, entry.selected) in self._entries:
            self._entries.move_to_end((key, entry.selected))

    def put(self, key: Key, entry: Entry, since: int) -> bool:
        """Keep an answer in place of one like it; whether that was done.

        Args:
            key: see `Key`.
            entry: the answer.
            since: `change`, when it was asked for: what has been changed meanwhile is not kept.
        """
        if self._changes.get(key[0], self._forgotten) > since:
            return False
        self._drop(key, entry.selected)
        self._entries[key, entry.selected] = entry
        self._by_key.setdefault(key, set()).add(entry.selected)
        self._by_uri.setdefault(key[0], set()).add(key)
        self.size += entry.size
        self.counts["stored"] += 1
        self._shrink()
        return (key, entry.selected) in self._entries

    def invalidate(self, uri: bytes) -> None:
        """Something at this URI was changed (RFC 9111 section 4.4)."""
        self.change += 1
        self._changes[uri] = self.change
        self._changes.move_to_end(uri)
        while len(self._changes) > self.max_entries:
            # Of those that are no longer known, nothing that began before is kept.
            self._forgotten = self._changes.popitem(last=False)[1]
        for key in tuple(self._by_uri.get(uri, ())):
            for selected in tuple(self._by_key.get(key, ())):
                self._drop(key, selected)
                self.counts["invalidated"] += 1

    def drop(self, key: Key, entry: Entry) -> None:
        """Forget one answer."""
        self._drop(key, entry.selected)

    def _drop(self, key: Key, selected: Selected) -> None:
        entry = self._entries.pop((key, selected), None)
        if entry is None:
            return
        self.size -= entry.size
        variants = self._by_key[key]
        variants.discard(selected)
        if not variants:
            del self._by_key[key]
            keys = self._by_uri[key[0]]
            keys.discard(key)
            if not keys:
                del self._by_uri[key[0]]

    def _shrink(self) -> None:
        while self._entries and (self.size > self.max_bytes or len(self) > self.max_entries):
            self._drop(*next(iter(self._entries)))
            self.counts["evicted"] += 1
