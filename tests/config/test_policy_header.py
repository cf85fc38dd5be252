from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.policy_header import (
    MAX_FIELD,
    MAX_FIELDS,
    TTL_RANGE,
    PolicyHeader,
    PolicyHeaderError,
    name_flaw,
    parse_policy_header,
)

OWN = b"X-Policy-Version"
RESERVED = {b"x-caller-role", b"x-caller-subject", b"x-caller-service"}


def parse(document: Any = None, *headers: tuple[bytes, bytes]) -> PolicyHeader:
    body = b"" if document is None else json.dumps(document).encode()
    return parse_policy_header(body, headers, OWN, RESERVED)


def test_a_version() -> None:
    assert parse({"version": "1.3.4"}) == PolicyHeader(((OWN, b"1.3.4"),), "1.3.4", None)


def test_a_whole_number_is_a_version_too() -> None:
    assert parse({"version": 7}).version == "7"


def test_pairs_keep_their_spelling_and_the_version_comes_first_in_ours() -> None:
    answer = parse({"X-Retention": "7y", "x-policy-version": "2", "note": "ignored"})
    assert answer.fields == ((OWN, b"2"), (b"X-Retention", b"7y"))
    assert answer.version == "2"


def test_pairs_without_a_version() -> None:
    assert parse({"X-Retention": "7y"}) == PolicyHeader(((b"X-Retention", b"7y"),), "-", None)


def test_response_headers_serve_when_the_body_says_nothing() -> None:
    headers = [(b"x-policy-version", b"9"), (b"X-Policy-Zone", b"eu"), (b"X-Powered-By", b"PHP")]
    for body in (b"", b"<html>", b"[]", b"{}"):
        answer = parse_policy_header(body, headers, OWN, RESERVED)
        assert answer.fields == ((OWN, b"9"), (b"X-Policy-Zone", b"eu"))


def test_the_body_counts_before_response_headers() -> None:
    assert parse({"version": "1"}, (OWN, b"2")).version == "1"


@pytest.mark.parametrize(
    ("document", "headers", "ttl"),
    [
        ({"ttl": 30}, [], 30.0),
        ({"ttl": "2.5"}, [], 2.5),
        ({"ttl": 0}, [], TTL_RANGE[0]),
        ({"ttl": -5}, [], TTL_RANGE[0]),
        ({"ttl": 10**9}, [], TTL_RANGE[1]),
        ({}, [(b"cache-control", b"public, max-age=120")], 120.0),
        ({}, [(b"Cache-Control", b'Max-Age="15"')], 15.0),
        ({"ttl": 30}, [(b"Cache-Control", b"max-age=120")], 30.0),
        ({}, [(b"Cache-Control", b"no-cache")], None),
        ({}, [(b"Cache-Control", b"s-maxage=5, x-max-age=7")], None),
        ({}, [(b"Cache-Control", b"max-age=")], None),
    ],
)
def test_how_long_it_counts(
    document: dict[str, Any], headers: list[tuple[bytes, bytes]], ttl: float | None
) -> None:
    assert parse({"version": "1"} | document, *headers).ttl == ttl


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (None, "neither"),
        ({}, "neither"),
        ([1], "neither"),
        ({"policy": "1"}, "neither"),
        ({"version": None}, "'version' is not a string"),
        ({"version": 1.10}, "'version' is not a string"),
        ({"version": True}, "'version' is not a string"),
        ({"version": ""}, "empty"),
        ({"version": "1\r\nX-Caller-Role: ADMIN"}, "plain ASCII"),
        ({"version": " 1"}, "plain ASCII"),
        ({"version": "é"}, "plain ASCII"),
        ({"version": "1" * (MAX_FIELD + 1)}, "longer than"),
        ({"version": "1", "X-Caller-Role": "ADMIN"}, "X-Caller-Role is not governance's"),
        ({"version": "1", "x-caller-ROLE": "ADMIN"}, "not governance's"),
        ({"version": "1", "X-Forwarded-For": "::1"}, "not governance's"),
        ({"version": "1", "X-Request-ID": "1"}, "not governance's"),
        ({"version": "1", "X-HMS-Flag": "UH"}, "not governance's"),
        ({"version": "1", "X-HTTP-Method-Override": "DELETE"}, "not governance's"),
        ({"version": "1", "X-Original-URL": "/admin"}, "not governance's"),
        ({"Host": "x", "Connection": "close", "Content-Length": "1"}, "neither"),
        ({"version": "1", "X-Bad Name": "1"}, "no name"),
        ({"version": "1", "X-Bad\r\nHost": "1"}, "no name"),
        ({"version": "1", "X-": "1"}, "no name"),
        ({"version": "1", "X-Caller_Role": "1"}, "no name"),
        ({"version": "1", "X-Policy-Version": "1"}, "twice"),
        ({"X-Policy-Version": "1", "version": "1"}, "twice"),
        ({"X-A": "1", "x-a": "1"}, "twice"),
        ({f"X-{n}": "1" for n in range(MAX_FIELDS + 1)}, "at most"),
        ({"version": "1", "ttl": "soon"}, "`ttl`"),
        ({"version": "1", "ttl": True}, "`ttl`"),
        ({"version": "1", "ttl": "nan"}, "`ttl`"),
        ({"version": "1", "ttl": [1]}, "`ttl`"),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_whole(document: Any, reason: str) -> None:
    with pytest.raises(PolicyHeaderError, match=reason):
        parse(document)


