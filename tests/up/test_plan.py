from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from hms_addons.up.plan import ENTRY_PORT, Instance, diff, instances_of, wanted_ports
from hms_addons.up.schema import MeshFileModel

FOLDER = Path("/mesh")


def planned(**services: dict[str, Any]) -> dict[str, Instance]:
    named = {name.replace("_", "-"): {"command": "run", **one} for name, one in services.items()}
    return instances_of(MeshFileModel.model_validate({"services": named}), FOLDER)


def test_each_replica_is_an_instance_with_a_port_of_its_own() -> None:
    found = planned(web={"port": 8000, "folder": "w", "env": {"A": "1"}}, auth_svc={"replicas": 2})
    assert list(found) == ["web-1", "auth-svc-1", "auth-svc-2"]
    web = found["web-1"]
    assert (web.port, web.folder, web.env, web.service) == (
        8000, FOLDER / "w", (("A", "1"),), "web",
    )  # fmt: skip
    assert planned(web={"port": 8000, "replicas": 3})["web-3"].port == 8002
    assert planned(v2={"service": "auth-svc", "version": "v2"})["v2-1"].service == "auth-svc"


def test_the_first_service_is_the_entry_unless_another_says_so() -> None:
    found = planned(a={"replicas": 2}, b={})
    assert [one.outbound for one in found.values()] == [ENTRY_PORT, None, None]
    assert not found["a-1"].asked
    found = planned(a={}, b={"entry": True}, c={"entry": 15101})
    assert [one.outbound for one in found.values()] == [None, ENTRY_PORT, 15101]
    assert found["b-1"].asked
    assert planned(a={"entry": False})["a-1"].outbound is None
    alone = planned(gov={"sidecar": False}, a={})
    assert [(one.outbound, one.alone) for one in alone.values()] == [
        (None, True),
        (ENTRY_PORT, False),
    ]


def test_words_are_filled_in() -> None:
    one = planned(web={"command": "{python} -m x --port={port} --name {name}"})["web-1"]
    assert one.words(7, "") == [sys.executable, "-m", "x", "--port=7", "--name", "web-1"]
    assert one.listens
    env = {"A": "{mesh}/a", "B": "{name}:{port}", "C": "{other}"}
    one = planned(web={"command": "x {mesh}", "env": env})["web-1"]
    assert one.words(7, "http://m") == ["x", "http://m"]
    assert one.variables(7, "http://m") == {"A": "http://m/a", "B": "web-1:7", "C": "{other}"}
    assert not planned(job={})["job-1"].listens


def test_ports_that_are_asked_for_are_named() -> None:
    found = planned(a={"port": 80}, b={"port": 80, "entry": True}, c={})
    assert wanted_ports(found) == {80: ["a-1", "b-1"], ENTRY_PORT: ["b-1's sidecar"]}


def test_a_diff_touches_only_what_has_changed() -> None:
    old = planned(a={}, b={"replicas": 2}, c={})
    new = planned(a={}, b={"replicas": 3}, c={"command": "other"})
    actions = diff(old, new)
    assert [one.name for one in actions.start] == ["b-3"]
    assert [one.name for one in actions.restart] == ["c-1"]
    assert [one.name for one in actions.keep] == ["a-1", "b-1", "b-2"]
    assert str(actions) == "restart c-1; start b-3"
    assert diff(new, old).stop == ("b-3",)


def test_what_needs_no_restart_is_taken_over() -> None:
    old, new = planned(a={}), planned(a={"health": "/h", "watch": "*.py"})
    actions = diff(old, new)
    assert not actions
    assert str(actions) == "nothing to do"
    assert actions.keep[0].health == "/h"


INSTANCES = st.dictionaries(
    st.sampled_from("abcdef"), st.integers(0, 2), max_size=6
).map(
    lambda found: {
        name: Instance(name, name, name, (str(kind),), FOLDER) for name, kind in found.items()
    }
)  # fmt: skip


@given(old=INSTANCES, new=INSTANCES)
def test_doing_what_a_diff_says_leads_there(
    old: dict[str, Instance], new: dict[str, Instance]
) -> None:
    actions = diff(old, new)
    state = {name: one for name, one in old.items() if name not in actions.stop}
    state |= {one.name: one for one in (*actions.restart, *actions.start)}
    assert state == new
    assert not diff(new, new)
    assert bool(actions) == (old != new)


def test_every_trait_of_the_process_counts() -> None:
    one = planned(a={})["a-1"]
    for change in ({"weight": 2}, {"version": "v2"}, {"port": 1}, {"env": (("A", "1"),)}):
        assert replace(one, **change) != one
