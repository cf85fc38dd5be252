"""The hash of a request by its `hash_on`: what makes it go where others like it have gone.

128 bits, the same on every sidecar and in every run. Which endpoint, which level of endpoints and
which of a route's clusters are each taken from bits of their own: were they taken from the same ones,
an endpoint's share would depend on the share of its cluster.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING, Final

from hms_addons.config.hash_on import HashKey
from hms_addons.config.route_match import parse_query

if TYPE_CHECKING:
    from hms_addons.config.hash_on import HashOn
    from hms_addons.exchange import Exchange

_POINT: Final = (1 << 64) - 1
_SHARE: Final = (1 << 32) - 1
_SCALE: Final = 1 / (1 << 32)


def hash_on_of(exchange: Exchange) -> HashOn | None:
    """What this request is hashed on: its route's `hash_on`, else its cluster's, else nothing."""
    route = exchange.route
    if route is not None and route.hash_on is not None:
        return route.hash_on
    cluster = exchange.cluster
    return None if cluster is None else cluster.hash_on


def request_hash(exchange: Exchange) -> int | None:
    """Its hash; None if it is not hashed on anything, or has no such value."""
    hash_on = hash_on_of(exchange)
    return None if hash_on is None else hash_by(exchange, hash_on)


def hash_by(exchange: Exchange, hash_on: HashOn) -> int | None:
    """Its hash on that key; None if it has no such value, or an empty one."""
    value = _value(exchange, hash_on)
    return stable_hash(value) if value else None


def stable_hash(value: bytes) -> int:
    """128 bits that depend on nothing but `value`. blake2b is the standard library's quickest."""
    return int.from_bytes(blake2b(value, digest_size=16).digest())


def point_of(hashed: int) -> int:
    """64 bits of a hash, for choosing an endpoint."""
    return hashed & _POINT


def level_share(hashed: int) -> float:
    """A number in [0, 1) from other bits, for choosing among groups of endpoints."""
    return (hashed >> 64 & _SHARE) * _SCALE


def cluster_share(hashed: int) -> float:
    """A number in [0, 1) from yet other bits, for choosing among a route's clusters."""
    return (hashed >> 96) * _SCALE


def _value(exchange: Exchange, hash_on: HashOn) -> bytes | None:
    kind = hash_on.kind
    if kind is HashKey.HEADER:
        return exchange.head.get(hash_on.name.encode())
    if kind is HashKey.COOKIE:
        found = sent_cookie(exchange, hash_on.name.encode())
        if not found and hash_on.attributes is not None:
            return made_cookie(exchange)
        return found
    if kind is HashKey.QUERY:
        values = parse_query(exchange.query).get(hash_on.name)
        return values[0].encode("utf-8", "replace") if values else None
    return _source(exchange)


def _source(exchange: Exchange) -> bytes | None:
    if exchange.peer is not None:
        return exchange.peer.encode()
    client = getattr(exchange.downstream, "client", None)
    address = None if client is None else client.peername
    return str(address[0]).encode() if address else None


def sent_cookie(exchange: Exchange, name: bytes) -> bytes | None:
    """The value of a cookie that the request came with (RFC 6265 §4.2.1), or None."""
    header = exchange.head.get(b"cookie")
    if header is None:
        return None
    for pair in header.split(b";"):
        found, equals, value = pair.partition(b"=")
        if equals and found.strip() == name:
            return value.strip().strip(b'"')
    return None


def made_cookie(exchange: Exchange) -> bytes:
    """The value that the mesh gives a request without its cookie; the same whenever it is asked."""
    return blake2b(exchange.id.encode(), digest_size=8).hexdigest().encode()
