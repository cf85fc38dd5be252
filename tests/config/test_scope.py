from __future__ import annotations

import pytest

from hms_addons.config.load import load
from hms_addons.config.scope import belongs_to, overlap, scope
from tests.fakes.configs import errors_of, snapshot_of

MESH = """\
    clusters: [{name: a, endpoints: ["h:1"]}]
    listeners:
      - {name: all, port: 1, routes: [{action: {cluster: a}}]}
      - {name: x-only, port: 2, services: [x], routes: [{action: {cluster: a}}]}
      - {name: y-only, port: 2, services: [y, z], routes: [{action: {cluster: a}}]}
    """


@pytest.mark.parametrize(
    ("services", "service", "theirs"),
    [
        (None, "x", True),
        (["x", "y"], "y", True),
        (["x"], "y", False),
        ([], "y", False),
        (["x"], None, True),
        ("xyz", "y", True),  # a mistake, to be told of
    ],
)
def test_whose_a_listener_is(services: object, service: str | None, theirs: bool) -> None:
    assert belongs_to(services, service) is theirs


def test_which_listeners_meet_in_one_sidecar() -> None:
    assert overlap(None, ["x"])
    assert overlap(["x", "y"], ["y"])
    assert not overlap(["x"], ["y"])


def test_a_document_is_cut_down_without_being_changed() -> None:
    listeners = [{"name": "a"}, {"name": "b", "services": ["x"]}, {"name": "c", "services": ["y"]}]
    document = {"clusters": [], "listeners": listeners}
    assert scope(document, "x") == {"clusters": [], "listeners": [{"name": "a"}, {"name": "b"}]}
    assert scope(document, None) == document
    assert listeners[1] == {"name": "b", "services": ["x"]}


@pytest.mark.parametrize(
    "document",
    [{}, {"listeners": 5}, {"listeners": ["x", 5]}, {"listeners": [{"services": "x"}]}],
)
def test_what_is_wrong_is_left_for_validation(document: dict[str, object]) -> None:
    assert scope(document, "x") == document


def test_a_sidecar_has_its_own_listeners() -> None:
    snapshot = snapshot_of(MESH, service="z")
    assert [listener.name for listener in snapshot.listeners] == ["all", "y-only"]
    assert [item["name"] for item in snapshot.document["listeners"]] == ["all", "y-only"]
    assert snapshot.version != snapshot_of(MESH, service="x").version


def test_the_service_may_stand_in_the_configuration() -> None:
    snapshot = snapshot_of(MESH, "service: x")
    assert [listener.name for listener in snapshot.listeners] == ["all", "x-only"]


def test_a_sidecar_that_does_not_know_its_service_takes_none_of_it() -> None:
    found = errors_of(MESH)
    assert [line.split(": ")[1] for line in found] == [
        "listeners[1].services",
        "listeners[2].services",
    ]
    assert "add `service:` to the configuration, or --service" in found[0]


def test_a_whole_mesh_is_checked_without_a_service() -> None:
    loaded = load([("mesh.yaml", MESH.encode())], control=True)
    assert loaded.snapshot is not None, loaded.problems
    assert len(loaded.snapshot.listeners) == 3


def test_ports_collide_within_one_sidecar_only() -> None:
    text = MESH.replace("[y, z]", "[y, x]")
    loaded = load([("mesh.yaml", text.encode())], control=True)
    assert [problem.path for problem in loaded.problems] == ["listeners[2].port"]
    assert "the port 2 is taken by the listener x-only" in loaded.problems[0].message


def test_an_empty_list_of_services_is_refused() -> None:
    (error,) = errors_of("listeners: [{name: a, port: 1, services: []}]")
    assert "listeners[0].services: must not be empty" in error
