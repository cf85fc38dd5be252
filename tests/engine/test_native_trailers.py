"""mitmproxy's HTTP/1.1 layer, byte by byte, and what it makes of a trailer section."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.connection import Client
from mitmproxy.options import Options
from mitmproxy.proxy import commands, context, events
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._http1 import Http1Server

from hms_addons.engine.native_trailers import TrailerServer, take_trailers

if TYPE_CHECKING:
    from collections.abc import Iterable

HEAD = b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"


def heard(server: Http1Server, pieces: Iterable[bytes]) -> list[Any]:
    """The HTTP events that a client's bytes become."""
    client = server.conn
    found: list[Any] = []
    for event in (events.Start(), *(events.DataReceived(client, piece) for piece in pieces)):
        for command in server.handle_event(event):
            if isinstance(command, ReceiveHttp):
                found.append(command.event)
            else:
                assert isinstance(command, commands.Log), command
    return found


def make(kind: type[Http1Server]) -> Http1Server:
    client = Client(peername=("127.0.0.1", 1), sockname=("127.0.0.1", 2))
    return kind(context.Context(client, Options()))


def names(found: list[Any]) -> list[str]:
    return [type(event).__name__ for event in found]


@pytest.mark.parametrize("bytewise", [False, True])
def test_trailers_come_before_the_end(bytewise: bool) -> None:
    data = HEAD + b"2\r\nhi\r\n0\r\nX-Sum: 9\r\nx-b: c\r\n\r\n"
    pieces = [data[at : at + 1] for at in range(len(data))] if bytewise else [data]
    found = heard(make(TrailerServer), pieces)
    assert found[-2].trailers.fields == ((b"X-Sum", b"9"), (b"x-b", b"c"))
    assert names(found)[-2:] == ["RequestTrailers", "RequestEndOfMessage"]
    assert b"".join(event.data for event in found if type(event).__name__ == "RequestData") == b"hi"


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"2\r\nhi\r\n0\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_everything_else_is_as_mitmproxy_has_it(data: bytes) -> None:
    ours, theirs = heard(make(TrailerServer), [data]), heard(make(Http1Server), [data])
    assert names(ours) == names(theirs)
    assert names(ours)[-1] == "RequestEndOfMessage"


def test_mitmproxy_still_cannot_do_it_by_itself() -> None:
    """When this fails, the module has done its duty."""
    with pytest.raises(NotImplementedError, match="trailers"):
        heard(make(Http1Server), [HEAD + b"0\r\nX-Sum: 9\r\n\r\n"])


def test_it_is_in_place_until_it_is_ended() -> None:
    before = vars(http_layers)["Http1Server"]
    end = take_trailers()
    assert vars(http_layers)["Http1Server"] is TrailerServer
    end()
    assert vars(http_layers)["Http1Server"] is before
