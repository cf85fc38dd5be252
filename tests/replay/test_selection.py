from __future__ import annotations

from dataclasses import replace

import pytest

from hms_addons.replay.selection import Wishes, prepare, why_not
from tests.replay.kit import fields_of, recorded


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get"])
def test_what_may_change_something_is_left_out_unless_asked_for(method: str) -> None:
    one = recorded(method=method)
    reason = why_not(one, Wishes())
    assert reason is not None
    assert "--all-methods" in reason
    assert why_not(one, Wishes(all_methods=True)) is None


@pytest.mark.parametrize(
    ("one", "why"),
    [
        (replace(recorded(), answer=None), "no answer"),
        (recorded(by_mesh="403 RBAC"), "the mesh itself"),
        (recorded(upgraded=True), "tunnels"),
        (recorded(body=None), "not recorded as a whole"),
        (recorded(b"/a?key=[redacted]"), "--query"),
        (recorded(b"/a?key=[redacted-0123456789abcdef]"), "--query"),
    ],
)
def test_what_cannot_be_replayed_is_left_out(one: object, why: str) -> None:
    assert why in (why_not(one, Wishes(all_methods=True)) or "")  # type: ignore[arg-type] # parametrised


def test_requests_are_sent_as_they_were_but_for_their_framing() -> None:
    fields = fields_of(
        [
            ("Host", "claims-svc.svc"),
            ("Connection", "close"),
            ("Content-Length", "3"),
            ("X-Caller-Role", "AUDITOR"),
        ]
    )
    sent, missing = prepare(recorded(fields=fields), Wishes())
    assert sent.fields == fields_of([("Host", "claims-svc.svc"), ("X-Caller-Role", "AUDITOR")])
    assert missing == []


def test_what_was_redacted_is_left_out_unless_it_is_given() -> None:
    one = recorded(
        fields=fields_of([("Authorization", "[redacted]"), ("Cookie", "a=[redacted-0a]")])
    )
    given = {"authorization": (b"authorization", b"Bearer new")}
    sent, missing = prepare(one, Wishes(headers=given))
    assert sent.fields == ((b"authorization", b"Bearer new"),)
    assert missing == ["Cookie"]


def test_a_header_that_is_given_replaces_all_of_its_name() -> None:
    one = recorded(fields=fields_of([("X-Tier", "a"), ("x-tier", "b")]))
    sent, _ = prepare(one, Wishes(headers={"x-tier": (b"X-Tier", b"gold")}))
    assert sent.fields == ((b"X-Tier", b"gold"),)


def test_parameters_that_are_given_are_filled_in() -> None:
    wishes = Wishes(query={"api key": "7", "absent": "x"})
    one = recorded(b"/a?api+key=[redacted]&b=1&flag")
    assert why_not(one, wishes) is None
    assert prepare(one, wishes)[0].target == b"/a?api+key=7&b=1&flag"
    assert prepare(recorded(b"/a"), wishes)[0].target == b"/a"
