"""Groups of a cluster's endpoints: priority levels, and within one the own zone and the others.

Worked out when membership or health changes, so that a pick is a draw among the groups and then one
group's balancer; with one group, as nearly always, it is that balancer's alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.request_hash import level_share, request_hash
from hms_addons.upstream.load_balancer import Hashing, Learning, Membered
from hms_addons.upstream.priority_loads import availability, in_panic, loads, loads_by_size

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Collection, Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.load_balancer import LoadBalancer

logger = logging.getLogger(__name__)

_PERCENT = 100


class Group:
    """Endpoints that one balancer picks among.

    Attributes:
        priority: their level.
        elsewhere: they are those of the level that are not in the own zone.
        balancer: picks among `candidates`.
        members, candidates: all of them, and those that may be used.
        load: its share of the cluster's traffic, in 1/10,000.
    """

    __slots__ = ("balancer", "candidates", "elsewhere", "load", "members", "priority")

    def __init__(self, priority: int, balancer: LoadBalancer, *, elsewhere: bool) -> None:
        self.priority = priority
        self.elsewhere = elsewhere
        self.balancer = balancer
        self.members: Sequence[Endpoint] = ()
        self.candidates: Sequence[Endpoint] = ()
        self.load = 0

    def __repr__(self) -> str:
        zone = " elsewhere" if self.elsewhere else ""
        usable = f"{len(self.candidates)}/{len(self.members)}"
        return f"<Group {self.priority}{zone} {usable} {self.load / _PERCENT:g}%>"

    def set(self, members: Sequence[Endpoint], candidates: Sequence[Endpoint], load: int) -> Group:
        """Take on other endpoints, another health, another share; itself."""
        self.members, self.candidates, self.load = members, candidates, load
        if isinstance(self.balancer, Membered):
            self.balancer.set_members(members)
        self.balancer.update(candidates)
        return self

    def close(self) -> None:
        """It is no more; what is in flight may still ask it."""
        if isinstance(self.balancer, Membered):
            self.balancer.set_members(())

    def pick_untried(
        self, exchange: Exchange, tried: Collection[Endpoint], rng: random.Random
    ) -> Endpoint | None:
        """One that is not in `tried`, as the balancer would have it; None if there is none."""
        fresh = [endpoint for endpoint in self.candidates if endpoint not in tried]
        if not fresh:
            return None
        balancer = self.balancer
        if isinstance(balancer, Hashing):
            endpoint = balancer.pick_other(exchange, tried)
            if endpoint is not None:
                return endpoint
        for _ in self.candidates:
            endpoint = balancer.pick(exchange)
            if endpoint not in tried:
                return endpoint
        return rng.choice(fresh)


class Level(NamedTuple):
    """One priority, as `/clusters` shows it."""

    priority: int
    load: int
    """Percent of the cluster's traffic."""
    panic: bool
    """So few can be used that all are."""
    groups: tuple[Group, ...]


