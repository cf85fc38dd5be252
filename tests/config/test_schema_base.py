from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from hms_addons.config.schema_base import (
    FieldName,
    HostPattern,
    Method,
    Name,
    PositiveDuration,
    Regex,
    SpiffeIdText,
    TrustDomain,
    UrlPath,
    parse_address,
    parse_duration,
    parse_size,
    shown,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("250ms", 0.25),
        ("1s", 1.0),
        ("0.25s", 0.25),
        ("1m30s", 90.0),
        ("1h", 3600.0),
        ("24h", 86400.0),
        ("2d", 172800.0),
        ("0s", 0.0),
        (0, 0.0),
        (0.0, 0.0),
    ],
)
def test_durations(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text", ["", "1", "s", "1 s", "-1s", "1x", "1S", "1e3s", "1s ", "1.s", "infs", "٣s", 5, -1, 0.5,
             True, False, None, [], {}, "9999999999s", "1s1"]
)  # fmt: skip
def test_no_durations(text: object) -> None:
    with pytest.raises(ValueError, match="duration"):
        parse_duration(text)


def test_a_number_without_a_unit_gets_a_suggestion() -> None:
    with pytest.raises(PydanticCustomError) as caught:
        parse_duration(5)
    assert caught.value.context == {
        "message": "a duration needs a unit, as 5s or 5ms",
        "at": (),
        "suggestion": "5s",
        "about": (),
        "lacks": (),
    }


@given(st.integers(0, 10**6), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: str) -> None:
    factor = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}[unit]
    assert parse_duration(f"{number}{unit}") == pytest.approx(number * factor)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        (0, 0),
        (512, 512),
        ("512B", 512),
        ("64KiB", 65536),
        ("1MiB", 2**20),
        ("1 GiB", 2**30),
        ("10MB", 10**7),
        ("1kB", 1000),
    ],
)
def test_sizes(text: object, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "1", "MiB", "-1B", "1.5MiB", "1mib", -1, 1.0, True, None])
def test_no_sizes(text: object) -> None:
    with pytest.raises(ValueError, match="size"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:9001", ("127.0.0.1", 9001)),
        ("[::1]:80", ("::1", 80)),
        ("auth.internal:65535", ("auth.internal", 65535)),
        ("a:1", ("a", 1)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert parse_address(text) == address


@pytest.mark.parametrize(
    "text",
    ["", "a", ":80", "a:", "a:x", "a:0", "a:65536", "a:-1", "::1:80", "[::1]", "[a]:80", "a b:80",
     "http://a:80", "a:80/x", "a:٣", "a:+1", "a:99999999999"],
)  # fmt: skip
def test_no_addresses(text: str) -> None:
    with pytest.raises(ValueError, match="port"):
        parse_address(text)


ACCEPTED = [
    (Name, "auth-svc", "auth-svc"),
    (Name, "a.b_c-1", "a.b_c-1"),
    (FieldName, "X-Caller-Role", "X-Caller-Role"),
    (Method, "PURGE", "PURGE"),
    (UrlPath, "/verify-id", "/verify-id"),
    (UrlPath, "/café x", "/caf%C3%A9%20x"),
    (UrlPath, "/%61%2b", "/a%2B"),
    (UrlPath, "/a:b{c}", "/a:b%7Bc%7D"),
    (Regex, "/a/[0-9]+", "/a/[0-9]+"),
    (HostPattern, "API.Example.org", "api.example.org"),
    (HostPattern, "*.example.org.", "*.example.org"),
    (HostPattern, "*", "*"),
    (TrustDomain, "mpsa.mil", "mpsa.mil"),
    (SpiffeIdText, "spiffe://mpsa.mil/svc/a", "spiffe://mpsa.mil/svc/a"),
    (PositiveDuration, "1s", 1.0),
]


@pytest.mark.parametrize(("kind", "value", "expected"), ACCEPTED)
def test_accepted(kind: Any, value: str, expected: object) -> None:
    assert TypeAdapter(kind).validate_python(value) == expected


REFUSED = [
    (Name, "", "cannot be a name"),
    (Name, "-a", "cannot be a name"),
    (Name, "a b", "cannot be a name"),
    (Name, "app:x", "cannot be a name"),
    (Name, "a" * 129, "cannot be a name"),
    (FieldName, "X Role", "header field"),
    (FieldName, "X-Röle", "header field"),
    (Method, "get", "case-sensitive"),
    (UrlPath, "verify", "begins with '/'"),
    (UrlPath, "/a?b=c", "before '\\?'"),
    (UrlPath, "/a#b", "before '\\?'"),
    (UrlPath, "/a/../b", "normalised first"),
    (UrlPath, "/a//b", "normalised first"),
    (UrlPath, "/a%2Fb", "no request can have this path"),
    (UrlPath, "/a\\b", "no request can have this path"),
    (Regex, "(a+)+", "repeat inside a repeat"),
    (HostPattern, "http://a", "is not a host"),
    (HostPattern, "a:80", "is not a host"),
    (HostPattern, "a.*.b", "is not a host"),
    (HostPattern, "*a", "is not a host"),
    (TrustDomain, "MPSA", "trust domain"),
    (SpiffeIdText, "spiffe://mpsa.mil/svc/../a", "SPIFFE"),
    (PositiveDuration, "0s", "more than 0"),
    (PositiveDuration, 0, "more than 0"),
]


@pytest.mark.parametrize(("kind", "value", "why"), REFUSED)
def test_refused(kind: Any, value: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        TypeAdapter(kind).validate_python(value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "nothing"),
        (True, "true"),
        ([1], "a list"),
        ({}, "a mapping"),
        (5, "5"),
        ("a" * 90, "'" + "a" * 56 + "…"),
    ],
)
def test_shown(value: object, text: str) -> None:
    assert shown(value) == text
