"""The files that the demo writes are judged by the product's own check."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from hms_addons.config.check import check_files
from hms_addons.config.source import load_files
from scripts.demonstration.mesh import listener_routes
from scripts.demonstration.mesh_files import (
    CALLER,
    LISTENER,
    LISTENER_PORT,
    VERIFY_ONLY,
    Overlay,
    Shared,
    replica_file,
    to_yaml,
)
from scripts.demonstration.tokens import Issuer

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot

ROUTES = Path(__file__).resolve().parents[3] / "configs" / "routes.yaml"
PORTS = [9001, 9002, 9003, 9004, 9005]


@pytest.fixture
def shared(tmp_path: Path) -> Shared:
    key = tmp_path / "token-key.pem"
    Issuer().write_public_key(key)
    return Shared(9100, key, tmp_path)


@pytest.fixture
def overlay(shared: Shared) -> Overlay:
    return Overlay(shared, PORTS, listener_routes(ROUTES))


def load(folder: Path, text: str) -> Snapshot:
    path = folder / "overlay.yaml"
    path.write_text(text)
    assert check_files([ROUTES, path]).ok
    return load_files([ROUTES, path])


def test_the_overlay_adds_to_the_seeds_file_and_takes_nothing_away(
    overlay: Overlay, tmp_path: Path
) -> None:
    snapshot = load(tmp_path, overlay.text("Made for a test."))
    (listener,) = snapshot.listeners
    assert (listener.name, listener.port) == (LISTENER, LISTENER_PORT)
    cluster = snapshot.clusters["auth-svc"]
    assert [endpoint.port for endpoint in cluster.endpoints] == PORTS
    assert cluster.connect_timeout == 0.25
    assert cluster.tls is not None
    assert snapshot.service == "claims-svc"


def test_a_route_is_added_after_the_seeds_own(overlay: Overlay, tmp_path: Path) -> None:
    overlay.add_payments(9200)
    load(tmp_path, overlay.text())
    (listener,) = yaml.safe_load(overlay.text())["listeners"]
    seeds, added = listener["routes"]
    assert seeds == listener_routes(ROUTES)[0]
    assert added["action"]["cluster"] == "payments-svc"


def test_the_added_route_is_limited_and_let_go_again(overlay: Overlay, tmp_path: Path) -> None:
    overlay.add_payments(9200)
    before = overlay.text()
    overlay.limit_payments({"requests": 3, "per": "1m", "by": "subject"})
    *_, limited = load(tmp_path, overlay.text()).listeners[0].routes
    assert limited.shaping is not None
    assert [limit.requests for limit in limited.shaping.rate_limits] == [3]
    overlay.limit_payments(None)
    assert overlay.text() == before


def test_the_listener_moves_and_keeps_its_routes(overlay: Overlay, tmp_path: Path) -> None:
    overlay.add_payments(9200)
    overlay.move_listener(9300)
    (listener,) = load(tmp_path, overlay.text()).listeners
    assert (listener.name, listener.port) == (LISTENER, 9300)
    _, added = yaml.safe_load(overlay.text())["listeners"][0]["routes"]
    assert added["action"]["cluster"] == "payments-svc"


def test_the_broken_overlay_is_broken_in_one_place_and_the_overlay_is_not_touched(
    overlay: Overlay, tmp_path: Path
) -> None:
    overlay.add_payments(9200)
    before = overlay.text()
    path = tmp_path / "overlay.yaml"
    path.write_text(overlay.broken_text())
    result = check_files([ROUTES, path])
    (problem,) = [line for line in result.to_text().splitlines() if "conect_timeout" in line]
    assert problem.startswith(f"{path}:")
    assert "did you mean connect_timeout?" in problem
    assert not result.ok
    assert overlay.text() == before


@pytest.mark.parametrize("allow", [None, VERIFY_ONLY])
def test_a_replicas_file(shared: Shared, tmp_path: Path, allow: dict[str, object] | None) -> None:
    path = tmp_path / "auth-1.yaml"
    content = replica_file(shared, "auth-svc", port=9001, app_port=8081, allow=allow)
    path.write_text(to_yaml(content))
    assert check_files([path]).ok
    snapshot = load_files([path])
    (listener,) = snapshot.listeners
    assert (listener.direction, listener.tls, listener.port) == ("inbound", "strict", 9001)
    assert [policy.callers for policy in snapshot.rbac.policies] == ([(CALLER,)] if allow else [])


def test_one_replicas_policy_is_not_anothers(shared: Shared) -> None:
    replica_file(shared, "auth-svc", port=1, app_port=2, allow=VERIFY_ONLY)
    other = replica_file(shared, "payments-svc", port=3, app_port=4)
    assert "policies" not in other["rbac"]
