"""`configs/lost-package/mesh.yaml`, read; that it does what it says is shown by the demo."""

from __future__ import annotations

from hms_addons.config.load import load
from hms_addons.up.mesh_file import read_mesh
from scripts.lost_package import token_issuer
from scripts.lost_package.hms_gov import POLICY_VERSION
from tests.conftest import ROOT

MESH = ROOT / "configs" / "lost-package" / "mesh.yaml"


def test_it_runs_the_seeds_services_and_five_replicas_of_auth() -> None:
    mesh = read_mesh(MESH)
    assert [str(one) for one in mesh.warnings] == []
    groups = [one.group for one in mesh.instances.values()]
    assert {name: groups.count(name) for name in groups} == {
        "user-portal": 1,
        "claims-svc": 1,
        "auth-svc": 5,
        "auth-svc-v2": 1,
        "payments-svc": 1,
        "hms-gov": 1,
        "token-issuer": 1,
    }
    assert mesh.instances["claims-svc-1"].outbound == 15001
    for one in mesh.instances.values():
        assert (one.folder / f"{one.command[2].replace('.', '/')}.py").is_file()


def test_its_configuration_goes_with_the_apps() -> None:
    mesh = read_mesh(MESH)
    loaded = load([(name, text.encode()) for name, text in mesh.config], control=True)
    assert loaded.snapshot is not None
    (provider,) = loaded.snapshot.rbac.providers
    assert provider.issuer == token_issuer.ISSUER
    assert list(provider.audiences) == [token_issuer.AUDIENCE]
    assert dict(mesh.instances["hms-gov-1"].env)["POLICY_VERSION"] == POLICY_VERSION


def test_the_apps_have_no_word_about_a_mesh() -> None:
    folder = ROOT / "scripts" / "lost_package"
    for name in ("auth_svc", "claims_svc", "payments_svc", "user_portal", "service"):
        text = (folder / f"{name}.py").read_text(encoding="utf-8").lower()
        assert [w for w in ("mesh", "sidecar", "hms", "proxy", "mtls") if w in text] == []
