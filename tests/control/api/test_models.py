from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from hms_addons.control.api import models
from hms_addons.control.api.models import Input, InstanceInput, SidecarReport, SvidRequest

SECRET = "hmsadm1.in-the-wrong-place"

REPORT = {"service": "auth-svc", "version": 3, "state": "ack"}


def test_everything_that_comes_in_refuses_what_it_does_not_know() -> None:
    inputs = [
        model
        for model in vars(models).values()
        if isinstance(model, type) and issubclass(model, Input)
    ]
    assert len(inputs) > 5
    assert all(model.model_config["extra"] == "forbid" for model in inputs)


def test_an_error_does_not_quote_what_came_in() -> None:
    with pytest.raises(ValidationError) as caught:
        SvidRequest.model_validate({"service": [SECRET], "csr": {SECRET: 1}})
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "service",
    ["", ".", "..", ".hidden", "a/b", "a b", "a\n", "ä", "x" * 129, "%2e", "a\x00"],
)
def test_names_are_one_plain_segment(service: str) -> None:
    with pytest.raises(ValidationError):
        SvidRequest.model_validate({"service": service, "csr": ""})


@pytest.mark.parametrize(
    "address",
    ["10.0.0.7:15006", "auth.mpsa.mil:1", "[::1]:65535", "host_1:80"],
)
def test_addresses_are_host_and_port(address: str) -> None:
    assert InstanceInput.model_validate({"address": address}).address == address


@pytest.mark.parametrize(
    "address", ["", "10.0.0.7", ":80", "host:", "http://host:80", "host:80/path", "a b:80", "h:x"]
)
def test_nothing_else_is_an_address(address: str) -> None:
    with pytest.raises(ValidationError):
        InstanceInput.model_validate({"address": address})


@pytest.mark.parametrize(
    "change",
    [
        {"weight": -1},
        {"ttl": 0},
        {"ttl": 1e9},
        {"metadata": {str(n): "" for n in range(65)}},
        {"metadata": {"a": "x" * 257}},
        {"version": "a b"},
    ],
)
def test_what_an_instance_tells_is_bounded(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InstanceInput.model_validate({"address": "h:1", **change})


@pytest.mark.parametrize(
    "change",
    [
        {"state": "maybe"},
        {"version": -1},
        {"reason": "x" * 20_000},
        {"breakers_open": ["x"] * 300},
        {"endpoints": {"usable": -1, "total": 0}},
        {"endpoints": {"usable": 0, "total": 2**31 + 1}},
        pytest.param({"endpoints": {"usable": 10**400, "total": 0}}, id="huge"),
        {"version": 2**53 + 1},
        {"bundle_sequence": 2**31 + 1},
        *(
            {"certificate": {"not_after": when, "serial": "ab"}}
            for when in (float("nan"), float("inf"), -float("inf"), 1e308, 253402300800, -1, None)
        ),
    ],
)
def test_what_a_sidecar_reports_is_bounded(change: dict[str, Any]) -> None:
    assert SidecarReport.model_validate(REPORT).state == "ack"
    with pytest.raises(ValidationError):
        SidecarReport.model_validate({**REPORT, **change})
