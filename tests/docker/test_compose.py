"""docker/compose.yaml, read: a sidecar per service in its namespace, secrets where they belong."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.conftest import ROOT
from tests.docker.kit import DOCKER, compose, named_variables, stages, variables

if TYPE_CHECKING:
    from pathlib import Path

SERVICES: dict[str, Any] = compose()["services"]
SIDECARS = {name: it for name, it in SERVICES.items() if name.endswith("-sidecar")}
JOINS = {name: it for name, it in SERVICES.items() if name.endswith("-join")}
MOST_SECONDS_IN_FLIGHT = 30


def targets(name: str) -> set[str]:
    """Where a service has volumes."""
    return {volume.split(":")[1] for volume in SERVICES[name].get("volumes", ())}


APPS = ("user-portal", "claims-svc", "auth-svc", "auth-svc-v2", "payments-svc")
BESIDE = {"hms-gov", "token-issuer"}


def sidecar_of(app: str) -> str:
    return f"{app.replace('-svc', '')}-sidecar"


def test_there_is_the_whole_lost_package_mesh() -> None:
    assert set(SIDECARS) == set(map(sidecar_of, APPS))
    assert {"control", "configure", "claim", "operator", *APPS, *BESIDE} <= set(SERVICES)
    file = yaml.safe_load((ROOT / "configs/lost-package/mesh.yaml").read_text(encoding="utf-8"))
    there = {name for name, it in file["services"].items() if it.get("replicas", 1)}
    assert there == {*APPS, *BESIDE}, "the same services as `hms up` runs"


def test_each_service_shares_its_network_namespace_with_its_sidecar() -> None:
    for app in APPS:
        assert SIDECARS[sidecar_of(app)]["network_mode"] == f"service:{app}"
        assert "--host" not in SERVICES[app]["command"], "only the sidecar is reached from outside"


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_has_no_rights_and_a_read_only_root(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert "cap_add" not in service
    assert "ports" not in service


@pytest.mark.parametrize("name", SERVICES)
def test_each_is_built_from_a_target_that_exists(name: str) -> None:
    assert SERVICES[name]["build"]["target"] in stages()


@pytest.mark.parametrize("name", SERVICES)
def test_what_it_depends_on_exists_and_can_come_about(name: str) -> None:
    for other, needs in SERVICES[name].get("depends_on", {}).items():
        ends = SERVICES[other].get("restart") == "no"
        assert (needs["condition"] == "service_completed_successfully") is ends
        if needs["condition"] == "service_healthy":
            assert other == "control" or other in SIDECARS


def test_only_the_control_plane_and_one_shots_see_the_admin_token() -> None:
    see = {name for name in SERVICES if "/srv/operator" in targets(name)}
    assert see == {"control", "configure", "operator", *JOINS}
    writes = [v for name in see for v in SERVICES[name]["volumes"] if v == "operator:/srv/operator"]
    assert len(writes) == 1


def test_each_sidecar_waits_for_a_token_of_its_own_and_cannot_change_it() -> None:
    for name, sidecar in SIDECARS.items():
        short = name.removesuffix("-sidecar")
        join = SERVICES[f"{short}-join"]
        assert (
            sidecar["depends_on"][f"{short}-join"]["condition"] == "service_completed_successfully"
        )
        assert f"{short}-join:/srv/join" in join["volumes"]
        assert f"{short}-join:/srv/join:ro" in sidecar["volumes"]
        assert sidecar["environment"]["HMS_SERVICE"] == join["environment"]["HMS_SERVICE"]
        assert "/srv/operator" not in targets(name)


def test_volumes_are_declared_and_no_two_sidecars_share_state() -> None:
    named = [
        volume.split(":")[0]
        for service in SERVICES.values()
        for volume in service.get("volumes", ())
        if not volume.startswith(".")
    ]
    assert set(named) == set(compose()["volumes"])
    states = [name for name in named if name.endswith("-state")]
    assert len(states) == len(set(states)) == len(SIDECARS) + 1


def test_a_sidecar_is_given_the_time_that_it_drains() -> None:
    for sidecar in SIDECARS.values():
        assert int(sidecar["stop_grace_period"].removesuffix("s")) > MOST_SECONDS_IN_FLIGHT


def test_every_variable_is_one_that_hms_reads_and_none_holds_a_secret() -> None:
    text = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
    assert named_variables(text) <= variables()
    assert "HMS_TOKEN" not in text
    assert "HMS_ADMIN_TOKEN" not in text


@pytest.mark.parametrize("name", ["compose", "smoke"])
def test_its_configuration_is_one_that_sidecars_would_take(name: str, tmp_path: Path) -> None:
    """`hms up` keeps services and mesh in one file; what is pushed is its `mesh:`."""
    files = [ROOT / "configs/routes.yaml", DOCKER / "smoke.yaml"]
    if name == "compose":
        given = {v.split(":")[0] for v in SERVICES["configure"]["volumes"] if v.startswith(".")}
        source, over = ROOT / "configs/lost-package/mesh.yaml", DOCKER / "mesh.yaml"
        assert {(DOCKER / path).resolve() for path in given} == {source, over}
        mesh = yaml.safe_load(source.read_text(encoding="utf-8"))["mesh"]
        (tmp_path / "mesh.yaml").write_text(yaml.safe_dump(mesh))
        files = [tmp_path / "mesh.yaml", over]
        names = [
            {it["name"] for it in yaml.safe_load(file.read_text())["listeners"]} for file in files
        ]
        assert names[1] <= names[0], "it moves listeners that are there"
    done = subprocess.run(
        ["hms", "check", "--control", *files], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_compose_plugin_takes_it() -> None:
    plugin = shutil.which("docker-compose") or next(
        iter(filter(None, map(shutil.which, ["/usr/libexec/docker/cli-plugins/docker-compose"]))),
        None,
    )
    if plugin is None:
        pytest.skip("the compose plugin is not installed: apt-get install docker-compose (trixie)")
    done = subprocess.run(
        [plugin, "-f", DOCKER / "compose.yaml", "config", "-q"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
