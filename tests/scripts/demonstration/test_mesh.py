from __future__ import annotations

from pathlib import Path

import pytest

from scripts.demonstration.children import DemoError
from scripts.demonstration.mesh import listener_routes, seed_file


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
