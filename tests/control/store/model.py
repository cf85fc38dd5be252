"""Any store against a dict: whatever is done to it, it is what the dict says.

A store's own test file subclasses `StoreMachine` and says where the store lives.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from hms_addons.control.store.protocol import (
    CompactedError,
    ConflictError,
    Entry,
    Event,
    LeaseError,
    Write,
)
from tests.control.store.conformance import take

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    from hms_addons.control.store.protocol import Store
    from tests.control.store.conformance import World

KEYS = st.sampled_from(["a", "a/1", "a/2", "b/1", "b/2", "é"])
PREFIXES = st.sampled_from(["", "a", "a/", "b/", "é", "none"])
VALUES = st.binary(max_size=3)
EXPECTED = st.sampled_from(["any", "right", "absent", "wrong"])


class Watching:
    """One reader, and what it must still see."""

    def __init__(
        self, store: Store, events: AsyncIterator[tuple[Event, ...]], prefix: str, after: int
    ) -> None:
        self.store = store
        self.events = events
        self.prefix = prefix
        self.after = after
        self.seen = 0


class StoreMachine(RuleBasedStateMachine):
    """The machine; `make_world` is the store's."""

    leases = Bundle("leases")
    watches = Bundle("watches")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = self.make_world()
        self.store: Store = self.run(self.world.open())
        self.entries: dict[str, Entry] = {}
        self.granted: dict[str, tuple[float, float]] = {}
        """TTL and end of each."""
        self.revision = 0
        self.log: list[Event] = []
        """Since the store was last opened."""
        self.floor = 0

    def make_world(self) -> World:
        raise NotImplementedError

    def run[T](self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()

    def expected(self, key: str, kind: str) -> int | None:
        present = self.entries[key].revision if key in self.entries else 0
        return {"any": None, "right": present, "absent": 0, "wrong": present + 1}[kind]

    def batch(self, changes: dict[str, tuple[bytes | None, str | None]]) -> None:
        """The model does what the store has done."""
        found = {k: v for k, v in changes.items() if v[0] is not None or k in self.entries}
        if not found:
            return
        self.revision += 1
        for key, (value, lease) in sorted(found.items()):
            if value is None:
                del self.entries[key]
            else:
                self.entries[key] = Entry(key, value, self.revision, lease)
            self.log.append(Event(key, value, self.revision))

    @rule(
        changes=st.dictionaries(KEYS, st.tuples(st.none() | VALUES, EXPECTED), max_size=4),
        lease=st.none() | leases,
    )
    def write(self, changes: dict[str, tuple[bytes | None, str]], lease: str | None) -> None:
        writes = [
            Write(key, value, self.expected(key, kind), None if value is None else lease)
            for key, (value, kind) in changes.items()
        ]
        conflict = next(
            (
                (w.key, self.entries[w.key].revision if w.key in self.entries else 0)
                for w in writes
                if w.expected not in {None, self.expected(w.key, "right")}
            ),
            None,
        )
        if conflict:
            with pytest.raises(ConflictError) as caught:
                self.run(self.store.write(writes))
            assert (caught.value.key, caught.value.revision) == conflict
        elif any(w.lease is not None and w.lease not in self.granted for w in writes):
            with pytest.raises(LeaseError):
                self.run(self.store.write(writes))
        else:
            self.batch({w.key: (w.value, w.lease) for w in writes})
            assert self.run(self.store.write(writes)) == self.revision

    @rule(key=KEYS, value=VALUES)
    def put(self, key: str, value: bytes) -> None:
        self.batch({key: (value, None)})
        assert self.run(self.store.put(key, value)) == self.revision

    @rule(key=KEYS)
    def delete(self, key: str) -> None:
        there = key in self.entries
        self.batch({key: (None, None)})
        assert self.run(self.store.delete(key)) == (self.revision if there else None)

    @rule(target=leases, ttl=st.integers(1, 20))
    def grant(self, ttl: int) -> str:
        lease = self.run(self.store.grant(ttl))
        assert lease not in self.granted
        self.granted[lease] = (ttl, self.world.clock.monotonic() + ttl)
        return lease

    @rule(lease=leases)
    def keep_alive(self, lease: str) -> None:
        assert self.run(self.store.keep_alive(lease)) == (lease in self.granted)
        if lease in self.granted:
            ttl, _ = self.granted[lease]
            self.granted[lease] = (ttl, self.world.clock.monotonic() + ttl)

    @rule(lease=leases)
    def revoke(self, lease: str) -> None:
        self.end([lease] if lease in self.granted else [])
        self.run(self.store.revoke(lease))

    def end(self, leases: list[str]) -> None:
        for lease in leases:
            del self.granted[lease]
        gone = {k: (None, None) for k, entry in self.entries.items() if entry.lease in leases}
        self.batch(dict(gone))

    @rule(seconds=st.integers(0, 25), step=st.integers(-120, 120))
    def pass_time(self, seconds: int, step: int) -> None:
        self.world.clock.step(step)
        until = self.world.clock.monotonic() + seconds
        ends = sorted({end for _, end in self.granted.values() if end <= until})
        for end in ends:
            self.end([lease for lease, (_, at) in self.granted.items() if at == end])
        self.run(self.world.clock.advance(seconds))

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.run(self.world.open())
        self.log.clear()
        self.floor = self.revision
        now = self.world.clock.monotonic()
        self.granted = {lease: (ttl, now + ttl) for lease, (ttl, _) in self.granted.items()}

    @rule(target=watches, prefix=PREFIXES, back=st.integers(-2, 6))
    def watch(self, prefix: str, back: int) -> Any:
        after = self.revision - back
        watch = self.store.watch(prefix, after)
        if after > self.revision:
            with pytest.raises(CompactedError):
                self.run(take(watch, 1))
            return multiple()
        if after < self.floor:
            return multiple()  # may be known or not: conformance has it
        return Watching(self.store, watch, prefix, after)

    @rule(watch=consumes(watches), target=watches)
    def look(self, watch: Watching) -> Any:
        if watch.store is not self.store:
            return multiple()  # of one that was closed
        wanted = [
            event
            for event in self.log
            if event.revision > watch.after and event.key.startswith(watch.prefix)
        ]
        new = wanted[watch.seen :]
        assert self.run(take(watch.events, len(new))) == new
        watch.seen = len(wanted)
        return watch

    @invariant()
    def the_store_is_what_the_dict_says(self) -> None:
        assert self.run(self.store.list("")) == [e for _, e in sorted(self.entries.items())]
        assert self.store.revision == self.revision

    @rule(key=KEYS, prefix=PREFIXES)
    def read(self, key: str, prefix: str) -> None:
        assert self.run(self.store.get(key)) == self.entries.get(key)
        wanted = [e for k, e in sorted(self.entries.items()) if k.startswith(prefix)]
        assert self.run(self.store.list(prefix)) == wanted
