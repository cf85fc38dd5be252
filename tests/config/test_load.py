from __future__ import annotations

from hms_addons.config.load import load


def test_problems_of_good_configurations_are_warnings() -> None:
    loaded = load([("a.yaml", b"clusters: [{name: a}]")])
    assert loaded.snapshot is not None
    assert {problem.severity for problem in loaded.problems} == {"warning"}
    assert loaded.snapshot.source == "a.yaml"


def test_bad_ones_have_no_snapshot() -> None:
    loaded = load([("a.yaml", b"clusters: 5")], source="the control plane")
    assert loaded.snapshot is None
    assert [str(p) for p in loaded.problems] == ["a.yaml:1:11: clusters: expected a list, not 5"]


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
