"""One HTTP/1.1 connection of the control plane: uvicorn's protocol, with bounds and a peer.

uvicorn parses with httptools and runs the ASGI application. What it lacks is added here: a request's
head is bounded in size and time, a body must make progress, refusals are problem details, and the
application learns who was at the other end of the TLS handshake (`scope["extensions"]["hms.peer"]`).
An answer given before the whole body has come closes the connection, but not so fast that the
client, still sending, would lose the answer.
"""

from __future__ import annotations

import asyncio
import json
import logging
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from hms_addons.errors import reason_phrase
from hms_addons.identity.peer_chain import peer_chain, trusted_until
from hms_addons.lazy_timer import LazyTimer

if TYPE_CHECKING:
    from collections.abc import Callable

    from uvicorn.config import Config
    from uvicorn.server import ServerState

    from hms_addons.clock import Clock
    from hms_addons.control.auth import Peer
    from hms_addons.identity.trust_bundle import TrustBundle

logger = logging.getLogger(__name__)

PEER: Final = "hms.peer"
"""Of the scope's extensions: `{"peer": control.auth.Peer}`."""

_LINGER: Final = 1.0
_LINGER_BYTES: Final = 8 * 1024 * 1024
"""Twice the largest body: who sends a little more than that reads why it is refused."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one connection may take of us; seconds and bytes."""

    head_bytes: int = 32 * 1024
    head_fields: int = 100
    head_time: float = 10.0
    """From a request's first byte, or from the connection's beginning, to the end of the head."""
    body_pause: float = 10.0
    """Longest time without a byte of a body."""
    body_time: float = 60.0
    """For a whole body: at 4 MiB, 70 KB a second."""


class Stage(Enum):
    """What is arriving."""

    IDLE = 0
    HEAD = 1
    BODY = 2


