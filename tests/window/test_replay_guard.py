"""What is not sent again."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from hms_addons.window.kept_bodies import cut
from hms_addons.window.redaction import Redactor
from hms_addons.window.replay_guard import ReplayGuard, why_not
from tests.fakes.clock import FakeClock
from tests.fakes.flows import make_flow

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow


def cut_flow() -> HTTPFlow:
    flow = make_flow(method="POST", body=b"q" * 100, status=None)
    cut(flow, 10)
    return flow


def hidden_flow() -> HTTPFlow:
    return Redactor().shown(make_flow(headers=[("X-Token", "abc")], status=None))


def recorded_flow() -> HTTPFlow:
    """As `hms record` has it."""
    return make_flow(headers=[("Authorization", "[redacted]")], status=None)


@pytest.mark.parametrize(
    ("flow", "says"),
    [
        (cut_flow(), "10 of 100 bytes"),
        (hidden_flow(), "without its secrets"),
        (recorded_flow(), "[redacted] stands"),
    ],
)
def test_what_is_not_whole_is_answered_in_place(flow: HTTPFlow, says: str) -> None:
    flow.is_replay = "request"
    ReplayGuard(FakeClock()).request(flow)
    assert flow.response is not None
    assert flow.response.status_code == 400
    assert says in json.loads(flow.response.content or b"")["detail"]


def test_what_is_whole_is_let_through() -> None:
    flow = make_flow(headers=[("X-Token", "abc")], status=None)
    flow.is_replay = "request"
    assert why_not(flow) is None
    ReplayGuard(FakeClock()).request(flow)
    assert flow.response is None


def test_a_callers_own_request_is_none_of_its_business() -> None:
    flow = hidden_flow()
    ReplayGuard(FakeClock()).request(flow)
    assert flow.response is None
