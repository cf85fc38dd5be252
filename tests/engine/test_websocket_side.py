"""What frames mean, what becomes of long messages, and which bytes say the same to the other peer."""

from __future__ import annotations

import random
import types
import zlib
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import Opcode

from hms_addons.engine.flow_events import FlowEvents
from hms_addons.engine.websocket_side import (
    FRAGMENT,
    Part,
    Side,
    Whole,
    frames_of,
    make_data,
    negotiated,
)
from hms_addons.http_message import Answer, BodyStream
from tests.fakes.exchange import make_exchange

if TYPE_CHECKING:
    from wsproto.events import Event

    from hms_addons.engine.websocket_side import Received
    from hms_addons.http_message import Fields

DEFLATE = ((b"Sec-WebSocket-Extensions", b"permessage-deflate"),)
SMALL = (
    (
        b"Sec-WebSocket-Extensions",
        b"permessage-deflate; client_max_window_bits=9; server_no_context_takeover",
    ),
)
LIMIT = 1000


def pair(fields: Fields = (), limit: int = LIMIT) -> tuple[Connection, Side]:
    """A client, and the side that faces it."""
    extensions: list[Any] = []
    if fields:
        deflate = PerMessageDeflate()
        deflate.finalize(fields[0][1].decode())
        extensions.append(deflate)
    side = Side(ConnectionType.CLIENT, fields, limit)
    return Connection(ConnectionType.CLIENT, extensions), side


def heard(side: Side, *data: bytes) -> list[Received]:
    return [received for piece in data for received in side.receive(piece)]


def text(data: str, *, last: bool = True) -> TextMessage:
    return TextMessage(data=data, message_finished=last)


def raw(data: bytes, *, last: bool = True) -> BytesMessage:
    return BytesMessage(data=bytearray(data), message_finished=last)


@pytest.mark.parametrize("fields", [(), DEFLATE, SMALL], ids=["plain", "deflate", "small"])
def test_messages_come_whole_in_their_frames_and_go_on_in_them(fields: Fields) -> None:
    client, side = pair(fields)
    sent: list[Event] = [
        raw(b"one"),
        text("zw", last=False),
        text("", last=False),
        text("ö\U0001f347lf"),
    ]
    received = heard(side, *(client.send(event) for event in sent))
    assert received[0] == Whole([b"one"])
    whole = received[1]
    assert isinstance(whole, Whole)
    if not fields:  # wsproto's compressor does not respect them
        assert whole.frames == ["zw", "", "ö\U0001f347lf"]
    assert (whole.opcode, whole.content.decode()) == (Opcode.TEXT, "zwö\U0001f347lf")
    client.receive_data(side.message(whole.frames))
    told: list[Any] = list(client.events())
    assert "".join(event.data for event in told) == "zwö\U0001f347lf"
    assert [event.message_finished for event in told if event.frame_finished] == [
        *(False, False, True)
    ]


@pytest.mark.parametrize("fields", [(), DEFLATE], ids=["plain", "deflate"])
def test_a_message_comes_whole_however_its_bytes_are_cut(fields: Fields) -> None:
    client, side = pair(fields, limit=100_000)
    sent = client.send(text("ä" * 100)) + client.send(raw(bytes(range(256))))
    received = heard(side, *(sent[at : at + 1] for at in range(len(sent))))
    assert received == [Whole(["ä" * 100]), Whole([bytes(range(256))])]


@pytest.mark.parametrize("fields", [(), DEFLATE], ids=["plain", "deflate"])
def test_a_ping_between_the_fragments_of_a_message(fields: Fields) -> None:
    """wsproto 1.3 takes the rest of a compressed message for a plain one."""
    client, side = pair(fields)
    events: list[Event] = [text("abc" * 50, last=False), Ping(payload=b"?"), Pong(), text("end")]
    received = heard(side, *(client.send(event) for event in events))
    assert received[:2] == [Ping(payload=b"?"), Pong(payload=b"")]
    [whole] = received[2:]
    assert isinstance(whole, Whole)
    assert whole.content == b"abc" * 50 + b"end"


def test_a_message_that_is_too_long_passes_in_pieces() -> None:
    client, side = pair()
    _, other = pair()
    frames = [b"a" * 400] * 5
    data = [client.send(raw(frame, last=at == 4)) for at, frame in enumerate(frames)]
    received = heard(side, *data)
    assert received == [Part(b"a" * 1200, False), Part(b"a" * 400, False), Part(b"a" * 400, True)]
    assert repr(side) == "<Side OPEN held=0>"
    for part in received:
        assert isinstance(part, Part)
        client.receive_data(other.part(part))
        assert other.sending_parts == (not part.last)
    told: list[Any] = list(client.events())
    assert b"".join(event.data for event in told) == b"".join(frames)
    assert [event.message_finished for event in told] == [False, False, True]
    assert heard(side, client.send(text("next"))) == [Whole(["next"])]


