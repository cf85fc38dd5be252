"""`header_rules`: the header fields that a route sets, adds and removes, both ways.

Requests are edited at the very end of prepare, after the mesh's own headers and every plugin's; the
rules cannot name those of the mesh. Answers are edited at the very end of respond, the mesh's own
ones included once a route was found, as in Envoy (a local reply of a route gets its
`response_headers_to_add`). The order is: the cluster's rules, the route's, the listener's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.shaping import shapings
from hms_addons.hookspecs import hookimpl

if TYPE_CHECKING:
    from collections.abc import Collection

    from hms_addons.config.shaping import ClusterEdits, Shaping
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange


class HeaderRules:
    """The built-in plugin `header_rules`."""

    def __repr__(self) -> str:
        return "<HeaderRules>"

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where no route edits what passes that way."""
        idle = {"hms_prepare", "hms_respond"}
        for shaping in shapings(snapshot):
            edits = shaping.by_cluster.values()
            if shaping.request_headers or any(item.request for item in edits):
                idle.discard("hms_prepare")
            if shaping.response_headers or any(item.response for item in edits):
                idle.discard("hms_respond")
        return idle

    @hookimpl(trylast=True)
    def hms_prepare(self, exchange: Exchange) -> None:
        """Edit what is sent on."""
        route = exchange.route
        shaping = None if route is None else route.shaping
        if shaping is None or not (shaping.request_headers or shaping.by_cluster):
            return
        before = fields = exchange.fields
        cluster = _of_cluster(exchange, shaping)
        if cluster is not None and cluster.request is not None:
            fields = cluster.request.apply(fields)
        for edits in shaping.request_headers:
            fields = edits.apply(fields)
        exchange.fields = fields
        if exchange.vouched is before:
            exchange.vouched = fields

    @hookimpl(trylast=True)
    def hms_respond(self, exchange: Exchange) -> None:
        """Edit the answer."""
        route, answer = exchange.route, exchange.answer
        shaping = None if route is None else route.shaping
        if shaping is None or answer is None:
            return
        if not (shaping.response_headers or shaping.by_cluster):
            return
        fields = answer.fields
        cluster = _of_cluster(exchange, shaping)
        if cluster is not None and cluster.response is not None:
            fields = cluster.response.apply(fields)
        for edits in shaping.response_headers:
            fields = edits.apply(fields)
        answer.fields = fields


def _of_cluster(exchange: Exchange, shaping: Shaping) -> ClusterEdits | None:
    cluster = exchange.cluster
    return None if cluster is None else shaping.by_cluster.get(cluster.name)
