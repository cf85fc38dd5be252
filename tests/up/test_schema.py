from __future__ import annotations

import pytest

from hms_addons.config.problems import ConfigProblems
from hms_addons.config.yaml_marks import load_yaml
from hms_addons.up.schema import MeshFileModel, validate_mesh_file


def model(text: str) -> MeshFileModel:
    return validate_mesh_file(load_yaml(text.encode(), "mesh.yaml"))


def test_a_command_is_text_or_words() -> None:
    found = model("""
services:
  a: { command: "python 'my app.py'" }
  b: { command: [python, app.py], watch: "*.py" }
""").services
    assert found["a"].command == ["python", "my app.py"]
    assert found["b"].command == ["python", "app.py"]
    assert found["b"].watch == ["*.py"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: {}", "mesh.yaml:1:11: services: must not be empty"),
        ("mesh: x.yaml", "mesh.yaml:1:1: the key 'services' is missing"),
        ("[]", "expected a mapping"),
        (
            "services:\n  a:\n    comand: x",
            "mesh.yaml:3:5: services.a.comand: unknown key 'comand' (did you mean command?)",
        ),
        ("servces:\n  a: {command: x}", "unknown key 'servces' (did you mean services?)"),
        ("services:\n  a: {}", "mesh.yaml:2:6: services.a: the key 'command' is missing"),
        ("services:\n  a: {command: ''}", "is empty: which program is it?"),
        ('services:\n  a: {command: "\'"}', "cannot be split into words"),
        (
            "services:\n  a: {command: x, watch: [/etc/*]}",
            "services.a.watch[0]: expected files below",
        ),
        ("services:\n  a: {command: 3}", "expected a command, as text or as a list of texts"),
        ("services:\n  a: {command: x, port: '80'}", "did you mean 80, without quotes?"),
        ("services:\n  a: {command: x, port: 0}", "must be at least 1, not 0"),
        ("services:\n  a: {command: x, entry: 0}", "expected true (port 15001), a port or false"),
        (
            "services:\n  a: {command: x, env: {A: 1}}",
            'services.a.env.A: expected a text, not 1 (did you mean "1"?)',
        ),
        ("services:\n  a: {command: x, env: {HMS_TOKEN: x}}", "HMS_… are the mesh's own"),
        ("services:\n  a: {command: x, env: {'A=B': x}}", "cannot be the name of a variable"),
        ("services:\n  a b: {command: x}", "mesh.yaml:2:3: services.a b: 'a b' cannot be a name"),
        ("services:\n  a: {command: x}\nmesh: 3", "mesh.yaml:3:7: mesh: expected a configuration"),
        ("services:\n  a: {command: x, health: h}", "a path begins with '/'"),
        (
            "services:\n  a: {command: 'x {prt}'}",
            "services.a.command: {prt} is not filled in (did you mean {port}?)",
        ),
        ("services:\n  a: {command: x, env: {U: '{mes}/x'}}", "did you mean {mesh}?"),
        ("services:\n  a: {command: x}\nsvid_lifetime: 1s", "must be at least 5s and at most"),
        (
            "services:\n  a: {command: x, sidecar: false, version: v2}",
            "mesh.yaml:2:44: services.a.version: version is the sidecar's",
        ),
        (
            "services:\n  a: {command: x, sidecar: false, env: {URL: '{mesh}/x'}}",
            "services.a.env: {mesh} is its sidecar, and `sidecar: false` says that it has none",
        ),
    ],
)
def test_faults_have_a_place_and_a_remedy(text: str, said: str) -> None:
    with pytest.raises(ConfigProblems) as refused:
        model(text)
    assert said in str(refused.value)


def test_braces_of_the_apps_own_are_left_alone() -> None:
    assert model("services: {a: {command: 'x {user} {0} {}'}}").services["a"].command[1] == "{user}"


def test_a_misspelt_key_is_one_fault() -> None:
    with pytest.raises(ConfigProblems) as refused:
        model("services:\n  a:\n    comand: x")
    assert len(refused.value.problems) == 1


def test_all_faults_are_told_at_once() -> None:
    with pytest.raises(ConfigProblems) as refused:
        model("services:\n  a: {command: x, port: 0}\n  b: {command: x, replicas: -1}")
    assert [problem.line for problem in refused.value.problems] == [2, 3]
