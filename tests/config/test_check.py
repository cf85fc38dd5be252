from __future__ import annotations

import json
from typing import TYPE_CHECKING

from hms_addons.config.check import check_files
from hms_addons.config.installed import Installed, Known
from tests.conftest import ROOT
from tests.fakes import pki

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
    assert [str(p) for p in result.problems if "there is no file" not in p.message] == []


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


SECRETS = "secrets: {{a: {{certificate: {0}, key: a.key, bundle: b.pem}}, b: {{certificate: c.pem, key: d.key, bundle: b.pem}}}}"


def test_files_that_must_be_here_are_all_named(tmp_path: Path) -> None:
    file = write(tmp_path / "a.yaml", SECRETS.format("a.pem"))
    write(tmp_path / "c.pem", "")
    write(tmp_path / "d.key", "")
    result = check_files([file], known=Known(files=True))
    errors = [problem.path for problem in result.problems if problem.severity == "error"]
    assert errors == [
        *(f"secrets.a.{key}" for key in ("certificate", "key", "bundle")),
        "secrets.b.bundle",
    ]
    assert check_files([file]).ok, "a sidecar's files may come yet"
    text = check_files([file], known=Known(files=False)).to_text()
    assert "there is no file" not in text, "they are elsewhere"


def test_a_secret_that_is_not_good_is_an_error_at_its_place(tmp_path: Path) -> None:
    pki.write_secret(tmp_path, pki.svid("a"), name="a")
    (tmp_path / "bundle.pem").rename(tmp_path / "b.pem")
    pki.write_secret(tmp_path, pki.svid("c"), name="c")
    (tmp_path / "c.key").rename(tmp_path / "d.key")
    file = write(tmp_path / "a.yaml", SECRETS.format("a.pem"))
    assert check_files([file], known=Known(files=True)).ok
    (tmp_path / "d.key").write_bytes((tmp_path / "a.key").read_bytes())
    (problem,) = [
        p for p in check_files([file], known=Known(files=True)).problems if p.severity == "error"
    ]
    assert (problem.path, problem.line) == ("secrets.b", 1)
    assert "c.pem with" in problem.message


def test_what_is_not_installed_is_an_error_here_and_a_warning_for_elsewhere(tmp_path: Path) -> None:
    text = "plugins:\n  stomp: {}\nclusters: [{name: a, load_balancer: roundrobin}, {name: b, load_balancer: sticky}]\n"
    file = write(tmp_path / "a.yaml", text)
    known = Known(installed=Installed(frozenset({"stamp"}), lambda: frozenset({"sticky"})))
    result = check_files([file], known=known)
    assert [str(p) for p in result.problems if p.severity == "error"] == [
        f"{file}:2:3: plugins.stomp: no plugin of this name is here (stamp); install it (did you mean stamp?)",
        f"{file}:3:37: clusters[0].load_balancer: 'roundrobin' is not known; use ewma, least_request, maglev, random, ring_hash, round_robin, sticky (did you mean round_robin?)",
    ]
    mesh = check_files([file], control=True, known=known)
    assert mesh.ok
    assert {p.path for p in mesh.problems} == {"plugins.stomp", "clusters[0].load_balancer"}
    assert check_files([file]).ok, "whoever puts it in force looks at it"


def test_problems_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    bad = write(tmp_path / "bad.yaml", "clusters: [")
    result = check_files([bad, tmp_path / "none.yaml"])
    assert [problem.file for problem in result.problems] == list(result.files)
