from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons import http_message as module
from hms_addons.http_message import (
    HIGH_WATER,
    Answer,
    BodyStream,
    FilteredStream,
    append_lines,
    get_field,
    lower_name,
    set_field,
    without_fields,
)

if TYPE_CHECKING:
    from hms_addons.http_message import Fields

NAMES = st.sampled_from([b"Host", b"host", b"X-A", b"x-a", b"X-B", b"Set-Cookie"])
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=4))).map(tuple)


@given(st.lists(st.binary(max_size=100)))
def test_a_lowered_name_is_what_it_was(names: list[bytes]) -> None:
    assert [lower_name(name) for name in names * 2] == [name.lower() for name in names * 2]


def test_lowered_names_are_remembered_within_bounds() -> None:
    for number in range(3 * module._MOST_LOWERED):
        lower_name(b"X-%d" % number)
    lower_name(b"X" * 10_000)
    assert len(module._lowered) <= module._MOST_LOWERED
    assert max(map(len, module._lowered)) <= module._LONGEST_LOWERED


@given(FIELDS)
def test_header_lines(fields: Fields) -> None:
    parts = [b"first"]
    append_lines(parts, fields)
    assert b"".join(parts) == b"first" + b"".join(
        name + b": " + value + b"\r\n" for name, value in fields
    )


