"""Levels and zones: who takes which share, what a retry may use, and how panic shows."""

from __future__ import annotations

import logging
import random
from collections import Counter
from typing import TYPE_CHECKING

from hms_addons.config.snapshot import EndpointSpec
from hms_addons.upstream.balancers.built_in import BUILT_IN
from hms_addons.upstream.endpoint import Endpoint
from hms_addons.upstream.priority_levels import PriorityLevels
from tests.fakes.balancers import ANY, Users

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest


def member(number: int, priority: int = 0, zone: str = "") -> Endpoint:
    spec = EndpointSpec(host=f"10.0.{priority}.{number}", port=80, priority=priority, zone=zone)
    return Endpoint(spec, "c")


def levels(balancer: str = "round_robin") -> PriorityLevels:
    return PriorityLevels("c", lambda: BUILT_IN[balancer](random.Random(1)), random.Random(2))


def share(found: PriorityLevels, of: Sequence[Endpoint], count: int = 4000) -> float:
    counts = Counter(found.picker(ANY) for _ in range(count))
    return sum(counts[endpoint] for endpoint in of) / count


def test_one_level_is_one_balancer_and_nothing_else() -> None:
    """The plain case: what picks is that balancer's own method, and no draw comes before it."""
    members = [member(n) for n in range(3)]
    found = levels()
    found.update(members, members)
    assert found.candidates == members
    (group,) = found.levels[0].groups
    assert found.picker == group.balancer.pick
    assert found.learner is None


def test_a_lower_level_gets_nothing_while_the_first_is_whole() -> None:
    first, second = [member(n) for n in range(10)], [member(n, 1) for n in range(10)]
    found = levels()
    found.update(first + second, first[:8] + second)  # 80% usable x 1.4 is more than all
    assert found.candidates == first[:8]
    assert share(found, first) == 1


def test_what_a_level_cannot_take_spills_to_the_next_in_proportion() -> None:
    first, second = [member(n) for n in range(10)], [member(n, 1) for n in range(10)]
    found = levels()
    found.update(first + second, first[:5] + second)
    assert [level.load for level in found.levels] == [70, 30]
    assert abs(share(found, first) - 0.7) < 0.03
    found.update(first + second, second)
    assert share(found, second) == 1
    found.update(first + second, first + second)
    assert share(found, first) == 1


def test_levels_may_have_any_numbers() -> None:
    high, low = member(0, 7), member(0, 3)
    found = levels()
    found.update([high, low], [high, low])
    assert found.candidates == [low]


def test_the_own_zone_comes_first_and_the_others_take_what_it_cannot() -> None:
    own, others = (
        [member(n, zone="a") for n in range(4)],
        [member(n + 9, zone="b") for n in range(4)],
    )
    found = levels()
    found.update(own + others, own + others, zone="a")
    assert share(found, own) == 1
    found.update(own + others, own[:2] + others, zone="a")  # half of it x 1.4
    assert abs(share(found, own) - 0.7) < 0.03
    found.update(own + others, others, zone="a")
    assert share(found, others) == 1
    assert found.describe()[0]["own_zone_load_percent"] == 0


def test_zones_share_what_their_level_gets() -> None:
    first = [member(0, zone="a"), member(1, zone="b")]
    second = [member(0, 1, zone="a"), member(1, 1, zone="b")]
    found = levels()
    found.update(first + second, [first[0], *second], zone="a")
    # Level 0: one of two is 70%, all of it the own zone's. Level 1: 30%, the own zone's too.
    assert abs(share(found, [first[0]]) - 0.7) < 0.03
    assert abs(share(found, [second[0]]) - 0.3) < 0.03
    assert share(found, [second[1]]) == 0


def test_without_a_zone_of_its_own_a_sidecar_prefers_none() -> None:
    members = [member(0, zone="a"), member(1, zone="b")]
    for zone in ("", "c"):
        found = levels()
        found.update(members, members, zone=zone)
        assert share(found, members[:1]) == 0.5
        assert len(found.levels[0].groups) == 1


