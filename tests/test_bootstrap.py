"""A sidecar's plugins, put together."""

from __future__ import annotations

from random import Random

import pytest

from hms_addons.bootstrap import BUILT_IN, build_plugins, installed_plugins, parse_admin
from hms_addons.errors import MeshError


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("127.0.0.1:15000", ("127.0.0.1", 15000)),
        ("off", None),
        (":0", ("127.0.0.1", 0)),
        ("[::1]:8", ("::1", 8)),
    ],
)
def test_an_admin_address(value: str, expected: tuple[str, int] | None) -> None:
    assert parse_admin(value) == expected


@pytest.mark.parametrize("value", ["", "15000", "localhost:", "a:b", "a:70000", "on"])
def test_what_is_no_admin_address_is_explained(value: str) -> None:
    with pytest.raises(MeshError, match="give host:port.*or off"):
        parse_admin(value)


def test_the_built_ins_come_first_and_in_order() -> None:
    built_in = [
        "mtls",
        "identity_propagation",
        "rbac",
        "routing",
        "rewrites",
        "rate_limit",
        "governance",
        "header_rules",
        "interception",
        "dns_names",
        "fault_injection",
        "own_answers",
        "fallback",
        "resilience",
        "session_affinity",
        "audit_log",
    ]
    plugins = build_plugins(None, Random(1))
    assert plugins.names[: len(built_in)] == built_in
    assert "admin" not in plugins.names
    assert all(plugins.sources[name] == "built-in" for name in built_in)
    assert "admin" in build_plugins(("127.0.0.1", 0), Random(1)).names


def test_identity_is_known_before_it_is_judged() -> None:
    hooks = [hook.plugin for hook in build_plugins(None, Random(1)).hooks("hms_identify")]
    assert hooks.index("mtls") < hooks.index("rbac")
    assert hooks.index("identity_propagation") < hooks.index("rbac"), (
        "it verifies what that attaches"
    )


def test_what_is_installed_here() -> None:
    built_in = build_plugins(("127.0.0.1", 0), Random(1)).names
    assert list(BUILT_IN[: len(BUILT_IN) - 1]) == built_in[: len(BUILT_IN) - 1]
    found = installed_plugins(["left-out"])
    assert {*BUILT_IN, "left-out"} <= found.plugins
    assert found.balancers() == frozenset(), "no plugin that brings one is installed for tests"