def test_one_long_frame_passes_in_pieces_too_with_its_characters_whole() -> None:
    client, side = pair()
    sent = client.send(text("ä" * 3000))
    received = heard(side, *(sent[at : at + 501] for at in range(0, len(sent), 501)))
    assert len(received) > 5
    assert all(isinstance(part, Part) for part in received)
    assert "".join(str(part.data) for part in received if isinstance(part, Part)) == "ä" * 3000


@pytest.mark.parametrize("kind", ["empty frames", "single bytes"])
def test_what_is_held_is_bounded_by_what_it_costs(kind: str) -> None:
    client, side = pair(limit=10_000)
    if kind == "empty frames":
        data = b"".join(client.send(raw(b"", last=False)) for _ in range(1000))
    else:
        data = client.send(raw(b"x" * 1000))
    received = heard(side, *(data[at : at + 1] for at in range(len(data))))
    assert isinstance(received[0], Part)


def test_a_close_is_told_and_nothing_after_it() -> None:
    client, side = pair()
    data = client.send(CloseConnection(code=1001, reason="bye")) + b"\x81\x80abcd"
    assert heard(side, data, b"\x81\x80abcd") == [CloseConnection(code=1001, reason="bye")]
    assert not side.broken
    assert side.message(["too late"]) == b""
    assert side.part(Part(b"too late", last=True)) == b""
    assert side.control(Ping()) == b""
    client.receive_data(side.control(CloseConnection(code=1000)))
    assert list(client.events()) == [CloseConnection(code=1000, reason="")]
    assert side.control(CloseConnection(code=1000)) == b"", "once"
    assert repr(side) == "<Side CLOSED held=0>"


def test_after_our_close_its_answer_and_what_came_before_are_heard() -> None:
    client, side = pair()
    late = client.send(text("late"))
    client.receive_data(side.control(CloseConnection(code=1000)))
    [close] = list(client.events())
    assert isinstance(close, CloseConnection)
    received = heard(side, late, client.send(close.response()))
    assert received == [Whole(["late"]), CloseConnection(code=1000, reason="")]
    assert not side.broken


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x03abc", 1002),  # not masked
        (b"\xc1\x80abcd", 1002),  # compressed, which was not agreed on
        (b"\x83\x80abcd", 1002),  # an opcode that does not exist
        (b"\x80\x80abcd", 1002),  # a continuation of nothing
        (b"\x89\xfe\x01\x00abcd", 1002),  # a long ping
        (b"\x81\x81\x00\x00\x00\x00\xff", 1007),  # no UTF-8
        (b"GET / HTTP/1.1\r\n\r\n", 1002),
    ],
)
def test_what_is_no_websocket_breaks_it(data: bytes, code: int) -> None:
    _, side = pair()
    [close] = heard(side, data, b"\x81\x80abcd")
    assert isinstance(close, CloseConnection)
    assert close.code == code
    assert side.broken
    assert side.control(close)[:1] == b"\x88", "the peer may be told"


@pytest.mark.parametrize("control", [False, True])
def test_bad_compression_breaks_it(control: bool) -> None:
    _, side = pair(DEFLATE)
    first = b"\xc9" if control else b"\xc1"
    [close] = heard(side, first + b"\x84\x00\x00\x00\x00\xff\xff\xff\xff")
    assert isinstance(close, CloseConnection)
    assert side.broken


def test_a_bomb_costs_no_more_than_its_slice_unpacks_to() -> None:
    _, side = pair(DEFLATE)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(100_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    frame = b"\xc2\xff" + len(bomb).to_bytes(8) + b"\x00" * 4 + bomb
    largest = 0
    for at in range(0, len(frame), 4096):
        for part in heard(side, frame[at : at + 4096]):
            assert isinstance(part, Part)
            largest = max(largest, len(part.data))
    assert 0 < largest < 5_000_000


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (None, 0),
        (b"", 0),
        (b"permessage-deflate", 1),
        (b"permessage-deflate; server_max_window_bits=10", 1),
        (b"permessage-deflate; server_max_window_bits=8", None),
        (b"permessage-deflate; server_max_window_bits", None),
        (b"permessage-deflate, permessage-deflate", None),
        (b"x-webkit-deflate-frame", None),
        (b"permessage-deflate, bbf-usp-protocol", None),
        (b"\xff", None),
    ],
)
def test_which_extensions_are_known(value: bytes | None, count: int | None) -> None:
    fields = ((b"X", b"y"),) if value is None else ((b"sec-websocket-EXTENSIONS", value),)
    found = negotiated(fields)
    assert (None if found is None else len(found)) == count


