from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from hms_addons.config.problems import ConfigProblems
from hms_addons.up.mesh_file import TRUST_DOMAIN, Mesh, read_mesh, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CONFIG = """\
trust_domain: example.org
listeners:
  - { name: out, port: 15001, routes: [{ match: { prefix: / }, action: { cluster: b } }] }
clusters: [{ name: b }]
"""
INLINE = "services:\n  a: { command: sh }\nmesh:\n" + "".join(
    f"  {line}\n" for line in CONFIG.splitlines()
)


@pytest.fixture
def read(tmp_path: Path) -> Callable[[str], Mesh]:
    def reader(text: str) -> Mesh:
        (tmp_path / "mesh.yaml").write_text(text)
        return read_mesh(tmp_path / "mesh.yaml")

    return reader


def refusal(read: Callable[[str], Mesh], text: str) -> str:
    with pytest.raises(ConfigProblems) as refused:
        read(text)
    return told(refused.value)


def test_a_mesh_needs_no_configuration(read: Callable[[str], Mesh]) -> None:
    mesh = read("services: { a: { command: sh } }")
    assert list(mesh.instances) == ["a-1"]
    assert [content for _, content in mesh.config] == ["{}\n"], "the control plane wants a file"
    assert mesh.trust_domain == TRUST_DOMAIN


def test_faults_of_the_services_and_of_the_mesh_are_told_at_once(
    read: Callable[[str], Mesh],
) -> None:
    said = refusal(
        read, INLINE.replace("command: sh", "comand: sh").replace("cluster: b", "clutser: b")
    )
    assert "mesh.yaml:2:8: services.a.comand: unknown key" in said
    assert "clutser" in said
    said = refusal(
        read,
        INLINE.replace("command: sh", "command: no-such-program").replace(
            "cluster: b", "cluster: c"
        ),
    )
    assert "cannot run 'no-such-program'" in said
    assert "mesh.yaml:6:" in said


def test_the_configuration_is_inside_or_in_files(
    read: Callable[[str], Mesh], tmp_path: Path
) -> None:
    inline = read(INLINE)
    assert inline.trust_domain == "example.org"
    (tmp_path / "routes.yaml").write_text(CONFIG)
    (tmp_path / "more.yaml").write_text("clusters: [{ name: b, connect_timeout: 1s }]")
    one = read("services: { a: { command: sh } }\nmesh: routes.yaml")
    assert one.meaning == inline.meaning
    two = read("services: { a: { command: sh } }\nmesh: [routes.yaml, more.yaml]")
    assert [name for name, _ in two.config] == [
        str(tmp_path / name) for name in ("routes.yaml", "more.yaml")
    ]
    assert two.files == tuple(tmp_path / n for n in ("mesh.yaml", "routes.yaml", "more.yaml"))


def test_faults_inside_keep_their_line_and_column(read: Callable[[str], Mesh]) -> None:
    # After the services, and before them.
    text = INLINE.replace("clusters: [{ name: b }]", "clusters: [{ nam: b }]")
    line = next(n for n, found in enumerate(text.splitlines(), 1) if "nam:" in found)
    column = text.splitlines()[line - 1].index("nam:") + 1
    assert f"mesh.yaml:{line}:{column}: clusters[0].nam: unknown key" in refusal(read, text)
    first = "mesh:\n  listners: []\nservices:\n  a: { command: sh }\n"
    assert "mesh.yaml:2:3: listners: unknown key" in refusal(read, first)


def test_flow_style_and_anchors_are_understood(read: Callable[[str], Mesh]) -> None:
    found = read("services: { a: { command: sh } }\nmesh: { clusters: [{ name: b }] }")
    assert found.meaning == ({"clusters": [{"name": "b"}]},)
    found = read(
        "services:\n  a: { command: sh, folder: &here . }\nmesh:\n  zone: *here\n  clusters: []\n"
    )
    assert found.meaning[0]["zone"] == "."


def test_moved_lines_and_comments_mean_the_same(read: Callable[[str], Mesh]) -> None:
    moved = read("# more\n" + INLINE)
    assert moved.config != read(INLINE).config
    assert moved == Mesh(moved.instances, moved.config, read(INLINE).meaning, "example.org")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("services: { a: { command: sh } }\nmesh: none.yaml", "none.yaml:1:1: cannot be read"),
        (
            "services:\n  a: { command: sh, port: 80 }\n  b: { command: sh, port: 80 }",
            "port 80 is wanted by a-1 and b-1",
        ),
        ("services:\n  a: { command: sh, port: 65535, replicas: 2 }", "a-2 would need port 65536"),
        ("services:\n  a: { command: sh, folder: nowhere }", "nowhere is no folder"),
        (
            "services:\n  a: { command: ./none }",
            "services.a.command: cannot run './none': there is no such program",
        ),
        (
            "services:\n  a: { command: sh, env: { PATH: /none } }",
            "services.a.command: cannot run 'sh': no such program on PATH; install it",
        ),
        ("services: [", "not valid YAML"),
        ("services: { a: { command: sh } }\nmesh: { zone: 3 }", "zone: expected a text"),
    ],
)
def test_what_cannot_be_is_refused(read: Callable[[str], Mesh], text: str, said: str) -> None:
    refused = refusal(read, text)
    assert said in refused
    assert refused.endswith("1 error")
