"""The defaults of intercepted calls and of DNS: nothing leaves that was not asked for."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from ipaddress import ip_address

import pytest

from hms_addons.config.route_table import RouteTable
from hms_addons.config.snapshot_interception import MESH_ADDRESS, DnsListener, Intercept


def test_what_is_not_the_meshs_is_refused_by_default() -> None:
    assert Intercept(routes=RouteTable()).passthrough is None


def test_the_meshs_address_is_this_machines_and_nobody_elses() -> None:
    address = ip_address(MESH_ADDRESS)
    assert address.is_loopback
    assert address != ip_address("127.0.0.1")


def test_names_stand_for_the_loopback_address_for_a_short_time() -> None:
    listener = DnsListener(name="names", host="127.0.0.1", port=53)
    assert (listener.addresses, listener.ttl, listener.forwards) == (("127.0.0.1",), 5.0, True)
    with pytest.raises(FrozenInstanceError):
        listener.port = 1  # type: ignore[misc]
