"""mitmproxy's objects, built quickly.

`http.Request(...)` costs 47 µs, most of it debug type checks in `__post_init__`. Here the same
objects are made through `__new__` with their `__dict__` filled in: 4 µs. The attributes are those
that mitmproxy's own constructors set; `tests/engine/test_flow_builder.py` compares the two, so a new
mitmproxy that adds one fails there and not in somebody's script.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mitmproxy.certs import Cert
from mitmproxy.connection import Client, ConnectionState, Server
from mitmproxy.flow import Error
from mitmproxy.http import Headers, HTTPFlow, Request, RequestData, Response, ResponseData
from mitmproxy.websocket import WebSocketData, WebSocketMessage

from hms_addons.engine.identifiers import new_id

if TYPE_CHECKING:
    import asyncio

    from mitmproxy.proxy.mode_specs import ProxyMode

    from hms_addons.http_message import Fields

type Mode = ProxyMode
"""mitmproxy's name for the way a connection came in."""

type WebSocket = WebSocketData
type SocketMessage = WebSocketMessage
"""mitmproxy's names for what a WebSocket has carried, and for one message of it."""

_VERSIONS = (b"HTTP/1.0", b"HTTP/1.1")

_new: Any = object.__new__


def build_headers(fields: Fields) -> Headers:
    """mitmproxy `Headers` around `fields`."""
    headers: Headers = _new(Headers)
    headers.fields = fields
    return headers


def build_flow(  # noqa: PLR0913 - the parts of a request
    client: Client,
    server: Server,
    *,
    flow_id: str,
    method: bytes,
    target: bytes,
    minor: int,
    fields: Fields,
    content: bytes | None,
    host: str,
    port: int,
    scheme: bytes,
    now: float,
) -> HTTPFlow:
    """A live flow for a request that has just been read.

    Args:
        client: the downstream connection.
        flow_id: see `new_id`.
        server: what `flow.server_conn` holds until an upstream connection carries the request.
        method, target, minor, fields: as in `RequestHead`.
        content: the held body, None when it streams.
        host, port, scheme: where the caller meant it to go, from its Host header.
        now: seconds since the epoch.
    """
    data: RequestData = _new(RequestData)
    data.__dict__ = {
        "http_version": _VERSIONS[minor],
        "headers": build_headers(fields),
        "content": content,
        "trailers": None,
        "timestamp_start": now,
        "timestamp_end": now,
        "host": host,
        "port": port,
        "method": method,
        "scheme": scheme,
        "authority": b"",
        "path": target,
    }
    request: Request = _new(Request)
    request.__dict__ = {"data": data}
    flow: HTTPFlow = _new(HTTPFlow)
    flow.__dict__ = {
        "id": flow_id,
        "client_conn": client,
        "server_conn": server,
        "live": True,
        "timestamp_created": now,
        "intercepted": False,
        "_resume_event": None,
        "_backup": None,
        "marked": "",
        "is_replay": None,
        "metadata": {},
        "comment": "",
        "request": request,
    }
    return flow


def build_response(
    status: int,
    reason: bytes,
    fields: Fields,
    content: bytes | None,
    trailers: Fields,
    now: float,
) -> Response:
    """A response; `content` None when its body streams; `now` in seconds since the epoch."""
    data: ResponseData = _new(ResponseData)
    data.__dict__ = {
        "http_version": b"HTTP/1.1",
        "headers": build_headers(fields),
        "content": content,
        "trailers": build_headers(trailers) if trailers else None,
        "timestamp_start": now,
        "timestamp_end": now,
        "status_code": status,
        "reason": reason,
    }
    response: Response = _new(Response)
    response.__dict__ = {"data": data}
    return response


def build_websocket() -> WebSocket:
    """The `flow.websocket` of a connection that has just been upgraded."""
    return WebSocketData()


def build_message(opcode: int, content: bytes, *, from_client: bool, now: float) -> SocketMessage:
    """A WebSocket's message; `opcode` 1 for text, 2 for binary; `now` in seconds since the epoch."""
    return WebSocketMessage(opcode, from_client, content, now)


def build_client(
    peername: tuple[str, int],
    sockname: tuple[str, int],
    mode: Mode | None,
    *,
    tls: bool,
    certificate: bytes | None = None,
    tls_version: str | None = None,
    cipher: str | None = None,
) -> Client:
    """A downstream connection, once per connection.

    Args:
        peername, sockname: both ends' addresses.
        mode: the proxy mode it came in by; None outside mitmproxy's own server.
        tls: whether it is encrypted.
        certificate: the peer's certificate, DER.
        tls_version, cipher: as OpenSSL names them.
    """
    client = Client(
        peername=peername, sockname=sockname, id=new_id(), state=ConnectionState.OPEN, tls=tls
    )
    if mode is not None:
        client.proxy_mode = mode
    if tls:
        client.timestamp_tls_setup = client.timestamp_start
        client.alpn = b"http/1.1"
        client.tls_version = tls_version  # type: ignore[assignment] # a name from OpenSSL
        client.cipher = cipher
        if certificate is not None:
            client.certificate_list = [load_certificate(certificate)]
    return client


def load_certificate(der: bytes) -> Cert:
    """mitmproxy's view of a DER certificate."""
    from cryptography.x509 import load_der_x509_certificate  # noqa: PLC0415 - TLS flows only

    return Cert(load_der_x509_certificate(der))


def mark_closed(connection: Client | Server, now: float) -> None:
    """Record that a connection has gone, at `now` (seconds since the epoch)."""
    connection.state = ConnectionState.CLOSED
    connection.timestamp_end = now


def unconnected_server() -> Server:
    """The `server_conn` of a flow that has met no upstream; shared, never connected."""
    return Server(address=None)


def build_server(host: str, port: int, now: float) -> Server:
    """An upstream connection that is about to be opened; once per connection."""
    return Server(address=(host, port), id=new_id(), timestamp_start=now)


def mark_connected(
    server: Server, transport: asyncio.Transport, now: float, *, watched: bool
) -> None:
    """Fill in what is known once the connection, and its TLS, is there."""
    peername = transport.get_extra_info("peername")
    sockname = transport.get_extra_info("sockname")
    ssl_object = transport.get_extra_info("ssl_object")
    server.timestamp_tcp_setup = now
    server.peername = peername[:2] if peername else None
    server.sockname = sockname[:2] if sockname else None
    if ssl_object is not None:
        server.tls = True
        server.timestamp_tls_setup = now
        server.tls_version = ssl_object.version()
        cipher = ssl_object.cipher()
        server.cipher = cipher[0] if cipher else None
        server.alpn = (ssl_object.selected_alpn_protocol() or "").encode()
        if watched and (der := ssl_object.getpeercert(binary_form=True)):
            server.certificate_list = [load_certificate(der)]
    server.state = ConnectionState.OPEN


def server_event(server: Server) -> Any:
    """The data of mitmproxy's `server_*` events."""
    from mitmproxy.proxy.server_hooks import ServerConnectionHookData  # noqa: PLC0415 - watched only

    client = Client(peername=("", 0), sockname=("", 0))
    return ServerConnectionHookData(server=server, client=client)


def flow_error(message: str) -> Error:
    """A flow's error, as mitmproxy's dumper and mitmweb show it."""
    return Error(message)


def was_killed(flow: HTTPFlow) -> bool:
    """True if somebody has called `flow.kill()`."""
    return flow.error is not None and flow.error.msg == Error.KILLED_MESSAGE
