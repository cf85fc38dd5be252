"""Connections that were led to a transparent listener, for tests without sockets."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING

from hms_addons.config.request_target import named_service
from tests.fakes.configs import snapshot_of
from tests.fakes.exchange import make_exchange

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange

THERE = ("203.0.113.9", 80)
"""Where intercepted calls were meant to go."""


def transparent(unmatched: str = "refuse", more: str = "") -> Snapshot:
    """A snapshot with one transparent listener, which leads to `auth-svc` and, by its host, to `partner`."""
    return snapshot_of(
        f"""\
        listeners:
          - name: caught
            kind: transparent
            port: 15001
            unmatched: {unmatched}
            routes:
              - {{name: any, match: {{prefix: /verify-id}}, action: {{cluster: auth-svc}}}}
              - {{name: named, match: {{host: api.partner.example}}, action: {{cluster: partner}}}}
            {more}
        clusters:
          - {{name: auth-svc, endpoints: ["10.0.0.1:80"]}}
          - {{name: partner, endpoints: ["10.0.1.1:80"]}}
        """
    )


def caught(
    snapshot: Snapshot,
    host: str,
    target: str = "/",
    original: tuple[str, int] | None = THERE,
    *fields: tuple[str, str],
) -> Exchange:
    """A call to `host` as the listener has taken it over; with `original` None it was sent there."""
    exchange = make_exchange(
        target, snapshot=snapshot, listener=snapshot.listeners[0], headers=fields
    )
    exchange.flow.request.headers["Host"] = host
    exchange.head[b"host"] = host.encode()
    exchange.service, _ = named_service("", host.encode())
    exchange.route = None
    exchange.downstream = SimpleNamespace(
        original=original, looped=None, client=exchange.flow.client_conn
    )
    return exchange
