"""`rewrites`: what a request is sent as, where its route says otherwise than the caller.

It runs at the head of authorize, so that what is authorised is what is sent: policies, here and at
the other end, judge the rewritten path. (Envoy's RBAC filter judges the path that was asked for, with
which a prefix rewritten to `/` leads around a policy for `/admin`.) The route was found by the path
that was asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.shaping import shapings
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import get_field

if TYPE_CHECKING:
    from collections.abc import Collection

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange


class Rewrites:
    """The built-in plugin `rewrites`."""

    def __repr__(self) -> str:
        return "<Rewrites>"

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing to do where no route rewrites."""
        used = any(shaping.rewrite is not None for shaping in shapings(snapshot))
        return () if used else ("hms_authorize",)

    @hookimpl(tryfirst=True)
    def hms_authorize(self, exchange: Exchange) -> None:
        """Put the rewritten target and host in place of the caller's."""
        route = exchange.route
        shaping = None if route is None else route.shaping
        rewrite = None if shaping is None else shaping.rewrite
        if rewrite is None:
            return
        if rewrite.path is not None:
            path = exchange.path = rewrite.path.apply(exchange.path)
            query = exchange.query
            exchange.target = (f"{path}?{query}" if query else path).encode()
        host = rewrite.host
        if host is not None and get_field(exchange.fields, b"host") != host:
            before = exchange.fields
            # In its place: servers may expect Host early (RFC 9110 section 7.2).
            after = tuple(
                (name, host) if name.lower() == b"host" else (name, value) for name, value in before
            )
            exchange.fields = after
            if exchange.vouched is before:
                exchange.vouched = after
