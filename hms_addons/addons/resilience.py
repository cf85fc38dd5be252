"""The forward phase: one request, carried out in spite of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hms_addons.hookspecs import hookimpl
from hms_addons.upstream.forwarding import Forwarding

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Upstream
    from hms_addons.http_message import Answer
    from hms_addons.upstream.cluster_manager import ClusterManager


class Resilience:
    """The built-in plugin that forwards."""

    @hookimpl(trylast=True)
    def hms_forward(self, exchange: Exchange, upstream: Upstream) -> Coroutine[Any, Any, Answer]:
        """See `MeshSpecs.hms_forward`.

        Raises:
            ExchangeFailed: there is no answer to be had; says why, and what to do.
        """
        return Forwarding(exchange, cast("ClusterManager", upstream)).run()
