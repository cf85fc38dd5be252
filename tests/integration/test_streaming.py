"""Through two sidecars with mutual TLS: tunnels, event streams, trailers, interim answers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from typing import TYPE_CHECKING

import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    Pong,
    Request,
    TextMessage,
)

from tests.integration.servers import Visit, chunks, cut, echo, says

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wsproto.events import Event

    from tests.integration.clients import Connection
    from tests.integration.conftest import Pair
    from tests.integration.servers import Upstream


@pytest.fixture(autouse=True)
def _forget(app: Upstream) -> None:
    app.requests.clear()


def test_the_app_knows_who_calls(pair: Pair, app: Upstream) -> None:
    forged = "X-Caller-Service: spiffe://mpsa.mil/svc/root"
    assert pair.fetch("GET", "/who", forged, "X-Forwarded-Client-Cert: By=me").status == 200
    got = app.one("/who")
    assert got.header("x-caller-service") == "spiffe://mpsa.mil/svc/claims-svc"
    certificate = got.header("x-forwarded-client-cert") or ""
    assert "By=spiffe://mpsa.mil/svc/auth-svc;Hash=" in certificate
    assert certificate.endswith(";URI=spiffe://mpsa.mil/svc/claims-svc")
    assert got.header("via") == "1.1 hms, 1.1 hms"
    assert got.header("x-forwarded-for") == "127.0.0.1, 127.0.0.1"


# -- WebSocket -------------------------------------------------------------------------------------


async def websocket_echo(visit: Visit) -> bool:
    """A WebSocket server that says everything back."""
    server = WSConnection(ConnectionType.SERVER)
    request = visit.request
    lines = [f"{request.method} {request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in request.fields]
    server.receive_data("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")
    while True:
        for event in server.events():
            answer: Event
            if isinstance(event, Request):
                answer = AcceptConnection()
            elif isinstance(event, Message):
                answer = type(event)(data=event.data, message_finished=event.message_finished)
            elif isinstance(event, Ping | CloseConnection):
                answer = event.response()
            else:
                raise AssertionError(f"unexpected: {event}")  # noqa: TRY004 - a failed test
            await visit.send(server.send(answer))
            if isinstance(event, CloseConnection):
                return False
        data = await visit.reader.read(65536)
        if not data:
            return False
        server.receive_data(data)


class WebSocket:
    """A WebSocket client on a `Connection`."""

    def __init__(self, connection: Connection, target: str) -> None:
        self.connection = connection
        self._ws = WSConnection(ConnectionType.CLIENT)
        self._events: Iterator[Event] = iter(())
        connection.send(self._ws.send(Request(host="auth-svc.svc", target=target)))

    def send(self, event: Event) -> None:
        self.connection.send(self._ws.send(event))

    def receive(self) -> Event:
        while True:
            for event in self._events:
                return event
            self._ws.receive_data(self.connection.sock.recv(65536) or None)
            self._events = self._ws.events()

    def message(self) -> bytes | str:
        """A whole message, however many frames and reads it takes."""
        parts = []
        while True:
            event = self.receive()
            assert isinstance(event, Message), event
            parts.append(event.data)
            if event.message_finished:
                whole: bytes | str = type(parts[0])().join(parts)
                return whole


def test_websocket(pair: Pair, app: Upstream) -> None:
    path = app.on("/ws", websocket_echo)
    with pair.connect() as connection:
        ws = WebSocket(connection, f"{path}?a=1")
        assert isinstance(ws.receive(), AcceptConnection)
        for text in ("hello", "ä" * 10_000, ""):
            ws.send(TextMessage(data=text))
            assert ws.message() == text
        sender = threading.Thread(target=ws.send, args=(BytesMessage(data=bytes(3_000_000)),))
        sender.start()
        assert ws.message() == bytes(3_000_000)
        sender.join()
        ws.send(Ping(payload=b"there?"))
        pong = ws.receive()
        assert isinstance(pong, Pong)
        assert bytes(pong.payload) == b"there?"
        ws.send(CloseConnection(code=1000, reason="done"))
        closed = ws.receive()
        assert isinstance(closed, CloseConnection)
        assert closed.code == 1000
        assert connection.ended
    got = app.one(path)
    assert got.header("x-caller-service") == "spiffe://mpsa.mil/svc/claims-svc"
    assert (got.header("connection") or "").lower() == "upgrade"
    assert got.target == f"{path}?a=1"


def test_a_client_may_speak_before_the_upgrade_is_taken(pair: Pair, app: Upstream) -> None:
    gate = threading.Event()

    async def late(visit: Visit) -> bool:
        await asyncio.get_running_loop().run_in_executor(None, gate.wait, 10)
        await visit.send(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
        )
        await visit.send(b"server first;")
        while data := await visit.reader.read(100):
            await visit.send(data.upper())
        return False

    path = app.on("/chat", late)
    with pair.connect() as connection:
        connection.request("GET", path, "Connection: Upgrade", "Upgrade: chat")
        connection.send(b"early;")
        app.wait(lambda: app.got(path), "the request")
        gate.set()
        assert connection.head().status == 101
        assert connection.read_until(b";") == b"server first;"
        assert connection.read_until(b";") == b"EARLY;"
        connection.send(b"late;")
        assert connection.read_until(b";") == b"LATE;"


def test_an_upgrade_that_is_declined_is_an_ordinary_request(pair: Pair, app: Upstream) -> None:
    path = app.on("/declines", echo)
    with pair.connect() as connection:
        for _ in range(3):
            answer = connection.exchange("GET", path, "Connection: Upgrade", "Upgrade: chat")
            assert answer.status == 200
            assert answer.header("upgrade") is None
            body = connection.exchange(
                "POST", path, "Connection: Upgrade", "Upgrade: h2c", body=b"x"
            )
            assert body.json["length"] == 1


@pytest.mark.parametrize("who", ["client", "upstream"])
def test_when_one_end_of_a_tunnel_goes_so_does_the_other(
    pair: Pair, app: Upstream, who: str
) -> None:
    switching = b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n"
    gone = threading.Event()

    async def behave(visit: Visit) -> bool:
        await visit.send(switching + b"hello;")
        if who == "client":
            await visit.until_gone()
        gone.set()
        return False

    path = app.on("/ending", behave)
    with pair.connect() as connection:
        connection.request("GET", path, "Connection: Upgrade", "Upgrade: chat")
        assert connection.head().status == 101
        assert connection.read_until(b";") == b"hello;"
        if who == "upstream":
            assert connection.ended
    assert gone.wait(5)


# -- pieces ----------------------------------------------------------------------------------------


class Steps:
    """Lets the upstream go on one step at a time."""

    def __init__(self) -> None:
        self._permits = threading.Semaphore(0)

    def go_on(self) -> None:
        self._permits.release()

    async def step(self) -> None:
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, self._permits.acquire, True, 20)


@pytest.mark.parametrize("framing", ["chunked", "close", "length"])
def test_an_event_stream_passes_piece_by_piece(pair: Pair, app: Upstream, framing: str) -> None:
    steps = Steps()
    events = [b"data: %d\n\n" % n for n in range(5)]

    async def behave(visit: Visit) -> bool:
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
        head += {
            "chunked": b"Transfer-Encoding: chunked\r\n\r\n",
            "close": b"\r\n",
            "length": b"Content-Length: 2000000\r\n\r\n",
        }[framing]
        await visit.send(head)
        for event in events:
            await steps.step()
            piece = b"%x\r\n%b\r\n" % (len(event), event) if framing == "chunked" else event
            await visit.send(piece)
        if framing == "chunked":
            await visit.send(b"0\r\n\r\n")
        return False

    path = app.on("/events", behave)
    with pair.connect() as connection:
        connection.request("GET", path)
        head = connection.head()  # before the first event is there
        assert head.header("content-type") == "text/event-stream"
        for event in events:
            steps.go_on()
            if framing == "length":
                assert connection.read_exactly(len(event)) == event
            else:
                assert connection.chunk() == event
        if framing != "length":
            assert connection.chunk() == b""
            assert connection.read_until(b"\r\n") == b"\r\n"


def test_bodies_flow_both_ways_at_once(pair: Pair, app: Upstream) -> None:
    async def behave(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        async for piece in visit.pieces():
            await visit.send(b"%x\r\n%b\r\n" % (len(piece), piece.upper()))
        await visit.send(b"0\r\n\r\n")

    path = app.on("/duplex", behave)
    with pair.connect() as connection:
        connection.request("POST", path, "Transfer-Encoding: chunked")
        head = connection.head()
        assert head.status == 200
        assert head.closes, "what else the client sends could keep this connection for ever"
        for word in (b"one", b"two", b"three" * 10_000):
            connection.send(b"%x\r\n%b\r\n" % (len(word), word))
            got = b""
            while len(got) < len(word):
                got += connection.chunk()
            assert got == word.upper()
        connection.send(b"0\r\n\r\n")
        assert connection.chunk() == b""
        assert connection.read_until(b"\r\n") == b"\r\n"
        assert connection.ended


@pytest.mark.parametrize("size", [5, 2_000_000])
def test_trailers_both_ways(pair: Pair, app: Upstream, size: int) -> None:
    answer = chunks(
        b"a" * size, trailers=b"X-Checksum: abc\r\nX-Time: 5\r\n", fields=b"Trailer: X\r\n"
    )
    path = app.on("/trailers", answer)
    with pair.connect() as connection:
        connection.request("POST", path, "Transfer-Encoding: chunked", "Trailer: X-Sum")
        connection.send(b"%x\r\n%b\r\n" % (size, b"b" * size))
        connection.send(b"0\r\nX-Sum: 9\r\nX-Caller-Role: ADMIRAL\r\nAuthorization: x\r\n\r\n")
        response = connection.response()
        assert response.body == b"a" * size
        assert response.trailers == [("X-Checksum", "abc"), ("X-Time", "5")]
        assert connection.exchange("GET", "/x").status == 200
    got = app.one(path)
    assert got.body == b"b" * size
    assert got.trailers == [("X-Sum", "9")]


def test_early_hints_come_early(pair: Pair, app: Upstream) -> None:
    steps = Steps()

    async def behave(visit: Visit) -> None:
        await visit.send(b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n")
        await steps.step()
        await visit.send(b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n")
        await echo(visit)

    path = app.on("/hints", behave)
    with pair.connect() as connection:
        connection.request("GET", path)
        early = connection.head()
        assert (early.status, early.header("link")) == (103, "</style.css>; rel=preload")
        steps.go_on()
        final = connection.response()
        assert final.status == 200
        assert [interim.status for interim in final.interim] == [102]
        connection.send(f"GET {path} HTTP/1.0\r\nHost: a\r\n\r\n".encode())
        steps.go_on()
        assert connection.response().interim == [], "HTTP/1.0 knows no interim answers"


def test_expect_continue_is_answered_when_the_request_is_permitted(
    pair: Pair, app: Upstream
) -> None:
    with pair.connect() as connection:
        connection.request("POST", "/up", "Expect: 100-continue", "Content-Length: 5")
        assert connection.head().status == 100
        connection.send(b"hello")
        assert connection.response().json["length"] == 5
        connection.request("POST", "/up", "Expect: something-else", "Content-Length: 5")
        assert connection.response().status == 417
        assert connection.ended
    assert [request.body for request in app.got("/up")] == [b"hello"]


def test_an_early_answer_reaches_a_client_that_still_sends(pair: Pair, app: Upstream) -> None:
    async def behave(visit: Visit) -> bool:
        await visit.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        await visit.until_gone()
        return False

    path = app.on("/early", behave)
    with pair.connect() as connection:
        connection.request("POST", path, "Content-Length: 100000000")
        connection.send(bytes(100_000))
        answer = connection.response()
        assert (answer.status, answer.body) == (403, b"no")
        with contextlib.suppress(ConnectionError):
            for _ in range(100):
                connection.send(bytes(100_000))
        assert connection.ended


def test_a_cut_answer_is_cut_for_the_client_too(pair: Pair, app: Upstream) -> None:
    path = app.on(
        "/cut", cut(b"HTTP/1.1 200 OK\r\nContent-Length: 3000000\r\n\r\n" + bytes(2_000_000))
    )
    with pair.connect() as connection:
        connection.request("GET", path)
        assert connection.head().status == 200
        with pytest.raises((EOFError, ConnectionError)):
            connection.read_exactly(3_000_000)


def test_an_upstreams_own_refusal_keeps_its_face(pair: Pair, app: Upstream) -> None:
    """What the callee's sidecar says passes the caller's as it is, flag and all."""
    path = app.on("/hangs-up", says(b"nonsense\r\n\r\n", close=True))
    answer = pair.fetch("GET", path)
    assert (answer.status, answer.flag) == (502, "UPE")
    assert "listener peers" in answer.json["detail"] or "cluster" in answer.json["detail"]
