from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hms_addons.config.check import check_files
from tests.conftest import ROOT

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_the_shipped_files_are_good() -> None:
    result = check_files([ROOT / "configs/routes.yaml"])
    assert result.ok
    assert result.counts == {
        "listeners": 1,
        "routes": 1,
        "clusters": 1,
        "endpoints": 0,
        "secrets": 0,
        "policies": 0,
    }
    assert "mesh_certs" in result.to_text()
    assert result.to_text().splitlines()[-1] == (
        "ok: 1 listener, 1 route, 1 cluster, 0 endpoints, 0 secrets, 0 policies; 2 warnings"
    )


def test_our_copy_of_the_seed_s_routes_is_the_seed_s(seed: Path) -> None:
    assert (ROOT / "configs/routes.yaml").read_bytes() == (seed / "routes.yaml").read_bytes()


def test_the_example_is_good_but_for_its_certificates() -> None:
    result = check_files([ROOT / "configs/example.yaml"])
    assert result.ok
    assert all("there is no file" in problem.message for problem in result.problems)


def test_every_problem_of_a_bad_file(tmp_path: Path) -> None:
    path = write(tmp_path / "bad.yaml", "listners: [{}]\nclusters: [{name: a, dns: 5}]\n")
    result = check_files([path])
    assert not result.ok
    assert result.version is None
    assert result.to_text().splitlines() == [
        f"{path}:1:1: listners: unknown key 'listners' (did you mean listeners?)",
        f"{path}:1:12: listners[0]: the key 'name' is missing",
        f"{path}:1:12: listners[0]: the key 'port' is missing",
        f"{path}:2:19: warning: clusters[0].name: unused: no route leads to a, nothing but requests that name a.svc",
        f"{path}:2:27: clusters[0].dns: expected a list, not 5",
        "refused: 4 errors, 1 warning",
    ]
    assert json.loads(json.dumps(result.to_json())) == {
        "ok": False,
        "files": [str(path)],
        "version": None,
        "errors": 4,
        "warnings": 1,
        "counts": {},
        "problems": [problem.to_json() for problem in result.problems],
    }


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    good = write(tmp_path / "good.yaml", "clusters: [{name: a}]")
    result = check_files([good, tmp_path / "nope.yaml", tmp_path])
    assert result.to_text().splitlines() == [
        f"{tmp_path}/nope.yaml:1:1: cannot be read: No such file or directory",
        f"{tmp_path}:1:1: cannot be read: Is a directory",
        "refused: 2 errors",
    ]


def test_the_service_can_be_told(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.yaml",
        "listeners: [{name: p, port: 1, direction: inbound, app: 'h:1'}]\n"
        "rbac: {policies: [{name: x, action: DENY, services: [a]}]}\n",
    )
    assert not check_files([path]).ok
    result = check_files([path], service="a")
    assert result.ok
    assert result.counts["policies"] == 1
    assert result.to_text().splitlines()[-1].endswith("1 policy")


def test_a_whole_mesh_and_one_service_of_it(tmp_path: Path) -> None:
    listeners = "listeners: [{name: a, port: 1, services: [x]}, {name: b, port: 1, services: [y]}]"
    file = write(tmp_path / "mesh.yaml", listeners)
    assert not check_files([file]).ok
    assert check_files([file], control=True).counts["listeners"] == 2
    assert check_files([file], service="x", control=True).counts["listeners"] == 1
