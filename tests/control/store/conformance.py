"""What every store must do. A store's own test file subclasses `StoreConformance`.

It gives the fixture `world`: how to open the store, again and again on the same data, and the clock
that its leases live by.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from hms_addons.control.store.protocol import (
    CompactedError,
    ConflictError,
    Entry,
    Event,
    LeaseError,
    StoreClosedError,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hms_addons.control.store.protocol import Store
    from tests.fakes.clock import FakeClock


class World(Protocol):
    """Where a store lives."""

    clock: FakeClock

    async def open(self, *, max_events: int = 10_000) -> Store:
        """Open it; what `max_events` means is the store's, but that few are kept is not."""


async def take(watch: AsyncIterator[tuple[Event, ...]], count: int) -> list[Event]:
    """The events of the next batches, `count` in all; fails when they do not come."""
    events: list[Event] = []
    async with asyncio.timeout(10):
        while len(events) < count:
            batch = await anext(watch)
            assert len({event.revision for event in batch}) == 1
            events += batch
    assert len(events) == count
    return events


async def nothing_more(store: Store, watch: AsyncIterator[tuple[Event, ...]]) -> None:
    """Fail if anything but what is written now comes next."""
    revision = await store.put("marks/end", b"")
    assert await take(watch, 1) == [Event("marks/end", b"", revision)]


