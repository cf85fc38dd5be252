"""mitmproxy's own dns mode: what it is told of the mesh's names. With mitmdump: test_interception.py."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from mitmproxy import dns
from mitmproxy.connection import Client, Server
from mitmproxy.flow import Error

from hms_addons.engine.native_dns import NativeDns
from tests.dns.queries import AAAA, TXT, A, query
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot

SNAPSHOT = snapshot_of(
    "listeners: [{name: out, port: 1}, {name: names, kind: dns, port: 5353,"
    " unmatched: refuse, dns: {addresses: [10.0.0.1, '::1'], ttl: 9s}}]\nclusters: [{name: auth-svc}]"
)
NXDOMAIN, SERVFAIL, REFUSED, FORMERR, NOTIMP = 3, 2, 5, 1, 4


def flow_of(data: bytes, port: int = 15053) -> dns.DNSFlow:
    client = Client(peername=("127.0.0.1", 4), sockname=("127.0.0.1", port))
    flow = dns.DNSFlow(client, Server(address=None))
    flow.request = dns.DNSMessage.unpack(data)
    return flow


def told(
    data: bytes, port: int = 15053, snapshot: Snapshot | None = SNAPSHOT
) -> dns.DNSMessage | None:
    flow = flow_of(data, port)
    NativeDns(lambda: snapshot).dns_request(flow)
    if flow.response is not None:
        flow.response.packed  # noqa: B018 - it can be written
    return flow.response


def test_the_meshs_names() -> None:
    found = told(query("Auth-SVC.svc"))
    assert found is not None
    assert [(one.name, one.type, one.ttl, str(one)) for one in found.answers] == [
        ("Auth-SVC.svc", A, 5, "127.0.0.1")
    ]
    nothing = told(query("auth-svc.svc", AAAA))
    assert nothing is not None
    assert (nothing.response_code, nothing.answers) == (0, [])


def test_by_the_listener_of_the_same_port() -> None:
    found = told(query("auth-svc.svc", AAAA), 5353)
    assert found is not None
    assert [(one.ttl, str(one)) for one in found.answers] == [(9, "::1")]
    refused = told(query("example.com"), 5353)
    assert refused is not None
    assert refused.response_code == REFUSED


def test_all_others_are_left_to_mitmproxys_resolver() -> None:
    assert told(query("example.com")) is None
    assert told(query("example.com", TXT)) is None


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (query("nope.svc"), NXDOMAIN),
        (query("a.svc", flags=0x2800), NOTIMP),
        (query("a.svc")[:4] + b"\0\2" + query("a.svc")[6:] + query("a.svc")[12:], FORMERR),
    ],
)
def test_refused(data: bytes, code: int) -> None:
    found = told(data)
    assert found is not None
    assert found.response_code == code


def test_before_there_is_a_configuration_no_name_of_the_meshs_leaves() -> None:
    found = told(query("auth-svc.svc"), snapshot=None)
    assert found is not None
    assert found.response_code == SERVFAIL
    assert told(query("example.com"), snapshot=None) is None


def test_what_a_script_has_said_stays() -> None:
    flow = flow_of(query("auth-svc.svc"))
    flow.error = Error("no")
    NativeDns(lambda: SNAPSHOT).dns_request(flow)
    assert flow.response is None
    answer = flow_of(query("auth-svc.svc", flags=0x8180))
    NativeDns(lambda: SNAPSHOT).dns_request(answer)
    assert answer.response is None


def test_another_configuration_is_followed() -> None:
    held: list[Snapshot] = [SNAPSHOT]
    native = NativeDns(lambda: held[0])
    flow = flow_of(query("pay.svc"))
    native.dns_request(flow)
    assert flow.response is not None
    assert flow.response.response_code == NXDOMAIN
    held[0] = snapshot_of("listeners: [{name: out, port: 1}]\nclusters: [{name: pay}]")
    again = flow_of(query("pay.svc"))
    native.dns_request(again)
    assert again.response is not None
    assert len(again.response.answers) == 1