def test_deep_nesting_is_no_way_to_break_it() -> None:
    with pytest.raises(PolicyHeaderError, match="neither"):
        parse_policy_header(b"[" * 60_000, (), OWN, RESERVED)


json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=5,
)


@given(
    st.dictionaries(
        st.sampled_from(["version", "ttl", "X-A", "x-a", "X-Caller-Role", "X-Forwarded-For"])
        | st.text(max_size=5).map("X-".__add__),
        json_ | st.sampled_from(["1", "2.0"]),
    )
)
def test_whatever_is_taken_can_be_sent_and_is_governances_to_set(document: dict[str, Any]) -> None:
    try:
        answer = parse(document)
    except PolicyHeaderError:
        return
    assert answer.fields
    for name, value in answer.fields:
        assert name.lower() not in RESERVED
        assert name.isascii()
        assert value.isascii()
        assert value.decode().isprintable()
        assert value.strip() == value != b""
    assert answer.ttl is None or TTL_RANGE[0] <= answer.ttl <= TTL_RANGE[1]


def test_only_names_that_are_allowed_are_taken_where_some_are_named() -> None:
    def ask(document: Any, *headers: tuple[bytes, bytes]) -> PolicyHeader:
        body = json.dumps(document).encode()
        return parse_policy_header(body, headers, OWN, RESERVED, {b"x-zone"})

    assert ask({"version": "1", "x-zone": "eu"}).fields == ((OWN, b"1"), (b"x-zone", b"eu"))
    with pytest.raises(PolicyHeaderError, match="X-Other, which is not under `governance.headers`"):
        ask({"version": "1", "X-Other": "1"})
    headers = [(b"X-Zone", b"eu"), (b"X-Policy-Other", b"no"), (OWN, b"2")]
    assert dict(ask({}, *headers).fields) == {OWN: b"2", b"X-Zone": b"eu"}


@pytest.mark.parametrize("name", ["X-Zone", "x-policy-Region-2"])
def test_a_name_that_governance_can_set(name: str) -> None:
    assert name_flaw(name) is None


@pytest.mark.parametrize("name", ["Zone", "X_Zone", "X-Forwarded-Host", "X-Envoy-Retry-On"])
def test_a_name_that_it_cannot(name: str) -> None:
    assert name_flaw(name) is not None