class PriorityLevels:
    """The levels of one cluster.

    Args:
        cluster: its name, for log lines.
        make_balancer: makes a group's.
        rng: draws among groups.

    Attributes:
        candidates: every endpoint that may be used now: those of levels that take traffic.
        levels: in order of priority.
    """

    __slots__ = (
        "_active",
        "_cluster",
        "_eligible",
        "_groups",
        "_hashing",
        "_make",
        "_rng",
        "candidates",
        "levels",
    )

    def __init__(
        self, cluster: str, make_balancer: Callable[[], LoadBalancer], rng: random.Random
    ) -> None:
        self._cluster = cluster
        self._make = make_balancer
        self._rng = rng
        self._groups: dict[tuple[int, bool], Group] = {}
        self._active: list[Group] = []
        self._eligible: list[Group] = []
        self._hashing = False
        self.candidates: list[Endpoint] = []
        self.levels: tuple[Level, ...] = ()

    def __repr__(self) -> str:
        return f"<PriorityLevels {self._cluster} {list(self._groups.values())}>"

    @property
    def panic(self) -> bool:
        """Whether any level uses endpoints that it would not otherwise."""
        return any(level.panic for level in self.levels)

    @property
    def picker(self) -> Callable[[Exchange], Endpoint]:
        """What picks, until the next `update`: the only group's balancer, where there is one only."""
        return self._active[0].balancer.pick if len(self._active) == 1 else self.pick

    @property
    def learner(self) -> Callable[[Endpoint, float, int], None] | None:
        """What wants to know how attempts went, until the next `update`; None: nobody does."""
        groups = list(self._groups.values())
        if not groups or not isinstance(groups[0].balancer, Learning):
            return None
        return groups[0].balancer.attempt_ended if len(groups) == 1 else self._attempt_ended

    def _attempt_ended(self, endpoint: Endpoint, seconds: float, status: int) -> None:
        for group in self._groups.values():
            if endpoint in group.members and isinstance(group.balancer, Learning):
                group.balancer.attempt_ended(endpoint, seconds, status)

    # -- changes --------------------------------------------------------------------------------

    def update(
        self,
        members: Collection[Endpoint],
        usable: Sequence[Endpoint],
        zone: str = "",
        panic_threshold: int = 0,
    ) -> None:
        """Work everything out anew.

        Args:
            members: the cluster's endpoints.
            usable: those that may be used.
            zone: the own one; "" prefers none.
            panic_threshold: percent of a level.
        """
        if len({endpoint.spec.priority for endpoint in members}) <= 1:
            by_priority = [list(members)] if members else []
        else:
            sorted_out: dict[int, list[Endpoint]] = {}
            for endpoint in members:
                sorted_out.setdefault(endpoint.spec.priority, []).append(endpoint)
            by_priority = [sorted_out[priority] for priority in sorted(sorted_out)]
        may = set(usable)
        counts = [sum(e in may for e in level) for level in by_priority]
        totals = [len(level) for level in by_priority]
        panics = in_panic(counts, totals, panic_threshold)
        shares = loads(list(map(availability, counts, totals)))
        if panics and all(panics):
            shares = loads_by_size(totals)
        levels = []
        for level, load, panic in zip(by_priority, shares, panics, strict=True):
            chosen = level if panic else [endpoint for endpoint in level if endpoint in may]
            groups = self._split(level, chosen, load, "" if panic else zone)
            levels.append(Level(level[0].spec.priority, load, panic, groups))
        self._take(levels)

    def _split(
        self, level: list[Endpoint], chosen: list[Endpoint], load: int, zone: str
    ) -> tuple[Group, ...]:
        """The groups of one level: the own zone and the others, if it has endpoints in both."""
        priority = level[0].spec.priority
        own = [endpoint for endpoint in level if endpoint.spec.zone == zone] if zone else []
        if not own or len(own) == len(level):
            return (self._group(priority, elsewhere=False).set(level, chosen, load * _PERCENT),)
        # As two levels of their own: the others take what the own zone cannot (Istio's locality
        # failover does the same).
        parts = (own, [endpoint for endpoint in level if endpoint.spec.zone != zone])
        may = set(chosen)
        usable = [[endpoint for endpoint in part if endpoint in may] for part in parts]
        shares = loads(
            [availability(len(now), len(part)) for now, part in zip(usable, parts, strict=True)]
        )
        return tuple(
            self._group(priority, elsewhere=elsewhere).set(part, now, load * share)
            for elsewhere, part, now, share in zip(
                (False, True), parts, usable, shares, strict=True
            )
        )

    def _group(self, priority: int, *, elsewhere: bool) -> Group:
        """The group that was there before, so that its balancer knows what it knew, or a new one."""
        group = self._groups.get((priority, elsewhere))
        return group or Group(priority, self._make(), elsewhere=elsewhere)

    def _take(self, levels: Sequence[Level]) -> None:
        before = {level.priority for level in self.levels if level.panic}
        for level in levels:
            if level.panic and level.priority not in before:
                logger.warning(
                    "cluster %s: panic: too few endpoints of priority %d can be used, so all %d are, "
                    "ejected ones too",
                    self._cluster,
                    level.priority,
                    sum(len(group.members) for group in level.groups),
                )
            elif not level.panic and level.priority in before:
                logger.info(
                    "cluster %s: no panic any more at priority %d", self._cluster, level.priority
                )
        self.levels = tuple(levels)
        groups = [group for level in levels for group in level.groups]
        for group in self._groups.values():
            if group not in groups:
                group.close()
        self._groups = {(group.priority, group.elsewhere): group for group in groups}
        self._active = [group for group in groups if group.load and group.candidates]
        self._hashing = bool(groups) and isinstance(groups[0].balancer, Hashing)
        # A retry may leave the own zone, but not wake a level that takes no traffic.
        self._eligible = [g for level in levels if level.load for g in level.groups]
        self.candidates = [it for group in self._eligible for it in group.candidates]

    def close(self) -> None:
        """The cluster is no more, or has another balancer."""
        for group in self._groups.values():
            group.close()

    # -- one attempt ----------------------------------------------------------------------------

    def pick(self, exchange: Exchange) -> Endpoint:
        """One of the candidates, of which there must be any."""
        return self._choose(exchange).balancer.pick(exchange)

    def _choose(self, exchange: Exchange) -> Group:
        """A group by its share; always the same for the same key, where a balancer hashes."""
        active = self._active
        if len(active) == 1:
            return active[0]
        hashed = request_hash(exchange) if self._hashing else None
        share = self._rng.random() if hashed is None else level_share(hashed)
        point = share * sum([group.load for group in active])
        for group in active:
            point -= group.load
            if point < 0:
                return group
        return active[-1]

    def pick_other(self, exchange: Exchange, tried: Collection[Endpoint]) -> Endpoint:
        """One that is not in `tried`, where there is one: in the same group, level, or any in use."""
        first = self._choose(exchange)
        order = sorted(
            self._eligible,
            key=lambda group: (group is not first, group.priority != first.priority),
        )
        for group in order:
            endpoint = group.pick_untried(exchange, tried, self._rng)
            if endpoint is not None:
                return endpoint
        return first.balancer.pick(exchange)

    def describe(self) -> list[dict[str, Any]]:
        """The levels as JSON-ready types, for `/clusters`."""
        return [
            {
                "priority": level.priority,
                "load_percent": level.load,
                "panic": level.panic,
                "endpoints": sum(len(group.members) for group in level.groups),
                "usable": sum(len(group.candidates) for group in level.groups),
                "own_zone": None
                if len(level.groups) == 1
                else level.groups[0].members[0].spec.zone,
                "own_zone_load_percent": None
                if len(level.groups) == 1
                else level.groups[0].load / _PERCENT,
            }
            for level in self.levels
        ]
