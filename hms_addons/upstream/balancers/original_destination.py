"""Where the caller meant to go: the balancer of a transparent listener's passthrough (Envoy's ORIGINAL_DST)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.errors import ExchangeFailed, Failure, Fault

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from hms_addons.exchange import Exchange
    from hms_addons.upstream.endpoint import Endpoint


class OriginalDestination:
    """Picks the one endpoint that is the connection's original destination; draws nothing."""

    def __init__(self, rng: random.Random) -> None:
        del rng
        self._by_address: dict[tuple[str, int], Endpoint] = {}

    def update(self, candidates: Sequence[Endpoint]) -> None:
        """See `LoadBalancer`."""
        self._by_address = {(one.spec.host, one.spec.port): one for one in candidates}

    def pick(self, exchange: Exchange) -> Endpoint:
        """See `LoadBalancer`.

        Raises:
            ExchangeFailed: it has just been given up to make room, or with a change of the configuration.
        """
        found = self._by_address.get(exchange.downstream.original)
        if found is None:
            detail = "the original destination has just been given up; try again"
            raise ExchangeFailed(Failure.of(Fault.NO_HEALTHY_UPSTREAM, detail, retry_after=1.0))
        return found