def test_a_retry_stays_in_its_group_then_its_level_then_goes_where_traffic_goes() -> None:
    own, other = [member(n, zone="a") for n in range(2)], member(9, zone="b")
    standby = member(0, 1)
    members = [*own, other, standby]
    found = levels()
    found.update(members, members, zone="a")
    assert found.candidates == [*own, other]
    tried: list[Endpoint] = []
    for _ in range(3):
        tried.append(found.pick_other(ANY, tried))
    assert set(tried[:2]) == set(own)
    assert tried[2] is other, "the zone is a preference"
    assert found.pick_other(ANY, tried) in own, "but a level that takes no traffic is not woken"
    found.update(members, [own[0], standby], zone="a")
    assert found.levels[1].load > 0
    assert found.pick_other(ANY, [own[0]]) is standby


def test_a_key_keeps_to_its_level_and_its_endpoint() -> None:
    first, second = [member(n) for n in range(4)], [member(n, 1) for n in range(4)]
    found, users = levels("ring_hash"), Users()
    found.update(first + second, first[:2] + second)
    picked = [found.picker(users.request(f"user-{n}")) for n in range(1000)]
    assert picked == [found.picker(users.request(f"user-{n}")) for n in range(1000)]
    assert abs(sum(endpoint in first for endpoint in picked) / 1000 - 0.7) < 0.06
    assert set(picked) == {*first[:2], *second}, "each level's ring is used all round"


def test_panic_uses_all_and_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    members = [member(n) for n in range(4)]
    found = levels()
    found.update(members, members[:2], panic_threshold=50)
    assert not found.panic
    for _ in range(2):
        found.update(members, members[:1], panic_threshold=50)
    assert found.panic
    assert found.candidates == members
    assert share(found, members[1:]) == 0.75
    found.update(members, members[:2], panic_threshold=50)
    assert found.candidates == members[:2]
    assert [record.getMessage() for record in caplog.records] == [
        "cluster c: panic: too few endpoints of priority 0 can be used, so all 4 are, ejected ones too",
        "cluster c: no panic any more at priority 0",
    ]


def test_in_panic_no_zone_is_preferred() -> None:
    """What is left of the own zone would be given the traffic that it has just broken down under."""
    members = [member(0, zone="a"), member(1, zone="a"), member(2, zone="b"), member(3, zone="b")]
    found = levels()
    found.update(members, members[:1], zone="a", panic_threshold=50)
    assert share(found, members[2:]) == 0.5


def test_without_a_threshold_nobody_is_left_when_nobody_is() -> None:
    members = [member(0), member(0, 1)]
    found = levels()
    found.update(members, [])
    assert found.candidates == []
    found.update(members, [], panic_threshold=1)
    assert found.candidates == members
    assert [level.load for level in found.levels] == [50, 50]


def test_balancers_outlive_changes_of_health() -> None:
    members = [member(0), member(1), member(0, 1)]
    found = levels("ewma")
    found.update(members, members)
    before = [group.balancer for level in found.levels for group in level.groups]
    found.update(members, members[:1])
    found.update(members, members)
    assert [group.balancer for level in found.levels for group in level.groups] == before


def test_each_groups_balancer_learns_of_its_own_endpoints() -> None:
    members = [member(0), member(0, 1)]
    found = levels("ewma")
    found.update(members, members)
    learner = found.learner
    assert learner is not None
    learner(members[1], 2.0, 200)
    first, second = (level.groups[0].balancer for level in found.levels)
    assert first._estimates == {}  # type: ignore[attr-defined]
    assert list(second._estimates) == [members[1]]  # type: ignore[attr-defined]
    learner(member(5), 1.0, 200)  # of one that has left: nobody's business


def test_a_cluster_without_members() -> None:
    found = levels()
    found.update([], [], zone="a", panic_threshold=50)
    assert found.candidates == []
    assert found.levels == ()
    assert repr(found) == "<PriorityLevels c []>"


def test_repr() -> None:
    found = levels()
    found.update([member(0), member(1), member(0, 1)], [member(0)])
    assert repr(found) == "<PriorityLevels c [<Group 0 0/2 0%>, <Group 1 0/1 0%>]>"
