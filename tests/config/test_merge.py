from __future__ import annotations

from textwrap import dedent
from typing import TYPE_CHECKING

import pytest

from hms_addons.config.merge import merge, merge_good, without_listeners
from hms_addons.config.problems import ConfigProblems, Place
from hms_addons.config.yaml_marks import load_yaml

if TYPE_CHECKING:
    from hms_addons.config.yaml_marks import Document


def merged(*texts: str) -> Document:
    return merge([load_yaml(dedent(text).encode(), f"{n}.yaml") for n, text in enumerate(texts, 1)])


BASE = """\
    listeners:
      - name: out
        port: 1
        routes: [{action: {cluster: a}}, {action: {cluster: b}}]
    clusters:
      - {name: a, tls_context: {sds: s}, connect_timeout: 1s}
      - {name: b}
    rbac: {policies: [{name: p, action: DENY, roles: [x]}], role_order: [x, y]}
    """


def test_named_things_merge_by_name_and_key_by_key() -> None:
    data = merged(
        BASE,
        """\
        clusters:
          - {name: b, endpoints: ["h:1"]}
          - {name: c}
          - {name: a, tls_context: {sds: t, peer: spiffe://d/x}, connect_timeout: 2s}
        """,
    ).data
    assert data["clusters"] == [
        {"name": "a", "tls_context": {"sds": "t", "peer": "spiffe://d/x"}, "connect_timeout": "2s"},
        {"name": "b", "endpoints": ["h:1"]},
        {"name": "c"},
    ]
    assert data["listeners"][0]["port"] == 1


def test_a_listener_s_routes_are_replaced_whole() -> None:
    data = merged(BASE, "listeners: [{name: out, routes: [{action: {cluster: c}}]}]").data
    listener = {"name": "out", "port": 1, "routes": [{"action": {"cluster": "c"}}]}
    assert data["listeners"] == [listener]


def test_sections_merge_by_key_and_policies_by_name() -> None:
    data = merged(
        BASE,
        "rbac: {policies: [{name: q, action: ALLOW}, {name: p, roles: [z]}], role_order: [z]}",
        "governance: {url: u, ttl: 1s}",
        "governance: {ttl: 2s}",
    ).data
    assert data["rbac"] == {
        "policies": [
            {"name": "p", "action": "DENY", "roles": ["z"]},
            {"name": "q", "action": "ALLOW"},
        ],
        "role_order": ["z"],
    }
    assert data["governance"] == {"url": "u", "ttl": "2s"}


def test_secrets_and_plugin_options_merge_one_level_deeper() -> None:
    data = merged(
        "secrets: {s: {certificate: c, key: k}}\nplugins: {p: {a: {x: 1}, b: 2}}",
        "secrets: {s: {key: l, bundle: b}, t: {key: m}}\nplugins: {p: {a: {y: 2}}}",
    ).data
    assert data["secrets"] == {
        "s": {"certificate": "c", "key": "l", "bundle": "b"},
        "t": {"key": "m"},
    }
    assert data["plugins"] == {"p": {"a": {"y": 2}, "b": 2}}


def test_marks_lead_to_the_file_that_wrote_the_value() -> None:
    marks = merged(
        BASE, "# overlay\nclusters:\n- {name: new}\n- {name: a, connect_timeout: 2s}\n"
    ).marks
    assert marks.place_of(("clusters", 0, "connect_timeout")) == Place("2.yaml", 4, 30)
    assert marks.place_of(("clusters", 0, "tls_context", "sds")) == Place("1.yaml", 6, 34)
    assert marks.place_of(("clusters", 2, "name")) == Place("2.yaml", 3, 10)
    assert marks.place_of(("listeners", 0, "routes", 1, "action"), at_key=True).file == "1.yaml"


def test_inputs_stay_as_they_were() -> None:
    first = load_yaml(dedent(BASE).encode(), "1")
    before = repr(first.data)
    merge([first, load_yaml(b"clusters: [{name: a, x: 1}]", "2")])
    assert repr(first.data) == before
    assert first.marks.place_of(("clusters", 0, "x"), at_key=True).file == "1"


def test_empty_files_add_nothing() -> None:
    assert merged("", "clusters: [{name: a}]", "# nothing").data == {"clusters": [{"name": "a"}]}
    assert merged("").data == {}
    assert merge([]).data == {}


def test_a_name_twice_in_one_file_is_refused_everywhere_at_once() -> None:
    with pytest.raises(ConfigProblems) as caught:
        merged(
            "clusters:\n- name: a\n- name: b\n- name: a\n",
            "- 1",
            "rbac:\n  policies: [{name: p}, {name: p}]",
        )
    assert str(caught.value).splitlines() == [
        "1.yaml:4:9: clusters[2].name: the name 'a' is here twice; first in line 2",
        "2.yaml:1:1: a configuration is a mapping with keys such as 'listeners' and 'clusters'",
        "3.yaml:2:32: rbac.policies[1].name: the name 'p' is here twice; first in line 2",
    ]


def test_odd_shapes_are_left_to_validation() -> None:
    data = merged("clusters: {a: 1}\nrbac: 5", "clusters: [3, {name: 5}]\nrbac: {policies: 1}").data
    assert data == {"clusters": [3, {"name": 5}], "rbac": {"policies": 1}}


def test_listeners_can_be_left_out_and_the_others_keep_their_places() -> None:
    document = merged("listeners: [{name: a}, {name: b}]\n", "listeners: [{name: c}]")
    assert without_listeners(document, ()) is document
    rest = without_listeners(document, {"a"})
    assert [item["name"] for item in rest.data["listeners"]] == ["b", "c"]
    assert rest.marks.place_of(("listeners", 0, "name")) == Place("1.yaml", 1, 31)
    assert rest.marks.place_of(("listeners", 1, "name")).file == "2.yaml"
    assert len(document.data["listeners"]) == 3


def test_items_of_one_name_in_one_file_stay_apart_and_are_named() -> None:
    texts = (
        "clusters: [{name: a}]",
        "clusters: [{name: a, dns: 'h:1'}, {name: b}, {name: a, x: 1}]",
    )
    documents = [load_yaml(text.encode(), f"{n}.yaml") for n, text in enumerate(texts, 1)]
    found = merge_good([*documents, load_yaml(b"- 5", "3.yaml")])
    assert found.document.data["clusters"] == [
        {"name": "a", "dns": "h:1"},
        {"name": "b"},
        {"name": "a", "x": 1},
    ]
    assert found.twice == (("clusters", 2),)
    assert not found.whole
    assert [(p.file, p.line) for p in found.problems] == [("2.yaml", 1), ("3.yaml", 1)]
