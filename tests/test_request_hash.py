"""The hash of a request: by header, cookie, query parameter, caller."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.hash_on import HashKey, HashOn
from hms_addons.request_hash import (
    cluster_share,
    hash_by,
    hash_on_of,
    level_share,
    made_cookie,
    point_of,
    request_hash,
    sent_cookie,
    stable_hash,
)
from tests.fakes.exchange import make_exchange, make_route
from tests.fakes.upstream import make_cluster

if TYPE_CHECKING:
    from hms_addons.exchange import Exchange

HEADER = HashOn(kind=HashKey.HEADER, name="x-user")
COOKIE = HashOn(kind=HashKey.COOKIE, name="s")
MADE = HashOn(kind=HashKey.COOKIE, name="s", attributes="; HttpOnly")
QUERY = HashOn(kind=HashKey.QUERY, name="user")
SOURCE = HashOn(kind=HashKey.SOURCE)


def test_a_hash_is_the_same_in_every_process() -> None:
    """Pinned: sidecars of two versions must agree."""
    assert f"{stable_hash(b'anna'):032x}" == "97ff01b7d305977af0333a8d116c54f0"


@pytest.mark.parametrize(
    ("hash_on", "request_of_anna", "request_without"),
    [
        (HEADER, {"headers": [("X-User", "anna")]}, {}),
        (HEADER, {"headers": [("X-User", "anna")]}, {"headers": [("X-User", "")]}),
        (
            COOKIE,
            {"headers": [("Cookie", 'a=b; s="anna" ;t=u')]},
            {"headers": [("Cookie", "ss=1")]},
        ),
        (COOKIE, {"headers": [("Cookie", "s=anna")]}, {"headers": [("Cookie", "s=; t")]}),
        (QUERY, {"target": "/?user=anna&user=other"}, {"target": "/?use=1"}),
        (QUERY, {"target": "/?user=%61nna"}, {"target": "/?user="}),
    ],
)
def test_keys(hash_on: HashOn, request_of_anna: Any, request_without: Any) -> None:
    assert hash_by(make_exchange(**request_of_anna), hash_on) == stable_hash(b"anna")
    assert hash_by(make_exchange(**request_without), hash_on) is None


def test_the_caller_is_its_spiffe_id_or_its_address_without_the_port() -> None:
    exchange = make_exchange()
    client = SimpleNamespace(peername=("10.0.0.9", 40000))
    exchange.downstream = SimpleNamespace(client=client)
    assert hash_by(exchange, SOURCE) == stable_hash(b"10.0.0.9")
    exchange.peer = "spiffe://mpsa.mil/svc/claims-svc"
    assert hash_by(exchange, SOURCE) == stable_hash(b"spiffe://mpsa.mil/svc/claims-svc")


def test_a_caller_that_nobody_knows() -> None:
    exchange = make_exchange()
    exchange.downstream = None
    assert hash_by(exchange, SOURCE) is None


def test_a_cookie_that_is_missing_is_made_once_a_request() -> None:
    one, other = make_exchange(), make_exchange()
    assert hash_by(one, MADE) == hash_by(one, MADE) == stable_hash(made_cookie(one))
    assert made_cookie(one) != made_cookie(other)
    assert len(made_cookie(one)) == 16
    had = make_exchange(headers=[("Cookie", f"s={made_cookie(one).decode()}")])
    assert sent_cookie(had, b"s") == made_cookie(one)
    assert hash_by(had, MADE) == hash_by(one, MADE), "so it comes back to the same endpoint"


def hashed_on(route: HashOn | None, cluster: HashOn | None) -> Exchange:
    exchange = make_exchange(headers=[("X-User", "anna")], route=make_route(hash_on=route))
    exchange.cluster = make_cluster(hash_on=cluster)
    return exchange


def test_the_routes_key_goes_over_the_clusters() -> None:
    assert hash_on_of(hashed_on(HEADER, QUERY)) is HEADER
    assert hash_on_of(hashed_on(None, HEADER)) is HEADER
    assert request_hash(hashed_on(None, HEADER)) == stable_hash(b"anna")
    assert request_hash(hashed_on(None, None)) is None
    nowhere = make_exchange()
    nowhere.route = None
    assert request_hash(nowhere) is None


def test_the_three_choices_are_independent() -> None:
    """What has the same low share of one has every share of the others."""
    hashes = [stable_hash(str(n).encode()) for n in range(4000)]
    shares = [(cluster_share(h), level_share(h), point_of(h) / 2**64) for h in hashes]
    assert all(0 <= part < 1 for found in shares for part in found)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        low = [found[other] for found in shares if found[one] < 0.1]
        assert abs(len(low) - 400) < 80
        assert abs(sum(low) / len(low) - 0.5) < 0.06
