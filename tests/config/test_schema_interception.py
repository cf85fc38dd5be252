"""What is refused of transparent and DNS listeners: everything that contradicts their kind."""

from __future__ import annotations

import pytest

from tests.fakes.configs import errors_of, snapshot_of


def error(listener: str) -> str:
    (found,) = errors_of(f"listeners: [{{name: a, port: 5353, {listener}}}]")
    return found.partition(" ")[2].removeprefix("listeners[0]")


@pytest.mark.parametrize(
    ("listener", "message"),
    [
        ("kind: socks", ".kind: expected http or transparent or dns, not 'socks'"),
        ("unmatched: refuse", ".unmatched: it is about listeners of kind: transparent or dns"),
        ("kind: http, unmatched: original", ".unmatched: it is about listeners of kind: transp"),
        (
            "kind: transparent, unmatched: allow",
            ".unmatched: expected refuse or original, not 'allow'",
        ),
        ("dns: {}", ".dns: it is about listeners of kind: dns"),
        ("kind: transparent, dns: {ttl: 1s}", ".dns: it is about listeners of kind: dns"),
        (
            "kind: transparent, direction: inbound, app: 'http://127.0.0.1:1'",
            ".kind: a transparent listener takes the app's own calls: it is outbound.",
        ),
        ("kind: transparent, host: '::'", ".host: the original destination of a call is found by"),
        ("kind: dns, direction: inbound", ".direction: a dns listener answers the local app's"),
        ("kind: dns, tls: none", ".tls: tls is about HTTP, and this listener is dns"),
        ("kind: dns, app: 'http://127.0.0.1:1'", ".app: app is about HTTP"),
        ("kind: dns, limits: {}", ".limits: limits is about HTTP"),
        ("kind: dns, propagate_identity: false", ".propagate_identity: propagate_identity is"),
        (
            "kind: dns, routes: [{match: {prefix: /}, action: {direct_response: {status: 200}}}]",
            ".routes: routes is about HTTP, and this listener is dns",
        ),
        ("kind: dns, host: localhost", ".host: a dns listener needs an IP address, not 'localh"),
        (
            "kind: dns, dns: {addresses: [here]}",
            ".dns.addresses[0]: expected an IP address, as 127.0.0.1, not 'here'",
        ),
        ("kind: dns, dns: {addresses: []}", ".dns.addresses: must not be empty"),
        (
            "kind: dns, dns: {resolvers: [dns.example]}",
            ".dns.resolvers[0]: expected host:port, as 127.0.0.1:9001 or [::1]:9001, not",
        ),
        (
            "kind: dns, dns: {resolvers: ['dns.example:53']}",
            ".dns.resolvers[0]: expected an IP address, as 127.0.0.1, not 'dns.example'",
        ),
        (
            "kind: dns, dns: {resolvers: ['127.0.0.1:5353']}",
            ".dns.resolvers: that is this listener: it would ask itself",
        ),
        (
            "kind: dns, unmatched: refuse, dns: {resolvers: [192.0.2.1]}",
            ".dns.resolvers: resolvers are never asked with unmatched: refuse",
        ),
        ("kind: dns, dns: {names: ['a/b']}", ".dns.names[0]: "),
    ],
)
def test_refused(listener: str, message: str) -> None:
    assert error(listener).startswith(message)


def test_a_port_is_one_listeners_whatever_its_kind() -> None:
    (found,) = errors_of(
        "listeners: [{name: a, port: 53, kind: dns}, {name: b, port: 53, kind: transparent}]"
    )
    assert found.endswith("listeners[1].port: the port 53 is taken by the listener a")


def test_one_transparent_listener_for_each_ip_version() -> None:
    snapshot = snapshot_of(
        "listeners: [{name: a, port: 1, kind: transparent},"
        " {name: b, port: 1, kind: transparent, host: '::1'}]"
    )
    assert [item.host for item in snapshot.listeners] == ["127.0.0.1", "::1"]