class Producer:
    """The producer's end of a `BodyStream`: counts what it is asked to do."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.reading = True
        self.stream = BodyStream(self._pause, self._resume, self._abandon)

    def _pause(self) -> None:
        assert self.reading, "paused twice"
        self.reading = False
        self.calls["pause"] += 1

    def _resume(self) -> None:
        assert not self.reading, "resumed without having been paused"
        self.reading = True
        self.calls["resume"] += 1

    def _abandon(self) -> None:
        self.calls["abandon"] += 1


@pytest.fixture
def producer() -> Producer:
    return Producer()


async def ready(task: asyncio.Task[bytes]) -> bool:
    """Whether a reader that is given a few turns of the loop gets on."""
    for _ in range(3):
        await asyncio.sleep(0)
    return task.done()


# -- fields ----------------------------------------------------------------------------------------


@given(FIELDS, NAMES)
def test_get_field_finds_the_first_in_any_spelling(fields: Fields, name: bytes) -> None:
    lower = name.lower()
    values = [value for known, value in fields if known.lower() == lower]
    assert get_field(fields, lower) == (values[0] if values else None)


@given(FIELDS, st.frozensets(NAMES))
def test_without_fields_takes_all_of_those_and_no_other(
    fields: Fields, names: frozenset[bytes]
) -> None:
    lower = {name.lower() for name in names}
    left = without_fields(fields, lower)
    assert not any(name.lower() in lower for name, _ in left)
    assert list(left) == [field for field in fields if field[0].lower() not in lower]


@given(FIELDS, NAMES, st.binary(max_size=4))
def test_set_field_leaves_exactly_one(fields: Fields, name: bytes, value: bytes) -> None:
    changed = set_field(fields, name, value)
    assert changed[-1] == (name, value)
    assert changed[:-1] == without_fields(fields, {name.lower()})


# -- body streams ----------------------------------------------------------------------------------


async def test_pieces_come_as_they_were_fed_then_the_end_for_good(producer: Producer) -> None:
    stream = producer.stream
    for piece in (b"one", b"two"):
        stream.feed(piece)
    stream.feed_eof()
    assert [await stream.read() for _ in range(4)] == [b"one", b"two", b"", b""]
    assert stream.received == 6
    assert producer.calls == Counter()


async def test_a_reader_waits_for_the_next_piece(producer: Producer) -> None:
    task = asyncio.ensure_future(producer.stream.read())
    assert not await ready(task)
    producer.stream.feed(b"late")
    assert await task == b"late"


async def test_trailers_are_there_at_the_end(producer: Producer) -> None:
    stream = producer.stream
    stream.feed(b"x")
    assert not stream.trailers
    stream.feed_eof(((b"X-Sum", b"7"),))
    assert [piece async for piece in stream] == [b"x"]
    assert stream.trailers == ((b"X-Sum", b"7"),)
    assert stream.complete


async def test_the_end_wakes_a_reader(producer: Producer) -> None:
    task = asyncio.ensure_future(producer.stream.read())
    assert not await ready(task)
    producer.stream.feed_eof()
    assert await task == b""


async def test_a_failure_comes_after_what_has_arrived_and_each_time(producer: Producer) -> None:
    stream = producer.stream
    stream.feed(b"half")
    stream.fail(ConnectionResetError("gone"))
    assert stream.ended
    assert not stream.complete
    assert await stream.read() == b"half"
    for _ in range(2):
        with pytest.raises(ConnectionResetError, match="gone"):
            await stream.read()


async def test_a_failure_wakes_a_reader(producer: Producer) -> None:
    task = asyncio.ensure_future(producer.stream.read())
    assert not await ready(task)
    producer.stream.fail(ConnectionResetError("gone"))
    with pytest.raises(ConnectionResetError):
        await task


async def test_nothing_counts_after_the_end(producer: Producer) -> None:
    stream = producer.stream
    stream.feed_eof(((b"X-Sum", b"7"),))
    stream.feed(b"more")
    stream.fail(ConnectionResetError("gone"))
    stream.feed_eof()
    assert await stream.read() == b""
    assert stream.complete
    assert stream.trailers == ((b"X-Sum", b"7"),)
    assert stream.received == 0


async def test_the_producer_is_paused_above_the_mark_and_goes_on_when_all_is_taken(
    producer: Producer,
) -> None:
    stream = producer.stream
    stream.feed(b"x" * HIGH_WATER)
    assert producer.reading
    stream.feed(b"y")
    assert not producer.reading
    stream.feed(b"z")  # what the socket read had already brought
    assert "paused" in repr(stream)
    await stream.read()
    await stream.read()
    assert not producer.reading
    await stream.read()
    assert producer.reading
    stream.feed(b"x" * (HIGH_WATER + 1))
    assert producer.calls == {"pause": 2, "resume": 1}


async def test_close_abandons_once(producer: Producer) -> None:
    stream = producer.stream
    stream.feed(b"x" * (HIGH_WATER + 1))
    stream.close()
    stream.close()
    assert producer.calls == {"pause": 1, "resume": 1, "abandon": 1}
    stream.feed(b"more")
    assert "buffered=0" in repr(stream)


async def test_what_was_given_up_does_not_look_whole(producer: Producer) -> None:
    """A pump that is still at it would end the message, and pass a part off as the whole."""
    stream = producer.stream
    stream.feed(b"half")
    stream.close()
    assert not stream.complete
    with pytest.raises(ConnectionAbortedError, match="given up"):
        await stream.read()


async def test_close_after_the_last_piece_was_read_is_the_end_still(producer: Producer) -> None:
    producer.stream.feed(b"all")
    producer.stream.feed_eof()
    assert await producer.stream.read() == b"all"
    producer.stream.close()
    assert await producer.stream.read() == b""
    assert producer.stream.complete


async def test_close_of_a_whole_body_abandons_nothing(producer: Producer) -> None:
    producer.stream.feed(b"x" * (HIGH_WATER + 1))
    producer.stream.feed_eof()
    producer.stream.close()
    assert producer.reading
    assert producer.calls["abandon"] == 0


async def test_close_of_a_failed_body_abandons_nothing(producer: Producer) -> None:
    producer.stream.fail(ConnectionResetError("gone"))
    producer.stream.close()
    assert producer.calls["abandon"] == 0


async def test_close_without_anybody_to_tell() -> None:
    BodyStream(lambda: None, lambda: None).close()


async def test_close_lets_a_reader_go(producer: Producer) -> None:
    """Whoever closes and whoever reads may be two: the reader must not wait for ever."""
    task = asyncio.ensure_future(producer.stream.read())
    assert not await ready(task)
    producer.stream.close()
    assert await ready(task)
    with pytest.raises(ConnectionAbortedError):
        await task


async def test_a_cancelled_reader_loses_nothing(producer: Producer) -> None:
    task = asyncio.ensure_future(producer.stream.read())
    assert not await ready(task)
    producer.stream.feed(b"kept")
    task.cancel()  # between the waking and the running
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await producer.stream.read() == b"kept"


@given(
    st.lists(
        st.one_of(st.integers(min_value=1, max_value=HIGH_WATER), st.just("read")), max_size=30
    )
)
def test_what_waits_is_bounded_by_the_mark_and_one_piece(steps: list[int | str]) -> None:
    async def run() -> None:
        producer = Producer()
        waiting: list[int] = []
        for step in steps:
            if isinstance(step, int) and producer.reading:
                producer.stream.feed(bytes(step))
                waiting.append(step)
            elif step == "read" and waiting:
                assert len(await producer.stream.read()) == waiting.pop(0)
            assert f"buffered={sum(waiting)}" in repr(producer.stream)
            if not waiting:
                assert producer.reading
            if producer.reading and waiting:
                assert sum(waiting) <= HIGH_WATER

    asyncio.run(run())


# -- answers ---------------------------------------------------------------------------------------


def test_a_held_body_gives_the_length() -> None:
    assert Answer(200, b"OK", (), b"four").length == 4
    assert Answer(204, b"No Content", ()).length == 0


async def test_a_filtered_stream_gives_what_its_function_makes_of_another() -> None:
    left: list[str] = []
    source = BodyStream(lambda: None, lambda: None, lambda: left.append("left"))
    source.feed(b"a")

    async def pull(stream: FilteredStream) -> bytes:
        data = await source.read()
        if not data:
            stream.trailers = ((b"X-Sum", b"1"),)
        return data.upper()

    stream = FilteredStream(source, pull)
    assert await stream.read() == b"A"
    stream.close()
    assert left == ["left"]
    source = BodyStream(lambda: None, lambda: None)
    source.feed(b"b")
    source.feed_eof()
    stream = FilteredStream(source, pull)
    assert [piece async for piece in stream] == [b"B"]
    assert stream.trailers == ((b"X-Sum", b"1"),)


def test_an_answer_to_head_keeps_the_length_a_get_would_have_had() -> None:
    assert Answer(200, b"OK", (), b"", length=1000).length == 1000


def test_a_streams_length_is_what_its_framing_said(producer: Producer) -> None:
    assert Answer(200, b"OK", (), producer.stream).length is None
    assert Answer(200, b"OK", (), producer.stream, length=7).length == 7


class FarSide:
    """A `Tunnel` that knows whether it is closed."""

    def __init__(self) -> None:
        self.incoming = BodyStream(lambda: None, lambda: None)
        self.protocol = b"chat"
        self.closed = False

    def write(self, data: bytes) -> None:
        raise AssertionError

    async def drain(self) -> None:
        raise AssertionError

    def write_eof(self) -> None:
        raise AssertionError

    def close(self) -> None:
        self.closed = True


def test_release_gives_up_stream_and_tunnel(producer: Producer) -> None:
    Answer(200, b"OK", (), b"held").release()
    Answer(200, b"OK", (), producer.stream).release()
    assert producer.calls["abandon"] == 1
    tunnel = FarSide()
    Answer(101, b"Switching Protocols", (), tunnel=tunnel).release()
    assert tunnel.closed


def test_repr_of_an_answer(producer: Producer) -> None:
    assert repr(Answer(200, b"OK", (), b"four", local=True)) == "<Answer 200 4 bytes local>"
    assert repr(Answer(200, b"OK", (), producer.stream)) == (
        "<Answer 200 <BodyStream open buffered=0>>"
    )
