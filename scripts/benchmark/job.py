"""What the contenders are asked to carry."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

POLICY_VERSION = "1.3.4"
"""What HMS-GOV answers, and what `X-Policy-Version` must say at the upstream."""
PATH = "/verify-id"
"""The seed's own request."""
LAST_ROUTE = "/service-4999"
ALL_ROUTES = 5000


class Task(StrEnum):
    """Which of the three jobs."""

    PLAIN = "plain"
    """One hop, no policy, no TLS."""
    POLICY = "policy"
    """One hop that verifies the token, checks the role, adds the headers, retries, breaks."""
    PAIR = "pair"
    """Two hops, outbound and inbound, with mutual TLS between them."""


@dataclass(frozen=True, slots=True)
class Job:
    """A task for the upstream on 127.0.0.1:`upstream_port`."""

    task: Task
    upstream_port: int
    routes: int | None = None
    """So many prefix routes, of which the last one matches `LAST_ROUTE`; None: one for all paths."""

    @property
    def prefixes(self) -> tuple[str, ...]:
        """The path prefixes to route, in order.

        The last one is the same for every number of routes, so the requests are the same too.
        """
        if self.routes is None:
            return ("/",)
        return tuple(f"/service-{i:04d}" for i in range(ALL_ROUTES - self.routes, ALL_ROUTES))

    @property
    def path(self) -> str:
        """The path to request."""
        return PATH if self.routes is None else LAST_ROUTE + PATH
