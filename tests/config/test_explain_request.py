from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.explain_request import (
    check_well_formed,
    index_headers,
    pairs_of,
    split_request_line,
)
from hms_addons.config.request_target import TargetError
from hms_addons.engine.framing import index_fields
from hms_addons.http_message import SENT_ONCE

NAMES = st.sampled_from([b"cookie", b"host", b"x-a", b"accept"])


@pytest.mark.parametrize(
    ("line", "split"),
    [
        ("/a", ("GET", "/a")),
        ("POST /a", ("POST", "/a")),
        ("POST /a HTTP/1.1", ("POST", "/a")),
        ("POST /a b", ("POST", "/a b")),
    ],
)
def test_a_request_line_may_lack_its_ends(line: str, split: tuple[str, str]) -> None:
    assert split_request_line(line) == split


def test_headers_are_a_mapping_or_pairs() -> None:
    assert pairs_of({"Host": "a"}) == pairs_of([("Host", "a")]) == [(b"host", b"a")]
    assert pairs_of([("X-\u00e9", "\u2192")]) == [(b"x-\xe9", b"?")]


@given(st.lists(st.tuples(NAMES, st.binary(max_size=3))))
def test_repeated_ones_are_joined_as_the_engine_joins_them(
    fields: list[tuple[bytes, bytes]],
) -> None:
    assert index_headers(fields) == index_fields(fields)


@pytest.mark.parametrize("name", sorted(SENT_ONCE))
def test_what_may_be_sent_once_is_refused_twice(name: bytes) -> None:
    check_well_formed("GET", [(name, b"1"), (b"x-a", b"1"), (b"x-a", b"1")])
    with pytest.raises(TargetError, match="was sent more than once"):
        check_well_formed("GET", [(name, b"1"), (b"x-a", b"1"), (name, b"1")])


@pytest.mark.parametrize("method", ["GET", "CONNECT", "M-SEARCH", "QUERY"])
def test_the_parsers_methods_are_taken(method: str) -> None:
    check_well_formed(method, [])


@given(st.text(max_size=8).filter(lambda text: not text.isupper()))
def test_no_other_word_is_a_method(method: str) -> None:
    with pytest.raises(TargetError, match="Invalid method"):
        check_well_formed(method, [])
