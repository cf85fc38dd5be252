from __future__ import annotations

import string
from typing import TYPE_CHECKING, Any

from hms_addons.config.load import load
from hms_addons.config.standard_listeners import Finish
from hms_addons.config.yaml_marks import MAX_NODES

if TYPE_CHECKING:
    from collections.abc import Mapping


def test_problems_of_good_configurations_are_warnings() -> None:
    loaded = load([("a.yaml", b"clusters: [{name: a}]")])
    assert loaded.snapshot is not None
    assert {problem.severity for problem in loaded.problems} == {"warning"}
    assert loaded.snapshot.source == "a.yaml"


def test_bad_ones_have_no_snapshot() -> None:
    loaded = load([("a.yaml", b"clusters: 5")], source="the control plane")
    assert loaded.snapshot is None
    assert [str(p) for p in loaded.problems if p.severity == "error"] == [
        "a.yaml:1:11: clusters: expected a list, not 5"
    ]


def test_the_source_is_what_the_caller_says() -> None:
    loaded = load([("a.yaml", b"")], source="http://control:15010", service="x")
    assert loaded.snapshot is not None
    assert (loaded.snapshot.source, loaded.snapshot.service) == ("http://control:15010", "x")


def test_the_command_line_s_service_is_over_the_file_s() -> None:
    loaded = load([("a.yaml", b"service: written")], service="told")
    assert loaded.snapshot is not None
    assert loaded.snapshot.service == "told"


EXTRA = {
    "listeners": [
        {"name": "reverse-1", "port": 1, "direction": "inbound", "app": "http://127.0.0.1:8080"},
        {"name": "reverse-2", "port": 2, "direction": "inbound", "app": "http://127.0.0.1:8081"},
    ]
}


def test_extra_listeners_are_added_where_their_port_is_free() -> None:
    loaded = load([("a.yaml", b"listeners: [{name: out, port: 1}]")], extra=EXTRA)
    assert loaded.snapshot is not None
    assert [item.name for item in loaded.snapshot.listeners] == ["out", "reverse-2"]
    assert loaded.snapshot.clusters["app:reverse-2"].endpoints[0].port == 8081


def test_extra_listeners_alone() -> None:
    loaded = load([("a.yaml", b"")], extra=EXTRA)
    assert loaded.snapshot is not None
    assert len(loaded.snapshot.listeners) == 2


def test_a_fault_of_an_extra_listener_says_where_it_is_from() -> None:
    extra = {"listeners": [{"name": "x", "port": 1, "direction": "inbound", "app": "https://a:1"}]}
    loaded = load([("a.yaml", b"listeners: 5")], extra=extra)
    assert loaded.snapshot is None
    loaded = load([("a.yaml", b"")], extra=extra)
    assert str(loaded.problems[0]).startswith("(command line):1:1: listeners[0].app: expected")


PUSHED: dict[str, Any] = {
    "service": "x",
    "trust_domain": "mpsa.mil",
    "clusters": [{"name": "a", "tls_context": {"sds": "mesh_certs"}}],
    "listeners": [{"name": "in", "port": 1, "direction": "inbound", "tls": "strict", "app": "h:1"}],
}


def test_files_go_over_what_a_control_plane_has_sent() -> None:
    overlay = b'clusters: [{name: a, endpoints: ["h:1"]}]'
    snapshot = load([("local.yaml", overlay)], base=PUSHED, control=True).snapshot
    assert snapshot is not None
    assert snapshot.clusters["a"].tls is not None
    assert len(snapshot.clusters["a"].endpoints) == 1


def test_a_control_plane_provides_the_certificates_that_are_asked_for() -> None:
    loaded = load([], base=PUSHED, control=True)
    assert loaded.snapshot is not None
    assert not loaded.problems
    assert not loaded.snapshot.secrets
    assert loaded.snapshot.listeners[0].secret == "mesh_certs"


def test_files_may_provide_some_certificates() -> None:
    overlay = b"""\
clusters: [{name: b, tls_context: {sds: mine}}]
secrets: {mine: {certificate: c.pem, key: k.pem, bundle: b.pem}}
"""
    snapshot = load([("local.yaml", overlay)], base=PUSHED, control=True).snapshot
    assert snapshot is not None
    assert snapshot.listeners[0].secret == "mesh_certs"
    assert list(snapshot.secrets) == ["mine"]


def test_a_listener_that_names_no_secret_gets_the_control_plane_s() -> None:
    pushed = {key: value for key, value in PUSHED.items() if key != "clusters"}
    snapshot = load([], base=pushed, control=True).snapshot
    assert snapshot is not None
    assert snapshot.listeners[0].secret == "mesh_certs"
    loaded = load([], base=pushed)
    assert loaded.snapshot is None, "without a control plane nobody provides one"


def test_a_fault_in_what_a_control_plane_has_sent_says_so() -> None:
    loaded = load([], base={"listeners": [{"name": "x"}]}, control=True)
    assert str(loaded.problems[0]).startswith("(control plane):1:1: listeners[0]: the key 'port'")


def test_the_command_line_has_the_last_word() -> None:
    seen = []

    def finish(document: Mapping[str, Any]) -> Finish:
        seen.append([item["name"] for item in document["listeners"]])
        return Finish({"listeners": [{"name": "in", "port": 5}]}, frozenset({"out"}))

    others = [{"name": "other", "port": 2, "services": ["y"]}, {"name": "out", "port": 3}]
    base = {**PUSHED, "listeners": [*others, *PUSHED["listeners"]]}
    snapshot = load([], base=base, finish=finish, control=True).snapshot
    assert seen == [["out", "in"]], "it sees what is this service's"
    assert snapshot is not None
    assert [listener.port for listener in snapshot.listeners] == [5]


def test_an_operator_s_configuration_is_looked_at_for_the_whole_mesh() -> None:
    text = b"""\
listeners: [{name: in, port: 1, direction: inbound, tls: strict, app: "h:1"}]
clusters: [{name: a, tls_context: {sds: mesh_certs}}]
rbac: {policies: [{name: p, action: DENY, services: [a], methods: [PUT]}]}
"""
    assert load([("mesh.yaml", text)], control=True).problems == ()
    assert load([("mesh.yaml", text)]).snapshot is None, "one sidecar must know its service"


def test_what_several_files_hold_is_bounded_together() -> None:
    half = b"a: [" + b"x," * (MAX_NODES // 2) + b"]"
    loaded = load([("a.yaml", half), ("b.yaml", half), ("c.yaml", half)])
    told = [problem for problem in loaded.problems if "values" in problem.message]
    assert [str(problem) for problem in told] == [
        f"b.yaml:1:1: more than {MAX_NODES} values up to here, in all files together"
    ]


def test_nobody_guesses_what_thousands_of_keys_were_meant_to_be() -> None:
    letters = string.ascii_lowercase + string.digits
    text = "\n".join(f"clusters{a}{b}: 1" for a in letters for b in letters)
    told = load([("a.yaml", text.encode())]).problems
    assert sum("unknown key" in problem.message for problem in told) == 36 * 36
    assert sum(problem.suggestion is not None for problem in told) == 500
