"""Where the caller meant to go, and nowhere else."""

from __future__ import annotations

import random

import pytest

from hms_addons.errors import ExchangeFailed
from hms_addons.upstream.balancers.original_destination import OriginalDestination
from tests.fakes.balancers import endpoints
from tests.fakes.intercepted import caught, transparent


def test_each_call_goes_where_it_was_meant_to() -> None:
    members = endpoints(1, 1)
    balancer = OriginalDestination(random.Random(1))
    balancer.update(members)
    for number, member in enumerate(members):
        exchange = caught(transparent("original"), "example.com", "/", (f"10.0.0.{number}", 80))
        assert balancer.pick(exchange) is member


def test_never_to_another() -> None:
    balancer = OriginalDestination(random.Random(1))
    balancer.update(endpoints(1, 1))
    for original in (("10.0.0.0", 81), ("10.0.0.7", 80), None):
        exchange = caught(transparent("original"), "example.com", "/", original)
        with pytest.raises(ExchangeFailed, match="given up; try again") as failed:
            balancer.pick(exchange)
        assert (failed.value.failure.status, failed.value.failure.flag) == (503, "UH")
