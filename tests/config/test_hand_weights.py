"""Moving a canary's share by hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.config.hand_weights import splits, with_share
from hms_addons.errors import ConfigError
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot

CONFIG = """
listeners:
  - name: out
    port: 15001
    routes:
      - { name: verify, match: { prefix: /verify-id }, action: { cluster: auth-svc } }
      - name: pay
        match: { prefix: /pay }
        action: { clusters: [{ name: pay-a, weight: 3 }, { name: pay-b, weight: 1 }, { name: pay-c, weight: 0 }] }
      - { name: plain, match: { prefix: /plain }, action: { cluster: plain } }
clusters:
  - { name: auth-svc, endpoints: ["127.0.0.1:1"] }
  - { name: auth-svc-v2, trafficPolicy: weight=10, endpoints: ["127.0.0.1:2"] }
  - { name: pay-a, service: pay, endpoints: ["127.0.0.1:3"] }
  - { name: pay-b, service: pay, endpoints: ["127.0.0.1:4"] }
  - { name: pay-c, service: pay, endpoints: ["127.0.0.1:5"] }
  - { name: plain, endpoints: ["127.0.0.1:6"] }
"""


@pytest.fixture(scope="module")
def snapshot() -> Snapshot:
    return snapshot_of(CONFIG)


def shares(snapshot: Snapshot, path: str) -> dict[str, float]:
    [listener] = snapshot.listeners
    route = listener.routes.match(path, "", "GET", {})
    assert route is not None
    total = sum(item.weight for item in route.clusters)
    return {item.cluster: round(100 * item.weight / total, 2) for item in route.clusters}


def test_what_can_be_moved(snapshot: Snapshot) -> None:
    found = splits(snapshot)
    assert found["verify"] == ["auth-svc", "auth-svc-v2"]
    assert found["auth-svc"] == ["auth-svc", "auth-svc-v2"]
    assert found["pay"] == ["pay-a", "pay-b", "pay-c"]
    assert "plain" not in found


@pytest.mark.parametrize("where", ["auth-svc", "verify", "auth-svc-v2"])
@pytest.mark.parametrize("percent", [0, 10, 25, 100])
def test_a_canary_gets_what_is_said(snapshot: Snapshot, where: str, percent: int) -> None:
    moved = with_share(snapshot, where, "auth-svc-v2", percent)
    assert shares(moved, "/verify-id") == {"auth-svc": 100 - percent, "auth-svc-v2": percent}
    assert shares(snapshot, "/verify-id")["auth-svc-v2"] == 10, "the old one is as it was"


def test_who_names_the_canary_gets_it_as_before(snapshot: Snapshot) -> None:
    moved = with_share(snapshot, "auth-svc", "auth-svc-v2", 0)
    [listener] = moved.listeners
    route = listener.services["auth-svc-v2"].match("/verify-id", "", "GET", {})
    assert route is not None
    assert [item.cluster for item in route.clusters] == ["auth-svc-v2"]


def test_the_others_keep_their_proportions(snapshot: Snapshot) -> None:
    moved = with_share(snapshot, "pay", "pay-c", 20)
    assert shares(moved, "/pay") == {"pay-a": 60, "pay-b": 20, "pay-c": 20}


def test_one_that_had_all_leaves_the_rest_to_somebody(snapshot: Snapshot) -> None:
    moved = with_share(with_share(snapshot, "pay", "pay-a", 100), "pay", "pay-a", 40)
    assert shares(moved, "/pay") == {"pay-a": 40, "pay-b": 60, "pay-c": 0}


def test_its_source_says_so_once(snapshot: Snapshot) -> None:
    moved = with_share(snapshot, "auth-svc", "auth-svc-v2", 30)
    moved = with_share(moved, "pay", "pay-b", 50)
    moved = with_share(moved, "auth-svc", "auth-svc-v2", 40)
    assert moved.source == (
        f"{snapshot.source} | by hand: pay-b 50% of pay, auth-svc-v2 40% of auth-svc"
    )
    assert moved.version == snapshot.version


@pytest.mark.parametrize(
    ("where", "subset", "percent", "says"),
    [
        ("auth-scv", "auth-svc-v2", 10, "did you mean auth-svc"),
        ("plain", "plain", 10, "no route splits the traffic of 'plain'"),
        ("auth-svc", "auth-svc-v3", 10, "no share for 'auth-svc-v3' .did you mean auth-svc-v2"),
        ("auth-svc", "auth-svc-v2", 101, "0 to 100"),
    ],
)
def test_what_cannot_be_is_refused(
    snapshot: Snapshot, where: str, subset: str, percent: int, says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        with_share(snapshot, where, subset, percent)


def test_a_configuration_without_any_split_says_so() -> None:
    config = (
        "listeners: [{name: out, port: 1, routes: [{match: {prefix: /}, action: {cluster: a}}]}]\n"
    )
    config += "clusters: [{name: a, endpoints: ['127.0.0.1:1']}]\n"
    with pytest.raises(ConfigError, match="none has several clusters"):
        with_share(snapshot_of(config), "a", "b", 1)
