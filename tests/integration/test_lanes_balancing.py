"""One suite over every lane: who keeps to which endpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.integration.conftest import Backends, Lane


def ports(lane: Lane, target: str, *fields: str, count: int = 8) -> set[int]:
    """Where that many like requests end up."""
    return {lane.fetch("GET", target, *fields).json["port"] for _ in range(count)}


def test_a_session_keeps_to_its_endpoint_by_the_cookie_that_the_mesh_set(lane: Lane) -> None:
    endpoints = set()
    for _ in range(24):  # by chance all on one: once in eight million runs
        first = lane.fetch("GET", "/sticky")
        cookie = first.header("set-cookie") or ""
        assert cookie.startswith("hms-session="), first
        assert cookie.endswith("; Max-Age=3600; Path=/; HttpOnly")
        again = lane.fetch("GET", "/sticky", f"Cookie: a=b; {cookie.partition(';')[0]}")
        assert again.json["port"] == first.json["port"]
        assert again.header("set-cookie") is None
        endpoints.add(first.json["port"])
    assert len(endpoints) == 2, "and sessions are spread"


def test_a_routes_header_goes_over_the_clusters_cookie(lane: Lane, backends: Backends) -> None:
    users = [f"X-User: user-{n}" for n in range(8)]
    found = [ports(lane, "/sticky/user", user, count=2) for user in users]
    assert all(len(kept) == 1 for kept in found)
    assert set().union(*found) == {backends.app.port, backends.second.port}
    assert lane.fetch("GET", "/sticky/user", users[0]).header("set-cookie") is None


def test_without_the_value_any_endpoint_is_taken(lane: Lane) -> None:
    assert len(ports(lane, "/sticky/user", count=24)) == 2


def test_a_user_keeps_to_one_of_a_routes_clusters(lane: Lane) -> None:
    found = [ports(lane, f"/split?user=u{n}", count=2) for n in range(8)]
    assert all(len(kept) == 1 for kept in found)
    assert len(set().union(*found)) == 2
