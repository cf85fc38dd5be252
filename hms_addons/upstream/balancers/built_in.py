"""The balancers that need no plugin, by their name in a cluster's `load_balancer`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hms_addons.upstream.balancers.least_request import LeastRequest
from hms_addons.upstream.balancers.maglev import Maglev
from hms_addons.upstream.balancers.peak_ewma import PeakEwma
from hms_addons.upstream.balancers.ring_hash import RingHash
from hms_addons.upstream.balancers.round_robin import RoundRobin
from hms_addons.upstream.balancers.weighted_random import WeightedRandom

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.upstream.load_balancer import LoadBalancer

BUILT_IN: Final[Mapping[str, type[LoadBalancer]]] = {
    "round_robin": RoundRobin,
    "least_request": LeastRequest,
    "random": WeightedRandom,
    "ring_hash": RingHash,
    "maglev": Maglev,
    "ewma": PeakEwma,
}
"""`config.installed.BALANCERS` are the names."""
