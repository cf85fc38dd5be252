"""The endpoints that callers bring along: those of a transparent listener's passthrough, a bounded number.

An endpoint is made for an original destination when it is first met, and kept for its connections. When
there are too many, those that nothing uses and that were met longest ago make room.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.config.snapshot import EndpointSpec
from hms_addons.errors import ExchangeFailed, Failure, Fault

if TYPE_CHECKING:
    from hms_addons.upstream.cluster import Cluster

MOST: Final = 512
"""Original destinations of one cluster at a time."""
_SPARED: Final = MOST // 8
"""Given up at a time: working out the members anew takes a while."""


class OriginalDestinations:
    """Keeps each such cluster's endpoints.

    Args:
        most: see `MOST`.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._spared = max(1, min(_SPARED, most // 2))

    def reach(self, cluster: Cluster, original: tuple[str, int]) -> None:
        """Make sure that `cluster` has an endpoint for `original`.

        Raises:
            ExchangeFailed: all the places are taken by destinations that are in use.
        """
        known = cluster.endpoints
        if original in known:
            return
        if len(known) >= self._most:
            idle = [key for key, endpoint in known.items() if not endpoint.active]
            if not idle:
                detail = (
                    f"{len(known)} original destinations are in use at once, which is the most that "
                    "are passed through; try again"
                )
                raise ExchangeFailed(Failure.of(Fault.OVERFLOW, detail, retry_after=1.0))
            cluster.forget_resolved(idle[: self._spared])
        host, port = original
        spec = EndpointSpec(host=host, port=port)
        cluster.set_resolved(spec, (spec,))
