from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.control.ca.authority import CaError
from hms_addons.control.ca.authority_state import AuthorityState
from hms_addons.control.ca.kept_authority import STATE_KEY, KeptAuthority
from hms_addons.control.store.protocol import ConflictError
from tests.fakes.clock import FakeClock
from tests.fakes.faulty_store import CrashError, FaultyStore, faulty_store

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

CLOCK = FakeClock()
STATE = AuthorityState.create("mpsa.mil", 3600, CLOCK)
NEXT = STATE.announced(10, CLOCK)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FaultyStore]:
    async with faulty_store(tmp_path, CLOCK) as opened:
        yield opened


def kept(store: FaultyStore, trust_domain: str = "mpsa.mil") -> KeptAuthority:
    return KeptAuthority(store, CLOCK, trust_domain)


async def test_what_was_written_is_read(store: FaultyStore) -> None:
    writer = kept(store)
    assert await writer.read() is None
    for state in (STATE, NEXT):
        await writer.write(state)
        reread = await kept(store).read()
        assert reread is not None
        assert reread.to_bytes() == state.to_bytes()
    assert repr(writer) == "<KeptAuthority mpsa.mil revision=2>"


async def test_two_processes_do_not_overwrite_each_other(store: FaultyStore) -> None:
    one, other = kept(store), kept(store)
    await one.write(STATE)
    with pytest.raises(ConflictError):
        await other.write(STATE)
    assert await other.read() is not None
    await other.write(NEXT)
    with pytest.raises(ConflictError):
        await one.write(STATE)
    found = await one.read_again()
    assert found is not None
    assert found.to_bytes() == NEXT.to_bytes()
    await one.write(STATE)


@pytest.mark.parametrize("written", [True, False])
async def test_a_write_without_an_answer(store: FaultyStore, written: bool) -> None:
    keeper = kept(store)
    await keeper.write(STATE)
    assert await keeper.read_again() is None, "that one had an answer"
    setattr(store, "crash_after" if written else "crash_before", 2)
    with pytest.raises(CrashError):
        await keeper.write(NEXT)
    found = await keeper.read_again()
    assert (found is not None) == written
    assert await keeper.read_again() is None
    await keeper.write(NEXT)


async def test_one_that_is_gone_is_an_error(store: FaultyStore) -> None:
    keeper = kept(store)
    await keeper.write(STATE)
    await store.delete(STATE_KEY)
    with pytest.raises(ConflictError):
        await keeper.write(NEXT)
    with pytest.raises(CaError, match="has lost the CA"):
        await keeper.read_again()


async def test_another_trust_domains_is_an_error(store: FaultyStore) -> None:
    await kept(store).write(STATE)
    with pytest.raises(CaError, match="not 'other.example'"):
        await kept(store, "other.example").read()
