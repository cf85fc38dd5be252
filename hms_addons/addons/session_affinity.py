"""Session affinity by a cookie of the mesh's own: sets it on the answer to a request without one.

The cookie's value was made when the endpoint was chosen by it (`request_hash`), so the next request
that brings it back goes to the same endpoint.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hms_addons.hookspecs import hookimpl
from hms_addons.request_hash import hash_on_of, made_cookie, sent_cookie

if TYPE_CHECKING:
    from collections.abc import Collection

    from hms_addons.config.hash_on import HashOn
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange


class SessionAffinity:
    """`hash_on: {cookie: …, ttl: …}`."""

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """See `MeshSpecs`: without such a cookie there is nothing to do."""
        return () if any(map(_is_made, _all(snapshot))) else ("hms_respond",)

    @hookimpl
    def hms_respond(self, exchange: Exchange) -> None:
        """Set the cookie, if an endpoint was chosen by one that the request did not have."""
        hash_on, answer = hash_on_of(exchange), exchange.answer
        if hash_on is None or answer is None or exchange.endpoint is None:
            return
        attributes, name = hash_on.attributes, hash_on.name.encode()
        if attributes is None or sent_cookie(exchange, name):
            return
        value = b"%b=%b%b" % (name, made_cookie(exchange), attributes.encode())
        answer.fields = (*answer.fields, (b"Set-Cookie", value))


def _all(snapshot: Snapshot) -> list[Any]:
    found = [cluster.hash_on for cluster in snapshot.clusters.values()]
    for listener in snapshot.listeners:
        for table in (listener.routes, *listener.services.values()):
            found += [route.hash_on for route in table]
    return found


def _is_made(hash_on: HashOn | None) -> bool:
    return hash_on is not None and hash_on.attributes is not None
