"""Request trailers on HTTP/1.1 in mitmproxy's own layers, which know them on HTTP/2 only.

At a trailer section mitmproxy (12.2) raises `NotImplementedError` inside its layer, logs "mitmproxy has
crashed!", and leaves the client waiting for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h11
from mitmproxy.proxy.layers import http as http_layers
from mitmproxy.proxy.layers.http._base import ReceiveHttp
from mitmproxy.proxy.layers.http._events import RequestEndOfMessage, RequestTrailers
from mitmproxy.proxy.layers.http._http1 import Http1Server

from hms_addons.engine.flow_builder import build_headers

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.proxy.events import Event
    from mitmproxy.proxy.layer import CommandGenerator

    from hms_addons.http_message import Fields

_NAME = "Http1Server"


class _BodyReader:
    """h11's reader of a body, with the trailer section set aside."""

    def __init__(self, reader: Any) -> None:
        self._reader = reader
        self.trailers: Fields = ()

    def __call__(self, buffer: Any) -> Any:
        return self._without_trailers(self._reader(buffer))

    def read_eof(self) -> Any:
        return self._without_trailers(self._reader.read_eof())

    def _without_trailers(self, event: Any) -> Any:
        if isinstance(event, h11.EndOfMessage) and event.headers:
            self.trailers = tuple(event.headers.raw_items())
            return h11.EndOfMessage()
        return event


class TrailerServer(Http1Server):
    """mitmproxy's HTTP/1.1 server, which hands on trailers as its HTTP/2 server does."""

    def read_body(self, event: Event) -> CommandGenerator[None]:
        """See mitmproxy: the events of a body; before its end, the trailers."""
        reader: Any = self.body_reader
        if not isinstance(reader, _BodyReader):
            reader = _BodyReader(reader)
            self.body_reader = reader
        for command in super().read_body(event):
            if (
                reader.trailers
                and isinstance(command, ReceiveHttp)
                and isinstance(command.event, RequestEndOfMessage)
            ):
                trailers = build_headers(reader.trailers)
                yield ReceiveHttp(RequestTrailers(command.event.stream_id, trailers))
            yield command


def take_trailers() -> Callable[[], None]:
    """Let mitmproxy's layers take request trailers from now on. Returns a function that ends it.

    There is no registry for these classes; the layer looks its own up by this name.
    """
    setattr(http_layers, _NAME, TrailerServer)

    def end() -> None:
        setattr(http_layers, _NAME, Http1Server)

    return end
