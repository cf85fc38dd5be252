"""What a route does to traffic besides leading it somewhere; compiled, on `Route.shaping`.

A route that shapes nothing has None there, so that it costs one look.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from hms_addons.config.header_edits import HeaderEdits
    from hms_addons.config.local_answers import DirectResponse, Redirect
    from hms_addons.config.path_rewrite import Rewrite
    from hms_addons.config.route_match import ValueMatch
    from hms_addons.config.snapshot import Snapshot


class LimitBy(StrEnum):
    """Whose requests share a bucket."""

    CALLER = "caller"
    """The peer's SPIFFE ID over mutual TLS."""
    ROLE = "role"
    """The most senior role of the token."""
    SUBJECT = "subject"
    """The token's subject."""
    HEADER = "header"
    """The value of a request field."""
    ROUTE = "route"
    """All requests of the place where the limit is written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """A token bucket per key: `burst` at once, refilled at `requests` in `per` seconds."""

    name: str
    """For answers and people; unique within its route."""
    place: str
    """Where it is written; requests of all that share the place share its buckets."""
    requests: int
    per: float
    burst: int
    by: LimitBy = LimitBy.ROUTE
    header: bytes | None = None
    """The field's name in lower case, with `LimitBy.HEADER`."""
    key: str = field(init=False, repr=False, compare=False)
    """Finds its buckets; another as soon as anything about it changes."""

    def __post_init__(self) -> None:
        """Make the key once."""
        parts = (self.place, self.name, self.requests, self.per, self.burst, self.by, self.header)
        object.__setattr__(self, "key", repr(parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What is injected into which share of the requests, in percent."""

    delay: float | None = None
    delay_percent: float = 100.0
    abort: int | None = None
    """The status to answer with."""
    abort_percent: float = 100.0
    when: tuple[ValueMatch, ...] = ()
    """Conditions on header fields, all of which must hold."""
    max_active: int = 1024
    """Requests that may be delayed at once; past it none is injected."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterEdits:
    """Header edits for the requests that one of a route's clusters takes."""

    request: HeaderEdits | None = None
    response: HeaderEdits | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaping:
    """All of a route's traffic shaping, its listener's worked in."""

    rate_limits: tuple[RateLimit, ...] = ()
    """All of them must admit; the route's own first."""
    fault: Fault | None = None
    rewrite: Rewrite | None = None
    request_headers: tuple[HeaderEdits, ...] = ()
    """In order: the route's, then its listener's."""
    response_headers: tuple[HeaderEdits, ...] = ()
    by_cluster: Mapping[str, ClusterEdits] = field(default_factory=dict)
    """Applied before the others."""
    answer: DirectResponse | Redirect | None = None
    """Given instead of forwarding; such a route has no clusters."""


def shapings(snapshot: Snapshot) -> Iterator[Shaping]:
    """Every shaping that a request of `snapshot` can meet; some come twice."""
    for listener in snapshot.listeners:
        # A service's table has the same routes and its default one, which is like all others.
        for table in (listener.routes, *islice(listener.services.values(), 1)):
            for route in table:
                if route.shaping is not None:
                    yield route.shaping
