"""`maglev`: sticky, even, and never in the event loop's way."""

from __future__ import annotations

import random
from collections import Counter
from typing import TYPE_CHECKING

from hms_addons.upstream.balancers.maglev import PAUSE, Maglev
from hms_addons.upstream.balancers.maglev_table import SIZE
from tests.fakes.balancers import Users, endpoints, shares
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from hms_addons.upstream.endpoint import Endpoint


def maglev(members: list[Endpoint], clock: FakeClock | None = None) -> Maglev:
    made = Maglev(random.Random(1))
    if clock is not None:
        made.use_clock(clock)
    made.set_members(members)
    made.update(members)
    return made


def fill(balancer: Maglev, clock: FakeClock) -> None:
    while clock.pending:
        clock.tick(PAUSE)
    assert balancer._filling is None


def test_spread_weights_and_what_ejection_moves() -> None:
    """One table for all of it, as filling one takes a while."""
    members, users = endpoints(1, 4, 5), Users()
    balancer = maglev(members)
    before = users.picks(balancer, 10_000)
    for share, due in zip(shares(before, members), (0.1, 0.4, 0.5), strict=True):
        assert abs(share - due) < 0.015
    made = balancer._table
    gone = members[2]
    balancer.set_members(members)
    balancer.update(members[:2])
    after = users.picks(balancer, 10_000)
    assert all(b is a for a, b in zip(before, after, strict=True) if a is not gone)
    heirs = Counter(b for a, b in zip(before, after, strict=True) if a is gone)
    assert abs(heirs[members[0]] / heirs.total() - 0.2) < 0.03, "by the others' weights"
    balancer.update(members)
    assert users.picks(balancer, 10_000) == before
    assert balancer._table is made, "a change of health fills no table"
    assert repr(balancer) == "<Maglev members=3 table=3>"


def test_every_sidecar_has_the_same_table() -> None:
    members, users = endpoints(1, 1, 1), Users()
    one, other = maglev(members), maglev(members[::-1])
    assert users.picks(one, 300) == users.picks(other, 300)


def test_a_retry_takes_the_next_in_the_table() -> None:
    members, users = endpoints(1, 1, 1), Users()
    balancer = maglev(members)
    tried: list[Endpoint] = [balancer.pick(users.request("a"))]
    while (other := balancer.pick_other(users.request("a"), tried)) is not None:
        assert other not in tried
        tried.append(other)
    assert set(tried) == set(members)
    balancer.update([member for member in members if member is not tried[0]])
    assert balancer.pick(users.request("a")) is tried[1]


def test_where_hardly_anybody_can_be_used_the_ring_serves() -> None:
    members, users = endpoints(1, 5000), Users()
    balancer = maglev(members)
    balancer.update(members[:1])
    assert set(users.picks(balancer, 100)) == {members[0]}
    assert balancer.pick_other(users.request("a"), []) is members[0]


def test_filling_is_cut_into_slices_and_the_old_table_serves_meanwhile() -> None:
    clock, users = FakeClock(), Users()
    members = endpoints(1, 1, 1, 1)
    balancer = maglev(members[:3], clock)
    assert balancer._table is None, "nothing is filled at once"
    assert clock.pending == 1
    early = users.picks(balancer, 300)
    assert set(early) == set(members[:3]), "a ring serves until there is a table"
    fill(balancer, clock)
    first = balancer._table
    assert first is not None
    assert len(first) == SIZE
    before = users.picks(balancer, 300)

    balancer.set_members(members[1:])
    balancer.update(members[1:])
    assert balancer._table is first
    meanwhile = users.picks(balancer, 300)
    assert members[0] not in meanwhile
    kept = [b is a for a, b in zip(before, meanwhile, strict=True) if a is not members[0]]
    assert all(kept)
    assert repr(balancer) == "<Maglev members=3 table=3 filling>"
    fill(balancer, clock)
    assert set(users.picks(balancer, 300)) == set(members[1:])


def test_a_change_while_filling_begins_anew_with_one_timer() -> None:
    clock = FakeClock()
    members = endpoints(1, 1, 1)
    balancer = maglev(members[:2], clock)
    clock.tick(PAUSE)
    balancer.set_members(members)
    balancer.update(members)
    assert clock.pending == 1
    fill(balancer, clock)
    assert balancer._order == members


def test_in_the_end_nothing_is_left_to_be_done() -> None:
    clock = FakeClock()
    balancer = maglev(endpoints(1, 1), clock)
    balancer.set_members(())
    assert clock.pending == 0


def test_nobody_left_and_somebody_again() -> None:
    balancer = maglev(endpoints(1))
    balancer.set_members([])
    balancer.update([])
    members = endpoints(1, 1)
    balancer.update(members)
    assert set(Users().picks(balancer, 50)) == set(members)


def test_without_a_key_any_may_be_taken() -> None:
    members, users = endpoints(1, 1), Users()
    balancer = maglev(members)
    assert {balancer.pick(users.request(None)) for _ in range(50)} == set(members)
    assert balancer.pick_other(users.request(None), members) is None
