from __future__ import annotations

import pytest

from hms_addons.config.load import load

PROVIDER = "rbac: {providers: [{name: id, issuer: i, %s: %s}]}"


@pytest.mark.parametrize("key", ["jwks_file", "public_key_file"])
def test_a_relative_file_is_an_error_in_what_is_pushed(key: str) -> None:
    text = (PROVIDER % (key, "certs/keys")).encode()
    loaded = load([("mesh.yaml", text)], control=True)
    assert loaded.snapshot is None
    (problem,) = loaded.problems
    place = f"mesh.yaml:1:{text.index(b'certs') + 1}: rbac.providers[0].{key}: "
    assert str(problem).startswith(f"{place}'certs/keys' is relative, but read on the sidecars'")


@pytest.mark.parametrize("key", ["jwks_file", "public_key_file"])
def test_an_absolute_one_is_taken_though_it_is_not_here(key: str) -> None:
    text = (PROVIDER % (key, "/etc/hms/keys")).encode()
    loaded = load([("mesh.yaml", text)], control=True)
    assert loaded.snapshot is not None
    assert not [problem for problem in loaded.problems if "there is no file" in problem.message]


def test_a_sidecars_own_file_may_be_relative() -> None:
    text = (PROVIDER % ("jwks_file", "certs/keys")).encode()
    assert load([("own.yaml", text)], control=True, service="x").snapshot is not None
    assert load([("own.yaml", text)]).snapshot is not None


def test_the_service_of_a_whole_mesh_is_nobodys() -> None:
    loaded = load([("mesh.yaml", b"service: auth-svc")], control=True)
    assert loaded.snapshot is not None
    (problem,) = loaded.problems
    assert str(problem) == (
        "mesh.yaml:1:1: warning: service: left out of what sidecars get: each is told the service "
        "it stands beside"
    )


def test_the_zone_of_a_whole_mesh_is_nobodys() -> None:
    (problem,) = load([("mesh.yaml", b"zone: a")], control=True).problems
    assert str(problem) == (
        "mesh.yaml:1:1: warning: zone: left out of what sidecars get: each is told where it is, with "
        "--zone"
    )
    assert not load([("own.yaml", b"zone: a")], control=True, service="x").problems
