"""A WebSocket through two sidecars in one mitmweb: a real client, a real server, and who watches them.

The client's messages pass the outbound listener, mutual TLS, and the inbound listener before the app.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Ping,
    Pong,
    Request,
    TextMessage,
)
from wsproto.extensions import PerMessageDeflate

from tests.integration.basics import Closing, until
from tests.integration.clients import Connection
from tests.integration.mitm_kit import Desk, mitmweb_desk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.servers import Visit

CHAT = "/verify-id/chat?host=auth-svc.svc"


async def chat(visit: Visit) -> bool:
    """Says every message back in capitals; a server that knows permessage-deflate."""
    ws = WSConnection(ConnectionType.SERVER)
    fields = [(name.encode(), value.encode()) for name, value in visit.request.fields]
    ws.initiate_upgrade_connection(fields, visit.request.target)
    whole = ""
    data = b""
    while True:
        for event in ws.events():
            if isinstance(event, Request):
                accept = AcceptConnection(extensions=[PerMessageDeflate()])
                await visit.send(ws.send(accept))
            elif isinstance(event, TextMessage):
                whole += event.data
                if event.message_finished:
                    await visit.send(ws.send(TextMessage(data=whole.upper())))
                    whole = ""
            elif isinstance(event, BytesMessage):
                # As they come: the client has to put them together.
                answer = BytesMessage(data=event.data, message_finished=event.message_finished)
                await visit.send(ws.send(answer))
            elif isinstance(event, Ping):
                await visit.send(ws.send(event.response()))
            elif isinstance(event, CloseConnection):
                await visit.send(ws.send(event.response()))
                return False
        data = await visit.reader.read(65536)
        if not data:
            return False
        ws.receive_data(data)


class Client(Closing):
    """A WebSocket client on a socket."""

    def __init__(self, desk: Desk, *, compressed: bool) -> None:
        self._connection = Connection(desk.files.out)
        self._ws = WSConnection(ConnectionType.CLIENT)
        fields = [(name.encode(), value.encode()) for name, value in desk.files.token().items()]
        self.say(
            Request(
                host="mesh.test",
                target=CHAT,
                extensions=[PerMessageDeflate()] if compressed else [],
                extra_headers=fields,
            )
        )
        accepted = self.hear()
        assert isinstance(accepted, AcceptConnection)
        assert bool(accepted.extensions) == compressed

    def close(self) -> None:
        self._connection.close()

    def say(self, *events: Any) -> None:
        self._connection.send(b"".join(self._ws.send(event) for event in events))

    def hear(self) -> Any:
        """The next event; what a message's pieces say, as one."""
        whole: Any = None
        while True:
            for event in self._ws.events():
                if not isinstance(event, TextMessage | BytesMessage):
                    return event
                data = event.data
                whole = data if whole is None else whole + data
                if event.message_finished:
                    return whole
            self._ws.receive_data(self._connection.sock.recv(65536) or None)

    def end(self) -> None:
        """Say goodbye, and be told so."""
        self.say(CloseConnection(code=1000, reason="done"))
        assert self.hear() == CloseConnection(code=1000, reason="done")
        assert self._connection.ended


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with mitmweb_desk(tmp_path_factory.mktemp("websocket")) as desk:
        desk.app.on("/verify-id/chat", chat)
        yield desk


@pytest.fixture
def desk(running: Desk) -> Iterator[Desk]:
    yield running
    running.web.set(intercept="")
    running.web.send("POST", "/flows/resume")
    running.web.send("POST", "/clear")


def ended(desk: Desk) -> list[dict[str, Any]]:
    """Both hops' flows, the caller's first, once their WebSockets are over."""

    def found() -> list[dict[str, Any]]:
        flows = [
            flow for flow in desk.web.flows() if flow.get("websocket", {}).get("timestamp_end")
        ]
        return flows if len(flows) == 2 else []

    flows = until(found, "two WebSockets that are over")
    return sorted(flows, key=lambda flow: flow["client_conn"]["sockname"][1] != desk.files.out)


def shown(desk: Desk, flow: dict[str, Any]) -> list[tuple[bool, str]]:
    messages = desk.web.get(f"/flows/{flow['id']}/messages/content/raw.json")
    return [(message["from_client"], message["text"]) for message in messages]


@pytest.mark.parametrize("compressed", [False, True], ids=["plain", "deflate"])
def test_mitmweb_shows_the_messages_of_both_hops(desk: Desk, compressed: bool) -> None:
    with Client(desk, compressed=compressed) as client:
        client.say(TextMessage(data="hello "), TextMessage(data="wörld"))
        assert client.hear() == "HELLO "
        assert client.hear() == "WÖRLD"
        client.say(TextMessage(data="in ", message_finished=False), Ping(payload=b"?"))
        assert client.hear() == Pong(payload=b"?")
        client.say(TextMessage(data="two"))
        assert client.hear() == "IN TWO"
        client.end()
    words = ["hello ", "HELLO ", "wörld", "WÖRLD", "in two", "IN TWO"]
    for flow in ended(desk):
        assert sorted(shown(desk, flow)) == sorted((word.islower(), word) for word in words), flow[
            "comment"
        ]
        assert flow["websocket"]["messages_meta"]["count"] == 6
        assert flow["websocket"]["closed_by_client"]
        assert (flow["websocket"]["close_code"], flow["websocket"]["close_reason"]) == (
            1000,
            "done",
        )
        assert "error" not in flow
        assert "flag=" not in flow["comment"]
    saved = desk.web.saved()
    assert [len(flow.websocket.messages) for flow in saved if flow.websocket] == [6, 6]


def test_a_long_binary_message_passes_whole(desk: Desk) -> None:
    data = bytes(range(256)) * 12_000  # over `buffer_limit`
    with Client(desk, compressed=True) as client:
        client.say(BytesMessage(data=bytearray(data)))
        assert client.hear() == data
        client.say(TextMessage(data="after it"))
        assert client.hear() == "AFTER IT"
        client.end()
    for flow in ended(desk):
        assert shown(desk, flow) == [(True, "after it"), (False, "AFTER IT")]


def test_a_person_holds_a_message_and_another_is_injected(desk: Desk) -> None:
    with Client(desk, compressed=True) as client:
        client.say(TextMessage(data="first"))
        assert client.hear() == "FIRST"
        outbound = desk.outbound()
        desk.web.set(intercept="~websocket & ~b held")
        client.say(TextMessage(data="held"))
        held = desk.web.held()
        assert held["id"] == outbound["id"]
        assert [message for _, message in shown(desk, held)] == ["first", "FIRST", "held"]
        desk.web.set(intercept="")
        desk.web.do(held, "resume")
        assert client.hear() == "HELD"
        desk.web.command("inject.websocket", "~comment outbound", "true", "injected", "true")
        assert client.hear() == "injected"
        client.end()
    caller, _ = ended(desk)
    assert shown(desk, caller)[-1] == (False, "injected")


def test_a_client_that_just_goes_is_told_of(desk: Desk) -> None:
    with Client(desk, compressed=False) as client:
        client.say(TextMessage(data="a"))
        assert client.hear() == "A"
    for flow in ended(desk):
        assert flow["websocket"]["close_code"] == 1006
        assert "error" not in flow
