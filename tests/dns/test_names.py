"""Which names are the mesh's."""

from __future__ import annotations

from typing import Any

import pytest

from hms_addons.config.snapshot_interception import DnsListener
from hms_addons.dns.names import Answer, Names
from hms_addons.dns.wire import Rcode
from tests.dns.queries import AAAA, ANY, HTTPS, TXT, A

HERE = b"\x7f\xf0\xf0\x01"
THERE = b"\x20\x01\x0d\xb8" + bytes(11) + b"\x01"


def names(**changes: Any) -> Names:
    settings: dict[str, Any] = {
        "name": "names",
        "host": "127.0.0.1",
        "port": 53,
        "addresses": ("127.240.240.1",),
        "services": frozenset({"auth-svc"}),
        "names": frozenset({"api.partner.example"}),
        "suffixes": (".shop.example",),
    }
    return Names(DnsListener(**settings | changes))


@pytest.mark.parametrize(
    "name", ["auth-svc.svc", "api.partner.example", "a.shop.example", "a.b.shop.example"]
)
def test_the_meshs_names_stand_for_the_sidecar(name: str) -> None:
    assert names().decide(name, A) == Answer(Rcode.NOERROR, (HERE,))


@pytest.mark.parametrize("name", ["pay.svc", "x.auth-svc.svc", ".svc", "auth-svc.svc.svc"])
def test_a_service_that_is_not_there_is_not_asked_for_elsewhere(name: str) -> None:
    for kind in (A, AAAA, TXT):
        assert names().decide(name, kind) == Answer(Rcode.NXDOMAIN)


@pytest.mark.parametrize(
    "name",
    [
        "example.com",
        "shop.example",
        "xshop.example",
        "partner.example",
        "auth-svc",
        "",
        "a.svc.cluster.local",
    ],
)
def test_all_others_are_somebody_elses(name: str) -> None:
    assert names().decide(name, A) is None
    assert names(forwards=False).decide(name, A) == Answer(Rcode.REFUSED)


def test_only_addresses_are_known_of_them() -> None:
    for kind in (TXT, HTTPS, 2, 6, 12, 33, 65535):
        assert names().decide("auth-svc.svc", kind) == Answer()
    assert names().decide("auth-svc.svc", AAAA) == Answer(), "the sidecar is not there by IPv6"
    both = names(addresses=("127.240.240.1", "2001:db8::1"))
    assert both.decide("auth-svc.svc", AAAA) == Answer(Rcode.NOERROR, (THERE,))
    assert both.decide("auth-svc.svc", ANY) == Answer(Rcode.NOERROR, (HERE, THERE))
    assert names().decide("svc", A) == Answer(), "it is there, as what is below it is"


def test_of_the_internet_alone() -> None:
    assert names().decide("auth-svc.svc", A, 3) == Answer(Rcode.REFUSED)
    assert names().decide("version.bind", TXT, 3) is None


def test_without_suffixes_nothing_ends_in_one() -> None:
    assert names(suffixes=()).decide("a.shop.example", A) is None
    assert names(ttl=2.9).ttl == 2
