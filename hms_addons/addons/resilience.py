"""The forward phase: one request, carried out in spite of failures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from hms_addons.hookspecs import hookimpl
from hms_addons.upstream.elsewhere import try_elsewhere
from hms_addons.upstream.forwarding import Forwarding

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from hms_addons.config.snapshot_forwarding import FallbackStep
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
        manager = cast("ClusterManager", upstream)
        route = exchange.route
        if route is not None and route.mirrors:
            manager.mirrors.send(exchange, route)
        return Forwarding(exchange, manager).run()

    def elsewhere(
        self, exchange: Exchange, upstream: Upstream, step: FallbackStep, began: float
    ) -> Coroutine[Any, Any, Answer | None]:
        """For the plugin `fallback`: see `upstream.elsewhere.try_elsewhere`."""
        return try_elsewhere(exchange, cast("ClusterManager", upstream), step, began)