def test_an_untouched_message_keeps_its_frames_and_an_edited_one_is_cut_anew() -> None:
    whole = Whole(["a", "ä" * 5000])
    assert frames_of(whole.content, Opcode.TEXT, whole) is whole.frames
    edited = frames_of("ä".encode() * 5001, Opcode.TEXT, whole)
    assert [len(frame) for frame in edited] == [FRAGMENT, 1001]
    assert set("".join(map(str, edited))) == {"ä"}
    assert frames_of(b"x", Opcode.BINARY) == [b"x"]
    assert frames_of(b"", Opcode.TEXT) == [""]
    assert frames_of(b"\xff", Opcode.TEXT) == ["\ufffd"], "text is UTF-8, whatever a script says"
    single = Whole([b"a" * 9000])
    assert frames_of(b"b" * 9000, Opcode.BINARY, single) == [b"b" * 9000]
    assert frames_of(b"a" * 9000, Opcode.TEXT, single) == ["a" * 9000]


@given(st.data())
def test_whatever_is_said_arrives(data: st.DataObject) -> None:
    fields = data.draw(st.sampled_from([(), DEFLATE, SMALL]))
    client, side = pair(fields, data.draw(st.integers(0, 500)))
    server_side = Side(ConnectionType.SERVER, fields, 100)
    server = pair(fields)[1]  # reads as a server does
    said = data.draw(
        st.lists(st.lists(st.text(max_size=300), min_size=1, max_size=4), min_size=1, max_size=5)
    )
    wire = b"".join(
        client.send(text(frame, last=at == len(frames) - 1))
        for frames in said
        for at, frame in enumerate(frames)
    )
    rng = random.Random(data.draw(st.integers(0, 100)))
    out = b""
    while wire:
        size = rng.randint(1, 400)
        for received in side.receive(wire[:size]):
            if isinstance(received, Whole):
                out += server_side.message(received.frames)
            else:
                assert isinstance(received, Part)
                out += server_side.part(received)
        wire = wire[size:]
    found, current = [], ""
    for received in heard(server, out):
        pieces = received.frames if isinstance(received, Whole) else [received.data]  # type: ignore[union-attr] # a Part
        current += "".join(map(str, pieces))
        if isinstance(received, Whole) or received.last:  # type: ignore[union-attr] # a Part
            found.append(current)
            current = ""
    assert found == ["".join(frames) for frames in said]


class NoTunnel:
    """A `Tunnel` that nothing is sent through."""

    incoming = BodyStream(lambda: None, lambda: None)

    def __init__(self, protocol: bytes = b"websocket") -> None:
        self.protocol = protocol

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...

    def write_eof(self) -> None: ...

    def close(self) -> None: ...


@pytest.mark.parametrize(
    ("offer", "chosen", "version", "shown"),
    [
        (b"websocket", b"websocket", b"13", True),
        (b"WebSocket", b"WebSocket", b"13", True),
        (b"chat", b"chat", b"13", False),
        (b"chat, websocket", b"websocket", b"13", True),
        (b"chat, websocket", b"chat", b"13", False),
        (b"websocket", b"websocket", b"8", False),
    ],
)
def test_which_upgrades_are_shown(offer: bytes, chosen: bytes, version: bytes, shown: bool) -> None:
    exchange = make_exchange()
    exchange.head = {b"upgrade": offer, b"sec-websocket-version": version}
    answer = Answer(101, b"", (), tunnel=NoTunnel(chosen))
    events = FlowEvents()
    assert (make_data(exchange, answer, events) is not None) == shown
    events.options = types.SimpleNamespace(websocket=False)
    assert make_data(exchange, answer, events) is None


def test_unknown_extensions_and_plain_answers_are_not_shown(
    caplog: pytest.LogCaptureFixture,
) -> None:
    exchange = make_exchange()
    exchange.head = {b"upgrade": b"websocket", b"sec-websocket-version": b"13"}
    fields = ((b"Sec-WebSocket-Extensions", b"x-private"),)
    assert make_data(exchange, Answer(200, b"", ()), FlowEvents()) is None
    assert not caplog.records
    answer = Answer(101, b"", fields, tunnel=NoTunnel())
    assert make_data(exchange, answer, FlowEvents()) is None
    assert "not known here" in caplog.text
