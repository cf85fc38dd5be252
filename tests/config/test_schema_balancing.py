"""What `hash_on` takes, and what it says of the rest."""

from __future__ import annotations

import pytest

from hms_addons.config.load import load

CLUSTER = "clusters: [{name: a, endpoints: ['h:1'], hash_on: %s}]"


def problems_of(hash_on: str) -> list[str]:
    loaded = load([("a.yaml", (CLUSTER % hash_on).encode())], control=True)
    return [problem.message for problem in loaded.problems if problem.severity == "error"]


@pytest.mark.parametrize(
    "hash_on",
    [
        "{header: X-User}",
        "{cookie: s}",
        "{cookie: s, ttl: 1h, path: /}",
        "{cookie: s, ttl: 0, secure: true, same_site: none}",
        "{query: user}",
        "{source: true}",
    ],
)
def test_keys_that_it_takes(hash_on: str) -> None:
    assert problems_of(hash_on) == []


@pytest.mark.parametrize(
    ("hash_on", "message"),
    [
        ("{}", "give exactly one of header, cookie, query and source"),
        ("{header: a, cookie: b}", "give exactly one of header, cookie, query and source"),
        ("{header: a, ttl: 1h}", "ttl belongs to a cookie, not to header"),
        ("{source: true, path: /}", "path belongs to a cookie, not to source"),
        (
            "{cookie: s, path: /}",
            "path is of a cookie that the mesh sets, which it does only with `ttl`",
        ),
        (
            "{cookie: s, ttl: 1h, same_site: none}",
            "browsers take same_site: none only with secure: true",
        ),
        (
            "{cookie: 'a b'}",
            "'a b' cannot be the name of a cookie: use letters, digits and -_.~!#$%&'*+^`|",
        ),
        (
            "{cookie: 'a=b'}",
            "'a=b' cannot be the name of a cookie: use letters, digits and -_.~!#$%&'*+^`|",
        ),
        ("{header: 'x y'}", "'x y' cannot be the name of a header field or a method"),
        (
            "{cookie: s, ttl: 1h, path: 'a'}",
            "expected a path such as /, without ';' and in ASCII, not 'a'",
        ),
        (
            "{cookie: s, ttl: 1h, path: '/;Domain=evil'}",
            "expected a path such as /, without ';' and in ASCII, not '/;Domain=evil'",
        ),
        ("X-User", "expected a mapping with header, cookie, query or source, not 'X-User'"),
    ],
)
def test_what_it_does_not_take_is_said_once(hash_on: str, message: str) -> None:
    assert problems_of(hash_on) == [message]


def test_a_bare_name_is_taken_for_a_headers() -> None:
    loaded = load([("a.yaml", (CLUSTER % "X-User").encode())], control=True)
    assert "did you mean {header: X-User}?" in str(loaded.problems[0])
