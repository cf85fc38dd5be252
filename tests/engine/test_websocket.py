"""A watched WebSocket: what scripts see and do, what each peer gets, and each way in which it may end."""

from __future__ import annotations

import asyncio
import types
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.websocket import WebSocketMessage
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import Opcode

from hms_addons.engine import websocket
from hms_addons.http_message import Answer, BodyStream
from tests.fakes.lane import settle
from tests.fakes.world import World, nothing

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.http import HTTPFlow
    from wsproto.events import Event

    from hms_addons.exchange import Exchange

UPGRADE = (
    b"GET /chat HTTP/1.1\r\nHost: a.svc\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
EVENTS = ("response", "websocket_start", "websocket_message", "websocket_end", "error")


class FakeTunnel:
    """Implements `Tunnel`: the upstream's side, played by the test."""

    def __init__(self) -> None:
        self.incoming = BodyStream(lambda: None, lambda: None)
        self.protocol = b"websocket"
        self.written = bytearray()
        self.eof = False
        self.closed = False
        self.room = asyncio.Event()
        self.room.set()

    def write(self, data: bytes) -> None:
        assert not self.eof
        self.written += data

    async def drain(self) -> None:
        await self.room.wait()

    def write_eof(self) -> None:
        self.eof = True

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.incoming.fail(ConnectionResetError("closed"))


class Chat:
    """A client and a server that speak WebSocket through a lane."""

    def __init__(
        self,
        extensions: str = "",
        *,
        watched: bool = True,
        **events: Callable[[HTTPFlow], Any],
    ) -> None:
        self.tunnel = FakeTunnel()
        fields: tuple[tuple[bytes, bytes], ...] = ((b"Sec-WebSocket-Accept", b"x"),)
        if extensions:
            fields += ((b"Sec-WebSocket-Extensions", extensions.encode()),)
        self.world = World(
            events={**dict.fromkeys(EVENTS, nothing), **events} if watched else None,
            forward=lambda exchange: Answer(101, b"", fields, tunnel=self.tunnel),
        )
        known = "" if extensions == "x-private" else extensions
        self.client = Connection(ConnectionType.CLIENT, self._extensions(known))
        self.server = Connection(ConnectionType.SERVER, self._extensions(known))
        self._read = 0

    @staticmethod
    def _extensions(offer: str) -> list[Any]:
        if not offer:
            return []
        deflate = PerMessageDeflate()
        deflate.finalize(offer)
        return [deflate]

    async def open(self, early: bytes = b"") -> None:
        self.world.connection.data_received(UPGRADE + early)
        await settle()
        head, end, _ = bytes(self.world.transport.sent).partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 ")
        self._read = len(head + end)

    async def up(self, *events: Event) -> list[Any]:
        """The client says this; what the server hears."""
        for event in events:
            self.world.connection.data_received(self.client.send(event))
        await settle()
        return self.server_hears()

    async def down(self, *events: Event) -> list[Any]:
        """The server says this; what the client hears."""
        for event in events:
            self.tunnel.incoming.feed(self.server.send(event))
        await settle()
        return self.client_hears()

    def server_hears(self) -> list[Any]:
        self.server.receive_data(bytes(self.tunnel.written))
        self.tunnel.written.clear()
        return list(self.server.events())

    def client_hears(self) -> list[Any]:
        data = bytes(self.world.transport.sent)[self._read :]
        self._read += len(data)
        self.client.receive_data(data)
        return list(self.client.events())

    @property
    def log(self) -> list[str]:
        """The events, from the answer on."""
        log = self.world.log
        return [name for name in log[log.index("response") :] if name in EVENTS]

    @property
    def exchange(self) -> Exchange:
        [exchange] = self.world.completed
        return exchange

    @property
    def data(self) -> Any:
        return self.exchange.flow.websocket

    async def over(self) -> None:
        """It has ended at both sides, told of once, with nothing left."""
        await settle()
        assert self.tunnel.closed
        assert self.world.transport.is_closing()
        assert self.log.count("websocket_end") == 1
        assert self.log[-1] == "websocket_end"
        assert self.world.events.live_connections == {}
        await self.world.end()


def text(data: str, *, last: bool = True) -> TextMessage:
    return TextMessage(data=data, message_finished=last)


def said(events: list[Any]) -> list[Any]:
    return [event.data for event in events]


@pytest.mark.parametrize("extensions", ["", "permessage-deflate; client_no_context_takeover"])
async def test_messages_go_both_ways_and_are_shown(extensions: str) -> None:
    seen: list[tuple[bool, bytes, bool]] = []

    def note(flow: HTTPFlow) -> None:
        assert flow.websocket is not None
        message = flow.websocket.messages[-1]
        seen.append((message.from_client, message.content, message.is_text))

    chat = Chat(extensions, websocket_message=note)
    await chat.open()
    assert chat.log == ["response", "websocket_start"]
    for word in ("hello", "wörld", "hello"):
        assert said(await chat.up(text(word))) == [word]
    assert said(await chat.down(BytesMessage(data=bytearray(b"\x00\xff")))) == [b"\x00\xff"]
    assert seen == [
        (True, b"hello", True),
        (True, "wörld".encode(), True),
        (True, b"hello", True),
        (False, b"\x00\xff", False),
    ]
    chat.world.transport.reset()
    await chat.over()
    assert (chat.data.close_code, chat.data.closed_by_client) == (1006, True)
    assert "error" not in chat.log
    assert len(chat.data.messages) == 4
    assert chat.exchange.bytes_in > 0
    assert chat.exchange.bytes_out > 0


async def test_the_flow_says_before_its_response_event_that_messages_follow() -> None:
    seen: list[Any] = []

    def response(flow: HTTPFlow) -> None:
        assert flow.response is not None
        headers = flow.response.headers
        seen.append((flow.websocket, headers["Upgrade"], headers["Connection"]))

    chat = Chat(response=response)
    await chat.open()
    [(data, upgrade, connection)] = seen
    assert (upgrade, connection) == ("websocket", "Upgrade")
    assert data is not None
    assert b"Upgrade: websocket\r\n" in bytes(chat.world.transport.sent)
    assert bytes(chat.world.transport.sent).count(b"Connection:") == 1
    chat.world.transport.reset()
    await chat.over()


async def test_what_came_with_the_request_is_the_first_message() -> None:
    chat = Chat()
    await chat.open(chat.client.send(text("early")))
    assert said(chat.server_hears()) == ["early"]
    chat.world.transport.reset()
    await chat.over()


async def test_a_script_edits_drops_and_asks_for_text_instead() -> None:
    def edit(flow: HTTPFlow) -> None:
        assert flow.websocket is not None
        message = flow.websocket.messages[-1]
        if message.content == b"drop":
            message.drop()
        elif message.content == b"bytes":
            message.type = Opcode.TEXT
        elif message.is_text:
            message.text = message.text.upper() * 1000

    chat = Chat(websocket_message=edit)
    await chat.open()
    heard = await chat.up(text("ä", last=False), text("bcdefg"), text("drop"), text("x"))
    assert "".join(said(heard)) == "ÄBCDEFG" * 1000 + "X" * 1000
    assert [event.message_finished for event in heard] == [False, True, True]
    [message] = await chat.down(BytesMessage(data=bytearray(b"bytes")))
    assert message.data == "bytes"
    chat.world.transport.reset()
    await chat.over()
    assert [message.dropped for message in chat.data.messages] == [False, True, False, False]


async def test_pings_and_pongs_pass_also_between_fragments() -> None:
    chat = Chat("permessage-deflate")
    await chat.open()
    heard = await chat.up(text("a", last=False), Ping(payload=b"?"), text("b"))
    assert heard[0] == Ping(payload=b"?")
    assert "".join(said(heard[1:])) == "ab"
    assert await chat.down(Pong(payload=b"?")) == [Pong(payload=b"?")]
    chat.world.transport.reset()
    await chat.over()
    assert [message.content for message in chat.data.messages] == [b"ab"]


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_close_passes_and_its_answer_comes_from_the_other_peer(who: str) -> None:
    chat = Chat()
    await chat.open()
    say, answer = (chat.up, chat.down) if who == "client" else (chat.down, chat.up)
    late = (chat.server if who == "client" else chat.client).send(text("late"))
    [close] = await say(CloseConnection(code=4001, reason="bye"))
    assert (close.code, close.reason) == (4001, "bye")
    if who == "client":
        chat.tunnel.incoming.feed(late)
    else:
        chat.world.connection.data_received(late)
    assert await answer(close.response()) == [CloseConnection(code=4001, reason="bye")]
    assert "websocket_end" not in chat.log
    chat.tunnel.incoming.feed_eof()
    await settle()
    assert chat.world.transport.eof
    chat.world.transport.leave()
    await chat.over()
    data = chat.data
    assert (data.close_code, data.close_reason, data.closed_by_client) == (
        *(4001, "bye"),
        who == "client",
    )
    assert data.timestamp_end is not None
    [message] = data.messages
    assert message.dropped, "who has said goodbye takes no more"
    assert chat.exchange.failure is None


@pytest.mark.parametrize("who", ["client", "server"])
async def test_what_is_no_websocket_ends_it_for_both(who: str) -> None:
    chat = Chat()
    await chat.open()
    if who == "client":
        chat.world.connection.data_received(b"\x81\x03abc")
    else:
        chat.tunnel.incoming.feed(b"\x81\x83abcdabc")
    await settle()
    for close in (*chat.server_hears(), *chat.client_hears()):
        assert isinstance(close, CloseConnection)
        assert close.code == 1002
    assert not chat.world.transport.aborted
    await chat.over()
    assert (chat.data.close_code, chat.data.closed_by_client) == (1002, who == "client")
    assert chat.exchange.failure is not None
    assert chat.exchange.failure.flag == ("DPE" if who == "client" else "UPE")


async def test_an_upstream_that_is_lost_cuts_the_client() -> None:
    chat = Chat()
    await chat.open()
    chat.tunnel.incoming.fail(ConnectionResetError("lost"))
    await chat.over()
    assert chat.world.transport.aborted
    assert (chat.data.close_code, chat.data.closed_by_client) == (1006, False)


async def test_a_half_close_is_told_on_and_the_rest_still_comes() -> None:
    chat = Chat()
    await chat.open()
    chat.world.transport.leave()
    await settle()
    assert chat.tunnel.eof
    assert said(await chat.down(text("last words"))) == ["last words"]
    chat.tunnel.incoming.feed_eof()
    await chat.over()
    assert not chat.world.transport.aborted
    assert (chat.data.close_code, chat.data.closed_by_client) == (1006, True)


async def test_a_held_message_waits_for_its_person_and_all_others_with_it() -> None:
    flows: list[HTTPFlow] = []

    def hold(flow: HTTPFlow) -> None:
        assert flow.websocket is not None
        if flow.websocket.messages[-1].content == b"hold":
            flow.intercept()
            flows.append(flow)

    chat = Chat(websocket_message=hold)
    await chat.open()
    assert await chat.up(text("hold"), text("next")) == []
    assert await chat.down(text("other way")) == []
    flow = flows[0]
    assert flow.websocket is not None
    flow.websocket.messages[-1].content = b"let go"
    flow.resume()
    await settle()
    assert said(chat.server_hears()) == ["let go", "next"]
    assert said(chat.client_hears()) == ["other way"]
    chat.world.transport.reset()
    await chat.over()


@pytest.mark.parametrize("event", ["websocket_start", "websocket_message"])
async def test_a_kill_cuts_both(event: str) -> None:
    kill = {event: lambda flow: flow.kill()}
    chat = Chat(
        websocket_start=kill.get("websocket_start", nothing),
        websocket_message=kill.get("websocket_message", nothing),
    )
    chat.world.connection.data_received(UPGRADE + chat.client.send(text("a")))
    await settle()
    assert chat.world.transport.aborted
    assert chat.tunnel.written == b""
    await chat.over()
    assert chat.log.count("error") == 1
    assert chat.exchange.failure is not None
    assert "killed" in chat.exchange.failure.detail


async def test_the_client_leaves_while_a_message_is_held() -> None:
    chat = Chat(websocket_message=lambda flow: flow.intercept())
    await chat.open()
    assert await chat.up(text("a")) == []
    chat.world.transport.reset()
    await chat.over()
    assert not chat.exchange.flow.intercepted


@pytest.mark.parametrize("from_client", [True, False])
async def test_a_message_is_injected(from_client: bool) -> None:
    chat = Chat("permessage-deflate")
    await chat.open()
    await chat.up(text("a"))
    [(_, relay)] = chat.world.events.live_connections.items()
    assert repr(relay) == "<WebSocketRelay messages=1>"
    injected = types.SimpleNamespace(
        message=WebSocketMessage(Opcode.TEXT, from_client, b"injected")
    )
    await relay.server_event(injected)
    heard = chat.server_hears() if from_client else chat.client_hears()
    assert said(heard) == ["injected"]
    assert said(await (chat.up if from_client else chat.down)(text("b"))) == ["b"]
    assert chat.log.count("websocket_message") == 3
    chat.world.transport.reset()
    await chat.over()
    assert [message.injected for message in chat.data.messages] == [False, True, False]
    await relay.server_event(injected)
    assert len(chat.data.messages) == 3, "it is over"


async def test_a_long_message_passes_unseen_and_nothing_gets_into_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    chat = Chat()
    await chat.open()
    piece = "x" * 400_000
    heard = await chat.up(*(text(piece, last=False) for _ in range(4)))
    assert sum(len(data) for data in said(heard)) == 1_600_000
    [relay] = chat.world.events.live_connections.values()
    await relay.server_event(
        types.SimpleNamespace(message=WebSocketMessage(Opcode.TEXT, True, b"no"))
    )
    assert said(await chat.up(text("end"), text("next"))) == ["end", "next"]
    assert "passed on unseen" in caplog.text
    assert "not injected" in caplog.text
    chat.world.transport.reset()
    await chat.over()
    assert [message.content for message in chat.data.messages] == [b"next"]


async def test_of_many_messages_the_newer_ones_are_kept() -> None:
    chat = Chat()
    await chat.open()
    count = websocket.KEPT_MESSAGES + 1
    await chat.up(*(text(str(n)) for n in range(count)))
    for _ in range(100):
        await settle()
    chat.world.transport.reset()
    await chat.over()
    messages = chat.data.messages
    assert len(messages) == count - count // 2
    assert messages[-1].content == b"%d" % (count - 1)


async def test_of_large_messages_the_newer_ones_are_kept() -> None:
    chat = Chat()
    await chat.open()
    size = 1_000_000
    for _ in range(20):
        await chat.up(BytesMessage(data=bytearray(size)))
    chat.world.transport.reset()
    await chat.over()
    assert websocket.KEPT_BYTES // 2 - size <= size * len(chat.data.messages)
    assert size * len(chat.data.messages) <= websocket.KEPT_BYTES


async def test_a_peer_that_does_not_read_holds_up_the_other_but_not_itself() -> None:
    chat = Chat()
    await chat.open()
    chat.tunnel.room.clear()
    for _ in range(40):
        chat.world.connection.data_received(chat.client.send(text("x" * 15_000)))
    await settle()
    assert not chat.world.transport.reading, "the client is not read any more"
    assert len(chat.tunnel.written) < 40_000
    assert said(await chat.down(text("still heard"))) == ["still heard"]
    chat.tunnel.room.set()
    await settle(100)
    assert chat.world.transport.reading
    assert len(chat.server_hears()) >= 40
    chat.world.transport.reset()
    await chat.over()


async def test_unwatched_or_unknown_it_is_a_plain_tunnel() -> None:
    for chat in (Chat(watched=False), Chat("x-private")):
        chat.world.connection.data_received(UPGRADE + b"no websocket")
        await settle()
        assert chat.tunnel.written == b"no websocket"
        assert chat.world.events.live_connections == {}
        chat.world.transport.reset()
        await settle()
        assert chat.tunnel.closed
        assert "websocket_start" not in chat.world.log
        await chat.world.end()


async def test_a_tunnel_that_is_refused_later_is_closed_with_1008_to_both() -> None:
    chat = Chat()
    await chat.open()
    world = chat.world
    (close,) = world.lane.tunnels._closers.values()
    close()
    close()
    await settle()
    (at_client,), (at_server,) = chat.client_hears(), chat.server_hears()
    assert isinstance(at_client, CloseConnection)
    assert (at_client.code, at_client.reason) == (1008, "the policy has changed")
    assert isinstance(at_server, CloseConnection)
    assert at_server.code == 1008
    assert world.transport.is_closing()
    assert chat.tunnel.closed
    assert len(world.lane.tunnels) == 0
    websocket_data = world.completed[0].flow.websocket
    assert websocket_data is not None
    assert (websocket_data.close_code, websocket_data.closed_by_client) == (1008, False)


async def test_a_client_that_does_not_read_is_cut_off_when_it_is_refused() -> None:
    chat = Chat()
    await chat.open()
    chat.world.connection.pause_writing()
    chat.tunnel.incoming.feed(chat.server.send(TextMessage("x")))
    await settle()
    (close,) = chat.world.lane.tunnels._closers.values()
    close()
    await settle()
    assert chat.world.transport.is_closing()
    assert chat.tunnel.closed
