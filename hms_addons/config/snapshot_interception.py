"""What the snapshot holds of intercepted calls and of DNS.

Frozen, as all of the snapshot (`config.snapshot`). Durations are seconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hms_addons.config.route_table import RouteTable
    from hms_addons.config.snapshot import Route

ORIGINAL_DESTINATION: Final = "original:destination"
"""The balancer of clusters whose endpoints are wherever callers meant to go. Nobody can write this name."""
MESH_ADDRESS: Final = "127.240.240.1"
"""What names of the mesh stand for beside a transparent listener: on this machine, and nobody else's, so that
it can be intercepted while calls to 127.0.0.1 are left alone."""
LOOPBACK: Final = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Intercept:
    """What a transparent listener does with calls that were meant for somebody else."""

    routes: RouteTable
    """Those that name a host, which alone count for such a call where it names no service: a route for any
    host is for those who call the mesh, not for whoever has the same path."""
    passthrough: Route | None = None
    """For what is not the mesh's: on to where it was meant to go. None: it is refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsListener:
    """A port that answers DNS queries, by UDP and TCP."""

    name: str
    host: str
    port: int
    addresses: tuple[str, ...] = (LOOPBACK,)
    """What the mesh's names stand for, IPv4 and IPv6."""
    services: frozenset[str] = frozenset()
    """Which NAME of NAME.svc there are, in lower case; any other does not exist."""
    names: frozenset[str] = frozenset()
    """The mesh's other names, in lower case."""
    suffixes: tuple[str, ...] = ()
    """Ends of further ones, with their dot: `.example.org`."""
    resolvers: tuple[tuple[str, int], ...] = ()
    """Who is asked what is not the mesh's; empty: those of the system."""
    forwards: bool = True
    """False: what is not the mesh's is refused."""
    ttl: float = 5.0