class ControlProtocol(HttpToolsProtocol):
    """See the module.

    Args:
        config: uvicorn's.
        server_state: what all connections share, uvicorn's.
        peer_of: judges the peer once the handshake is done.
        clock: time, injected.
        limits: of this connection.
        on_lost: called when the connection has ended.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        *,
        peer_of: Callable[[Any], Peer],
        clock: Clock,
        limits: Limits,
        on_lost: Callable[[ControlProtocol], object],
    ) -> None:
        super().__init__(config, server_state, {})
        self._peer_of = peer_of
        self._clock = clock
        self._limits = limits
        self._on_lost = on_lost
        self._timer = LazyTimer(clock, self._too_slow)
        self._lingering: _Lingering | None = None
        # Of the request that is arriving.
        self._stage = Stage.IDLE
        self._begun = 0  # requests so far
        self._head_bytes = 0
        self._body_until = 0.0
        self._refusal: tuple[int, str] | None = None

    def __repr__(self) -> str:
        return f"<ControlProtocol {self.client} {self._stage.name.lower()}>"

    @property
    def receiving(self) -> bool:
        """A request's body is still to come."""
        return self._stage is Stage.BODY

    # -- the connection -------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See `asyncio.BaseProtocol`."""
        self._lingering = _Lingering(transport, self, self._clock)
        super().connection_made(self._lingering)
        self.scheme = "https"
        self._peer = self._peer_of(transport.get_extra_info("ssl_object"))
        self._timer.set(self._clock.monotonic() + self._limits.head_time)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.BaseProtocol`."""
        self._timer.close()
        if self._lingering is not None:
            self._lingering.ended()
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._on_lost(self)

    def is_trusted_by(self, bundle: TrustBundle) -> bool:
        """Whether who is at the other end would be let in again; who shows nothing always is."""
        ssl_object = self.transport.get_extra_info("ssl_object")
        if ssl_object is None or not ssl_object.getpeercert(binary_form=True):
            return True
        return trusted_until(peer_chain(ssl_object), bundle) >= self._clock.wall()

    def forget_peer(self, problem: Peer) -> None:
        """What the peer showed no longer counts: answer what runs, and close."""
        self._peer = problem
        if self.cycle is None or self.cycle.response_complete:
            if self._stage is Stage.IDLE:
                self.transport.close()
        else:
            self.cycle.keep_alive = False

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        assert self._lingering is not None  # noqa: S101 - connected
        if self._lingering.is_closing():
            self._lingering.discard(len(data))
            return
        if self._stage is Stage.IDLE and self._timer.deadline is None:
            self._timer.set(self._clock.monotonic() + self._limits.head_time)
        begun = self._begun
        super().data_received(data)
        if self._stage is Stage.HEAD and self._begun == begun:
            # httptools keeps a field that is not complete, however long it gets.
            self._head_bytes += len(data)
            if self._head_bytes > self._limits.head_bytes and not self.transport.is_closing():
                self._refuse(431, f"a request's head may have {self._limits.head_bytes} bytes")

    # -- the request ----------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """See httptools."""
        super().on_message_begin()
        self._stage = Stage.HEAD
        self._begun += 1
        self._head_bytes = 0
        self._timer.set(self._clock.monotonic() + self._limits.head_time)

    def on_headers_complete(self) -> None:
        """See httptools."""
        self._stage = Stage.BODY
        limits = self._limits
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size > limits.head_bytes or len(self.headers) > limits.head_fields:
            self._refusal = (
                431,
                f"a request's head may have {limits.head_bytes} bytes in {limits.head_fields} fields",
            )
            # Only an exception stops the parser; `data_received` then sends the refusal.
            raise ValueError(self._refusal[1])
        self.scope["extensions"] = {PEER: {"peer": self._peer}}
        super().on_headers_complete()
        now = self._clock.monotonic()
        self._body_until = now + limits.body_time
        self._timer.set(min(now + limits.body_pause, self._body_until))

    def on_body(self, body: bytes) -> None:
        """See httptools."""
        super().on_body(body)
        self._timer.set(min(self._clock.monotonic() + self._limits.body_pause, self._body_until))

    def on_message_complete(self) -> None:
        """See httptools."""
        super().on_message_complete()
        self._stage = Stage.IDLE
        self._timer.clear()

    # -- refusing -------------------------------------------------------------------------------

    def send_400_response(self, msg: str) -> None:
        """uvicorn's answer to what is no HTTP; ours says so as problem details."""
        status, detail = self._refusal or (400, msg)
        self._refuse(status, detail)

    def _too_slow(self) -> None:
        if self._stage is Stage.IDLE:
            self.transport.close()  # nothing was asked: nothing is answered
            return
        what = "head was not" if self._stage is Stage.HEAD else "body made no progress, or was not"
        self._refuse(408, f"the request's {what} complete in time")

    def _refuse(self, status: int, detail: str) -> None:
        """Answer for the application, if it has not begun to, and close."""
        logger.info("%s: refused with %d: %s", self.client, status, detail)
        busy = self.cycle is not None and not self.cycle.response_complete
        if not busy or not self.cycle.response_started:
            title = reason_phrase(status).decode()
            problem = {"type": "about:blank", "title": title, "status": status, "detail": detail}
            body = json.dumps(problem).encode() + b"\n"
            self.transport.write(
                b"HTTP/1.1 %d %b\r\nContent-Type: application/problem+json\r\n"
                b"Content-Length: %d\r\nConnection: close\r\n\r\n%b"
                % (status, title.encode(), len(body), body)
            )
        if busy:
            # The application is not to answer as well.
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.transport.close()


class _Lingering(asyncio.Transport):
    """A transport whose `close` waits a little for a body that is still coming.

    Closing a socket that has unread data resets the connection, and the reset may overtake the
    answer. So what comes is thrown away, for a second or some mebibytes.
    """

    def __init__(
        self, transport: asyncio.Transport, protocol: ControlProtocol, clock: Clock
    ) -> None:
        super().__init__()
        self._transport = transport
        self._protocol = protocol
        self._clock = clock
        self._timer = LazyTimer(clock, transport.close)
        self._closing = False
        self._left = _LINGER_BYTES

    def close(self) -> None:
        """See `asyncio.BaseTransport`."""
        if self._closing:
            return
        self._closing = True
        if not self._protocol.receiving:
            self._transport.close()
            return
        self._transport.resume_reading()
        self._timer.set(self._clock.monotonic() + _LINGER)

    def discard(self, size: int) -> None:
        """Data that nobody reads any more has come."""
        self._left -= size
        if self._left < 0:
            self._transport.close()

    def ended(self) -> None:
        """The connection is gone."""
        self._closing = True
        self._timer.close()

    def is_closing(self) -> bool:
        """See `asyncio.BaseTransport`."""
        return self._closing or self._transport.is_closing()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        """See `asyncio.WriteTransport`."""
        if not self._closing:
            self._transport.write(data)

    def pause_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        if not self._closing:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """See `asyncio.ReadTransport`."""
        self._transport.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """See `asyncio.BaseTransport`."""
        return self._transport.get_extra_info(name, default)
