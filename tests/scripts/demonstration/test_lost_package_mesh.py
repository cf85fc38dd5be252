from __future__ import annotations

from pathlib import Path

import pytest

from scripts.demonstration.children import DemoError
from scripts.demonstration.lost_package_mesh import child_environment, listener_routes, seed_file
from scripts.demonstration.replica import Replica


def test_the_seeds_files_are_used_as_they_stand(seed: Path) -> None:
    assert seed_file("claims.py", Path("ours")) == seed / "claims.py"


def test_without_the_seed_ours_are_used() -> None:
    assert seed_file("no-such-file", Path("ours")) == Path("ours")


def test_our_routes_are_the_seeds(seed: Path) -> None:
    ours = Path(__file__).resolve().parents[3] / "configs" / "routes.yaml"
    assert listener_routes(ours) == listener_routes(seed / "routes.yaml")


def test_a_routes_file_without_the_listener(tmp_path: Path) -> None:
    path = tmp_path / "routes.yaml"
    path.write_text("listeners: [{name: other, port: 1, routes: []}]")
    with pytest.raises(DemoError, match="has no listener 'inbound_http'"):
        listener_routes(path)


def test_children_see_no_settings_of_the_persons_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HMS_CONFIG", "/elsewhere.yaml")
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    monkeypatch.setenv("http_proxy", "http://192.0.2.1:3128")
    env = child_environment()
    assert not [name for name in env if name.startswith("HMS_")]
    assert "PYTHONPATH" not in env
    assert "127.0.0.1" in env["no_proxy"]


def test_a_replica_that_does_not_run_has_no_app(tmp_path: Path) -> None:
    replica = Replica("auth-svc", "auth-1", 9, 9, 9, tmp_path)
    assert replica.app_pid() is None
    assert replica.command[:2] == ["hms", "sidecar"]
    assert "scripts.lost_package.auth_svc" in replica.command