class StoreConformance:
    """The suite."""

    @pytest.fixture
    async def store(self, world: World) -> AsyncIterator[Store]:
        store = await world.open()
        yield store
        await store.close()

    # Reading and writing

    async def test_what_was_put_is_got(self, store: Store) -> None:
        assert await store.get("a") is None
        for value in (b"one", b"", b"\0\xff" * 1000):
            revision = await store.put("a", value)
            assert await store.get("a") == Entry("a", value, revision, None)

    async def test_the_revision_counts_batches_not_keys(self, store: Store) -> None:
        assert store.revision == 0
        assert await store.put("a", b"1") == 1
        assert await store.put("a", b"1") == 2
        assert await store.write([Write("b", b"1"), Write("c", b"1"), Write("a", None)]) == 3
        assert store.revision == 3

    async def test_what_changes_nothing_has_no_revision(self, store: Store) -> None:
        await store.put("a", b"1")

        assert await store.delete("b") is None
        assert await store.write([]) == 1
        assert await store.write([Write("b", None), Write("c", None, expected=0)]) == 1
        assert store.revision == 1

    async def test_a_delete_has_a_revision(self, store: Store) -> None:
        await store.put("a", b"1")

        assert await store.delete("a") == 2
        assert await store.get("a") is None
        assert await store.delete("a") is None

    async def test_a_write_takes_place_only_if_the_key_is_as_expected(self, store: Store) -> None:
        first = await store.put("a", b"1", expected=0)
        for wrong in (0, first + 1):
            with pytest.raises(ConflictError) as caught:
                await store.put("a", b"2", expected=wrong)
            assert (caught.value.key, caught.value.revision) == ("a", first)
            with pytest.raises(ConflictError):
                await store.delete("a", expected=wrong)
        assert await store.get("a") == Entry("a", b"1", first, None)

        second = await store.put("a", b"2", expected=first)
        assert await store.delete("a", expected=second) == second + 1
        with pytest.raises(ConflictError) as caught:
            await store.put("a", b"3", expected=second)
        assert caught.value.revision == 0

    async def test_a_batch_is_whole_or_not_at_all(self, store: Store) -> None:
        await store.put("a", b"1")
        watch = store.watch("", 1)
        batch = [Write("b", b"2"), Write("a", None), Write("c", b"2", expected=7)]

        with pytest.raises(ConflictError, match="c has changed"):
            await store.write(batch)
        with pytest.raises(LeaseError):
            await store.write([Write("b", b"2"), Write("c", b"2", lease="none")])
        for twice in ([Write("b", b"2"), Write("b", b"3")], [Write("b", b"2"), Write("", b"3")]):
            with pytest.raises(ValueError, match="only once|is no key"):
                await store.write(twice)

        assert await store.list("") == [Entry("a", b"1", 1, None)]
        await nothing_more(store, watch)

    async def test_keys_are_listed_by_prefix_and_in_order(self, store: Store) -> None:
        keys = ["a", "a/", "a/b", "a/b/c", "a/é", "a/\ud7ff", "a/\ue000", "a/\U0010ffff", "a0", "b"]
        await store.write([Write(key, key.encode()) for key in reversed(keys)])
        for prefix in ("", "a", "a/", "a/b", "a/\ud7ff", "a/\U0010ffff", "\U0010ffff", "a0", "c"):
            found = [entry.key for entry in await store.list(prefix)]
            assert found == sorted(key for key in keys if key.startswith(prefix))

    async def test_a_prefix_is_no_pattern(self, store: Store) -> None:
        await store.write(
            [Write("a%b", b""), Write("a_b", b""), Write("axb", b""), Write("A_b", b"")]
        )
        assert [entry.key for entry in await store.list("a_")] == ["a_b"]
        assert [entry.key for entry in await store.list("a%")] == ["a%b"]

    async def test_it_is_all_there_after_a_restart(self, world: World) -> None:
        store = await world.open()
        await store.put("a", b"1")
        await store.put("b", b"2")
        await store.delete("a")
        await store.close()

        again = await world.open()
        assert again.revision == 3
        assert await again.list("") == [Entry("b", b"2", 2, None)]
        assert await again.put("a", b"3") == 4
        await again.close()

    async def test_many_writers_at_once_each_get_their_own_revision(self, store: Store) -> None:
        async def count() -> None:
            while True:
                entry = await store.get("n")
                try:
                    value = b"%d" % (int(entry.value) + 1 if entry else 1)
                    await store.put("n", value, expected=entry.revision if entry else 0)
                except ConflictError:
                    continue
                return

        revisions = await asyncio.gather(*(store.put(f"k{n}", b"") for n in range(300)))
        assert sorted(revisions) == list(range(1, 301))
        await asyncio.gather(*(count() for _ in range(20)))
        found = await store.get("n")
        assert found is not None
        assert found.value == b"20"
        assert store.revision == 320

    # Watching

    async def test_a_watch_sees_each_change_once_and_in_order(self, store: Store) -> None:
        await store.put("x/a", b"1")
        watch = store.watch("x/", 0)
        await store.put("y/a", b"-")
        await store.write([Write("x/b", b"2"), Write("x/a", None), Write("y/b", b"-")])
        await store.put("x/b", b"3")
        assert await take(watch, 4) == [
            Event("x/a", b"1", 1),
            Event("x/a", None, 3),
            Event("x/b", b"2", 3),
            Event("x/b", b"3", 4),
        ]
        waiting = asyncio.ensure_future(take(watch, 1))
        await asyncio.sleep(0)
        await store.delete("x/b")
        assert await waiting == [Event("x/b", None, 5)]

    async def test_a_watch_begins_after_its_revision(self, store: Store) -> None:
        for n in range(5):
            await store.put("a", b"%d" % n)
        assert await take(store.watch("a", 3), 2) == [Event("a", b"3", 4), Event("a", b"4", 5)]

    async def test_a_list_and_a_watch_miss_nothing_between_them(self, store: Store) -> None:
        """`revision` before `list`, then the watch after that revision: the documented way."""
        writers = [asyncio.ensure_future(store.put(f"k{n:03}", b"%d" % n)) for n in range(100)]
        await writers[10]
        after = store.revision
        seen = {entry.key: entry.revision for entry in await store.list("k")}
        watch = store.watch("k", after)
        while len(seen) < 100:
            (event,) = await take(watch, 1)
            assert seen.setdefault(event.key, event.revision) == event.revision
        await asyncio.gather(*writers)
        assert sorted(seen.values()) == list(range(1, 101))

    async def test_a_history_from_before_the_start_may_be_gone(self, world: World) -> None:
        store = await world.open()
        await store.put("a", b"1")
        await store.put("a", b"2")
        await store.close()

        again = await world.open()
        with contextlib.suppress(CompactedError):  # a store may also keep it over a restart
            assert await take(again.watch("", 0), 1) == [Event("a", b"1", 1)]
        watch = again.watch("", again.revision)
        await again.put("a", b"3")
        assert await take(watch, 1) == [Event("a", b"3", 3)]
        await again.close()

    async def test_a_revision_of_another_history_is_refused(self, store: Store) -> None:
        await store.put("a", b"1")
        with pytest.raises(CompactedError) as caught:
            await anext(store.watch("", 2))
        assert caught.value.revision == 1

    async def test_a_slow_reader_is_told_to_read_everything_again(self, world: World) -> None:
        store = await world.open(max_events=20)
        slow = store.watch("k", 0)
        await store.put("k0", b"")
        assert await take(slow, 1) == [Event("k0", b"", 1)]
        for n in range(50):
            await store.put(f"k{n}", b"")
        with pytest.raises(CompactedError):
            await anext(slow)
        assert await take(store.watch("k", store.revision - 1), 1) == [Event("k49", b"", 51)]
        await store.close()

    async def test_a_large_batch_comes_whole(self, world: World) -> None:
        store = await world.open(max_events=20)
        watch = store.watch("", 0)
        await store.write([Write(f"k{n:03}", b"") for n in range(100)])
        events = await take(watch, 100)
        assert [event.key for event in events] == [f"k{n:03}" for n in range(100)]
        await store.close()

    async def test_one_reader_that_goes_away_disturbs_no_other(self, store: Store) -> None:
        readers = [asyncio.ensure_future(take(store.watch("", 0), 1)) for _ in range(10)]
        await asyncio.sleep(0)
        for reader in readers[::2]:
            reader.cancel()
        await asyncio.sleep(0)
        await store.put("a", b"1")
        for reader in readers[1::2]:
            assert await reader == [Event("a", b"1", 1)]
        for reader in readers[::2]:
            with pytest.raises(asyncio.CancelledError):
                await reader

    # Leases

    async def test_a_lease_ends_its_keys_in_one_batch(self, world: World, store: Store) -> None:
        lease = await store.grant(10)
        other = await store.grant(30)
        await store.put("stays", b"1")
        await store.put("b", b"1", lease=lease)
        await store.put("a", b"1", lease=lease)
        await store.put("later", b"1", lease=other)
        assert await store.get("a") == Entry("a", b"1", 3, lease)
        watch = store.watch("", store.revision)

        await world.clock.advance(10.1)

        assert await take(watch, 2) == [Event("a", None, 5), Event("b", None, 5)]
        assert [entry.key for entry in await store.list("")] == ["later", "stays"]
        await world.clock.advance(20)
        assert await take(watch, 1) == [Event("later", None, 6)]

    async def test_renewal_begins_the_lease_anew(self, world: World, store: Store) -> None:
        lease = await store.grant(10)
        await store.put("a", b"1", lease=lease)
        for _ in range(5):
            await world.clock.advance(9)
            assert await store.keep_alive(lease)
        assert store.revision == 1
        assert await store.get("a") is not None
        watch = store.watch("", 1)
        await world.clock.advance(10.1)
        assert await take(watch, 1) == [Event("a", None, 2)]

    async def test_a_lease_that_is_over_cannot_be_used(self, world: World, store: Store) -> None:
        lease = await store.grant(10)
        await world.clock.advance(10.1)
        assert not await store.keep_alive(lease)
        with pytest.raises(LeaseError):
            await store.put("a", b"1", lease=lease)
        assert await store.get("a") is None
        await store.revoke(lease)

    async def test_a_revoked_lease_ends_at_once(self, store: Store) -> None:
        lease = await store.grant(10)
        await store.put("a", b"1", lease=lease)
        await store.revoke(lease)
        assert await store.get("a") is None
        assert store.revision == 2
        assert not await store.keep_alive(lease)
        await store.revoke(lease)
        await store.revoke("never granted")
        assert store.revision == 2

    async def test_a_key_can_leave_its_lease(self, world: World, store: Store) -> None:
        lease, other = await store.grant(10), await store.grant(20)
        await store.put("freed", b"1", lease=lease)
        await store.put("freed", b"2")
        await store.put("moved", b"1", lease=lease)
        await store.put("moved", b"2", lease=other)
        await store.put("gone", b"1", lease=lease)
        await store.delete("gone")
        watch = store.watch("", store.revision)
        await world.clock.advance(20.1)
        assert await take(watch, 1) == [Event("moved", None, 7)]
        assert [entry.key for entry in await store.list("")] == ["freed"]

    async def test_an_outage_of_the_store_ends_no_lease(self, world: World) -> None:
        store = await world.open()
        lease = await store.grant(10)
        await store.put("a", b"1", lease=lease)
        await world.clock.advance(9)
        await store.close()
        await world.clock.advance(3600)

        again = await world.open()
        assert await again.get("a") == Entry("a", b"1", 1, lease)
        await world.clock.advance(9)
        assert await again.keep_alive(lease)
        watch = again.watch("", 1)
        await world.clock.advance(10.1)
        assert await take(watch, 1) == [Event("a", None, 2)]
        await again.close()

    @pytest.mark.parametrize("step", [-120, 120, -86400 * 365, 86400 * 365])
    async def test_a_clock_that_is_set_ends_no_lease(
        self, world: World, store: Store, step: float
    ) -> None:
        lease = await store.grant(10)
        await store.put("a", b"1", lease=lease)
        world.clock.step(step)
        await world.clock.advance(9.9)
        assert await store.get("a") is not None
        watch = store.watch("", 1)
        await world.clock.advance(0.2)
        assert await take(watch, 1) == [Event("a", None, 2)]

    @pytest.mark.parametrize("ttl", [0, -1, float("inf"), float("nan")])
    async def test_a_lease_has_an_end(self, store: Store, ttl: float) -> None:
        with pytest.raises(ValueError, match="TTL"):
            await store.grant(ttl)

    # Ends

    async def test_a_closed_store_says_so(self, world: World) -> None:
        store = await world.open()
        lease = await store.grant(10)
        waiting = asyncio.ensure_future(take(store.watch("", 0), 1))
        await asyncio.sleep(0)
        last = asyncio.ensure_future(store.put("last", b"1"))
        await asyncio.sleep(0)
        await store.close()
        await store.close()

        assert await last == 1
        with contextlib.suppress(StoreClosedError):
            assert await waiting == [Event("last", b"1", 1)]
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: store.get("a"),
            lambda: store.list(""),
            lambda: store.put("a", b""),
            lambda: store.delete("a"),
            lambda: store.write([Write("a", b"")]),
            lambda: store.grant(1),
            lambda: store.keep_alive(lease),
            lambda: store.revoke(lease),
            lambda: anext(store.watch("", 1)),
        ]
        for call in calls:
            with pytest.raises(StoreClosedError):
                await call()
        assert world.clock.pending == 0

    async def test_cancelled_at_any_turn_a_write_is_whole_or_absent(self, store: Store) -> None:
        watch = store.watch("", 0)
        done = 0
        for exponent in itertools.count():
            turns = int(1.3**exponent)
            before = store.revision
            writing = asyncio.ensure_future(store.write([Write("a", b"x"), Write("b", b"x")]))
            for _ in range(turns):
                await asyncio.sleep(0)
            ended = writing.done()
            writing.cancel()
            await asyncio.wait([writing])
            after = await store.put("mark", b"")  # the write has been decided by now
            events = await take(watch, after - before if after - before == 1 else 3)
            whole = [Event("a", b"x", before + 1), Event("b", b"x", before + 1)]
            assert events[:-1] in ([], whole)
            assert events[-1] == Event("mark", b"", after)
            done += ended
            if done == 3:
                break

    async def test_cancelled_at_any_turn_a_lease_still_ends(
        self, world: World, store: Store
    ) -> None:
        for turns in range(6):
            asking = asyncio.ensure_future(store.grant(10))
            for _ in range(turns):
                await asyncio.sleep(0)
            asking.cancel()
            await asyncio.wait([asking])
        lease = await store.grant(10)
        await store.put("a", b"", lease=lease)
        revoking = asyncio.ensure_future(store.revoke(lease))
        await asyncio.sleep(0)
        revoking.cancel()
        await asyncio.wait([revoking])
        assert await store.get("a") is None
        await world.clock.advance(10.1)
        assert await store.list("") == []
        await store.close()
        assert world.clock.pending == 0

    async def test_whoever_cancels_a_read_or_a_close_leaves_the_store_usable(
        self, world: World
    ) -> None:
        store = await world.open()
        for call in (lambda: store.get("a"), lambda: store.list("")):
            reading = asyncio.ensure_future(call())
            await asyncio.sleep(0)
            reading.cancel()
            await asyncio.wait([reading])
        assert await store.put("a", b"1") == 1
        closing = asyncio.ensure_future(store.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.wait([closing])
        await store.close()
        again = await world.open()
        assert again.revision == 1
        await again.close()

    async def test_opening_can_be_cancelled_at_any_turn(self, world: World) -> None:
        for turns in range(4):
            opening = asyncio.ensure_future(world.open())
            for _ in range(turns):
                await asyncio.sleep(0)
            opening.cancel()
            await asyncio.wait([opening])
            if not opening.cancelled():
                await opening.result().close()
        async with asyncio.timeout(10):
            store = await world.open()
        await store.put("a", b"1")
        await store.close()
