"""The store behind `stale`: what is kept, for whom, and for how long."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.exchange import Principal
from hms_addons.http_message import Answer, BodyStream
from hms_addons.last_answers import LastAnswers, key_of
from tests.fakes.exchange import make_exchange, make_route


def good(body: bytes = b"ok", **fields: str) -> Answer:
    pairs = ((k.replace("_", "-").encode(), v.encode()) for k, v in fields.items())
    return Answer(200, b"OK", tuple(pairs), body)


def stored(answer: Answer, **exchange: Any) -> bool:
    answers = LastAnswers()
    request = make_exchange(**exchange)
    answers.store(key_of(request), request, answer, 0.0)
    return len(answers) == 1


def test_an_answer_is_found_again_until_it_is_too_old() -> None:
    answers = LastAnswers()
    exchange = make_exchange()
    key = key_of(exchange)
    answers.store(key, exchange, good(X_A="1", Age="30"), 100.0)
    found = answers.find(key, 60.0, 112.5)
    assert found is not None
    answer, age = found
    assert (answer.status, answer.body, age) == (200, b"ok", 12)
    assert answer.fields == ((b"X-A", b"1"), (b"Age", b"42"))
    assert answers.find(key, 60.0, 160.5) is None
    assert len(answers) == 0, "nobody will want it any more"
    assert answers.counts == {"stored": 1, "served": 1, "missed": 1}


def test_the_last_one_counts() -> None:
    answers = LastAnswers()
    exchange = make_exchange()
    key = key_of(exchange)
    for body in (b"one", b"two"):
        answers.store(key, exchange, good(body), 0.0)
    found = answers.find(key, 60.0, 1.0)
    assert found is not None
    assert found[0].body == b"two"
    assert len(answers) == 1
    answers.store(key, exchange, good(Cache_Control="no-store"), 2.0)
    assert answers.find(key, 60.0, 2.0) is None, "what it said before is not its last word"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (
            {"headers": [("Authorization", "Bearer a")]},
            {"headers": [("Authorization", "Bearer b")]},
        ),
        ({"headers": [("Authorization", "Bearer a")]}, {}),
        ({"headers": [("Cookie", "sid=1")]}, {"headers": [("Cookie", "sid=2")]}),
        ({"headers": [("X-Api-Key", "1")]}, {"headers": [("X-Api-Key", "2")]}),
        ({"headers": [("Accept-Language", "de")]}, {"headers": [("Accept-Language", "en")]}),
        ({"headers": [("Range", "bytes=0-1")]}, {}),
        ({"target": "/a"}, {"target": "/b"}),
        ({"target": "/a?id=1"}, {"target": "/a?id=2"}),
        ({"route": make_route(name="one")}, {"route": make_route(name="two")}),
        ({"peer": "spiffe://mesh/svc/a"}, {"peer": "spiffe://mesh/svc/b"}),
    ],
)
def test_one_callers_answer_is_never_anothers(one: dict[str, Any], other: dict[str, Any]) -> None:
    def key(options: dict[str, Any]) -> bytes:
        options = dict(options)
        peer = options.pop("peer", None)
        exchange = make_exchange(**{"target": "/verify-id", **options})
        exchange.peer = peer
        return key_of(exchange)

    assert key(one) != key(other)
    assert key(one) == key(one)


def test_the_verified_caller_counts_also_where_the_token_is_kept_back() -> None:
    one, other = make_exchange(), make_exchange()
    one.principal = Principal("alice", ("ADJUSTER",))
    other.principal = Principal("bob", ("ADJUSTER",))
    assert key_of(one) != key_of(other)
    other.principal = Principal("alice", ("MANAGER",))
    assert key_of(one) != key_of(other)


def test_what_is_new_with_every_request_does_not_count() -> None:
    one = make_exchange(headers=[("X-Request-ID", "1"), ("traceparent", "00-a")])
    other = make_exchange(headers=[("X-Request-ID", "2"), ("traceparent", "00-b")])
    assert key_of(one) == key_of(other)


def test_no_credential_is_kept() -> None:
    exchange = make_exchange(headers=[("Authorization", "Bearer s3cret")])
    answers = LastAnswers()
    answers.store(key_of(exchange), exchange, good(), 0.0)
    assert b"s3cret" not in repr(answers._entries).encode()


@pytest.mark.parametrize(
    "fields",
    [
        {"Cache_Control": "no-store"},
        {"Cache_Control": "max-age=60, Private"},
        {"Cache_Control": 'private="x"'},
        {"Cache_Control": "no-cache"},
        {"Cache_Control": "must-revalidate"},
        {"Cache_Control": "s-maxage=3"},
        {"Vary": "*"},
        {"Vary": "Accept, X-Request-ID"},
        {"Set_Cookie": "sid=1"},
    ],
)
def test_what_must_not_be_served_stale_is_not_stored(fields: dict[str, Any]) -> None:
    assert not stored(good(**fields))


def test_what_may_be_is() -> None:
    assert stored(good(Cache_Control="public, max-age=1", Vary="Accept, Authorization"))


def test_a_request_may_forbid_it_too() -> None:
    assert not stored(good(), headers=[("Cache-Control", "no-store")])


def test_streams_trailers_and_long_bodies_are_not_stored() -> None:
    stream = Answer(200, b"OK", (), BodyStream(lambda: None, lambda: None))
    trailing = Answer(200, b"OK", (), b"x", trailers=((b"X-Sum", b"1"),))
    assert not stored(stream)
    assert not stored(trailing)
    assert not stored(good(b"x" * (1024 * 1024 + 1)))


def streaming(*pieces: bytes, fields: Any = ()) -> Answer:
    body = BodyStream(lambda: None, lambda: None)
    for piece in pieces:
        body.feed(piece)
    return Answer(200, b"OK", fields, body)


async def read(answer: Answer) -> bytes:
    assert isinstance(answer.body, BodyStream)
    return b"".join([piece async for piece in answer.body])


async def test_a_body_that_streams_is_kept_once_it_has_passed() -> None:
    answers, exchange, answer = LastAnswers(), make_exchange(), streaming(b"o", b"k")
    source = answer.body
    assert isinstance(source, BodyStream)
    answers.keep(b"k", exchange, answer, lambda: 7.0)
    assert len(answers) == 0
    source.feed_eof()
    assert await read(answer) == b"ok"
    found = answers.find(b"k", 60.0, 9.0)
    assert found is not None
    assert (found[0].body, found[1]) == (b"ok", 2)


async def test_a_body_that_breaks_off_or_is_too_long_is_not_kept() -> None:
    answers, exchange = LastAnswers(), make_exchange()
    answers.keep(b"k", exchange, good(), lambda: 0.0)
    cut = streaming(b"o")
    source = cut.body
    assert isinstance(source, BodyStream)
    answers.keep(b"k", exchange, cut, lambda: 0.0)
    source.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await read(cut)
    assert len(answers) == 1, "the one before is the last good one"
    long = streaming(b"x" * 65537, b"y")
    source = long.body
    assert isinstance(source, BodyStream)
    answers.keep(b"k", exchange, long, lambda: 0.0)
    source.feed_eof()
    assert len(await read(long)) == 65538
    assert len(answers) == 0


async def test_a_stream_that_nobody_may_keep_is_left_alone() -> None:
    answers, exchange = LastAnswers(), make_exchange()
    answer = streaming(fields=((b"Cache-Control", b"no-store"),))
    before = answer.body
    answers.keep(b"k", exchange, answer, lambda: 0.0)
    assert answer.body is before
    released: list[int] = []
    abandoned = Answer(
        200, b"OK", (), BodyStream(lambda: None, lambda: None, lambda: released.append(1))
    )
    answers.keep(b"k", exchange, abandoned, lambda: 0.0)
    abandoned.release()
    assert released == [1]


def test_the_least_recently_used_makes_room() -> None:
    answers = LastAnswers(max_entries=2)
    exchange = make_exchange()
    for key in (b"a", b"b"):
        answers.store(key, exchange, good(), 0.0)
    assert answers.find(b"a", 60.0, 0.0) is not None
    answers.store(b"c", exchange, good(), 0.0)
    assert answers.find(b"b", 60.0, 0.0) is None
    assert answers.find(b"a", 60.0, 0.0) is not None
    assert answers.counts["evicted"] == 1
    assert repr(answers) == f"<LastAnswers entries=2 bytes={answers.size}>"
    answers.clear()
    assert (len(answers), answers.size) == (0, 0)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=60))
def test_its_memory_is_bounded_and_counted(stores: list[tuple[int, int]]) -> None:
    answers = LastAnswers(max_bytes=8000, max_entries=5)
    exchange = make_exchange()
    for name, length in stores:
        answers.store(b"%d" % name, exchange, good(b"x" * length), 0.0)
        assert answers.size <= 8000
        assert len(answers) <= 5
        assert answers.size == sum(entry.size for entry in answers._entries.values())
