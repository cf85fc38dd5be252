from __future__ import annotations

import pytest

from tests.fakes.configs import errors_of, snapshot_of

PROVIDERS = "rbac: {providers: [{name: p, hs256_secret_env: S}]}\n"


def listener(**keys: str) -> str:
    written = "".join(f", {key}: {value}" for key, value in keys.items())
    return f"listeners: [{{name: l, port: 1{written}}}]"


def error(text: str) -> str:
    (found,) = errors_of(text)
    return found.partition(" ")[2]


def test_identity_is_propagated_only_where_asked_for() -> None:
    for text, on in (("", False), ("true", True), ("false", False)):
        keys = {"propagate_identity": text} if text else {}
        assert snapshot_of(PROVIDERS + listener(**keys)).listeners[0].propagate_identity is on


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "'::1'", "localhost"])
def test_on_a_loopback_address(host: str) -> None:
    text = PROVIDERS + listener(host=host, propagate_identity="true")
    assert snapshot_of(text).listeners[0].propagate_identity


@pytest.mark.parametrize("host", ["0.0.0.0", "'::'", "10.0.0.1", "127.example"])
def test_not_where_others_reach_the_port(host: str) -> None:
    assert error(PROVIDERS + listener(host=host, propagate_identity="true")) == (
        "listeners[0].propagate_identity: only on a loopback address, where none but the app reaches "
        "it (did you mean host: 127.0.0.1?)"
    )


def test_not_without_providers() -> None:
    assert error(listener(propagate_identity="true")) == (
        "listeners[0].propagate_identity: there are no rbac.providers: no token is verified that "
        "could be carried on"
    )


def test_not_on_an_inbound_listener() -> None:
    keys = {"direction": "inbound", "app": "'http://127.0.0.1:1'", "propagate_identity": "true"}
    assert error(PROVIDERS + listener(**keys)) == (
        "listeners[0].propagate_identity: it is about the app's own calls, which outbound listeners "
        "take"
    )
