"""DNS messages: read strictly, written as RFC 1035 has them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mitmproxy.dns import DNSMessage

from hms_addons.dns.wire import QueryError, Rcode, answer, is_answer_to, parse_query
from tests.dns.queries import AAAA, foreign_answer, query, read

HEAD = b"\0\x07\x01\0\0\x01\0\0\0\0\0\0"


def test_a_query_is_read() -> None:
    found = parse_query(query("Auth-SVC.svc", AAAA))
    assert (found.name, found.type, found.class_) == ("auth-svc.svc", 28, 1)
    assert found.question == b"\x08Auth-SVC\x03svc\0\0\x1c\0\x01", "its spelling is kept"
    assert parse_query(query("")).name == ""


def test_what_follows_the_question_is_not_looked_at() -> None:
    assert (
        parse_query(query("a.svc") + b"\0\0\x29\x10\0\0\0\0\0\0\0").question
        == b"\x01a\x03svc\0\0\x01\0\x01"
    )


@pytest.mark.parametrize("label", [b"auth-svc.svc", b"\xe4.svc", b"\xff"])
def test_a_name_that_cannot_be_written_is_nobodys(label: bytes) -> None:
    data = HEAD + bytes([len(label)]) + label + b"\0\0\x01\0\x01"
    assert parse_query(data).name == ""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "shorter than a head"),
        (HEAD[:11], "shorter than a head"),
        (query("a.svc", flags=0x8180), "an answer"),
    ],
)
def test_what_is_no_query_gets_no_answer(data: bytes, said: str) -> None:
    with pytest.raises(QueryError, match=said) as error:
        parse_query(data)
    assert error.value.answer is None, "two that answer each other would never stop"


@pytest.mark.parametrize(
    ("data", "rcode"),
    [
        (HEAD, Rcode.FORMERR),
        (query("a.svc")[:-1], Rcode.FORMERR),
        (query("a.svc")[:15], Rcode.FORMERR),
        (HEAD[:4] + b"\0\0" + HEAD[6:], Rcode.FORMERR),
        (HEAD[:4] + b"\0\2" + HEAD[6:] + query("a.svc")[12:] * 2, Rcode.FORMERR),
        (HEAD + b"\xc0\x0c\0\x01\0\x01", Rcode.FORMERR),
        (HEAD + b"\x40" + b"a" * 64 + b"\0\0\x01\0\x01", Rcode.FORMERR),
        (query(".".join(["a" * 62] * 4)), Rcode.NOERROR),
        (query(".".join(["a" * 63] * 4)), Rcode.FORMERR),
        (query("a.svc", flags=0x2800), Rcode.NOTIMP),
    ],
)
def test_what_is_malformed_is_told_so(data: bytes, rcode: Rcode) -> None:
    if rcode is Rcode.NOERROR:
        parse_query(data)
        return
    with pytest.raises(QueryError) as error:
        parse_query(data)
    assert error.value.answer is not None
    assert read(error.value.answer) == (rcode, [])
    assert error.value.answer[:2] == data[:2]


@given(st.binary(max_size=300))
def test_whatever_comes_is_read_or_refused(data: bytes) -> None:
    try:
        found = parse_query(data)
    except QueryError as error:
        told = error.answer
    else:
        told = None
        assert data.startswith(found.head + found.question)
    assert told is None or read(told)[0]


@pytest.mark.parametrize(
    "addresses", [(), (b"\x7f\0\0\x01",), (b"\x7f\0\0\x01", bytes(15) + b"\x01")]
)
def test_an_answer_is_one_that_others_read(addresses: tuple[bytes, ...]) -> None:
    asked = parse_query(query("Auth-SVC.svc"))
    data = answer(asked, Rcode.NOERROR, addresses, 5)
    told = DNSMessage.unpack(data)
    assert (told.id, told.query, told.authoritative_answer) == (7, False, True)
    assert told.recursion_desired
    assert told.question is not None
    assert told.question.name == "Auth-SVC.svc"
    assert [(one.name, one.ttl, one.data) for one in told.answers] == [
        ("Auth-SVC.svc", 5, address) for address in addresses
    ]
    assert is_answer_to(asked, data)
    refused = DNSMessage.unpack(answer(asked, Rcode.REFUSED, own=False))
    assert (refused.response_code, refused.authoritative_answer) == (5, False)


def test_an_answer_to_another_query_is_known() -> None:
    asked = parse_query(query("example.com"))
    right = foreign_answer(query("example.com"), b"\1\2\3\4")
    assert is_answer_to(asked, right)
    assert is_answer_to(asked, foreign_answer(query("EXAMPLE.com")))
    assert is_answer_to(asked, right[:2] + b"\x81\x82" + bytes(8)), "SERVFAIL, without the question"
    for wrong in (
        b"",
        right[:11],
        query("example.com"),
        foreign_answer(query("example.com", identifier=8)),
        foreign_answer(query("example.org")),
        foreign_answer(query("example.com", AAAA)),
    ):
        assert not is_answer_to(asked, wrong)
