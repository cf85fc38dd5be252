"""One end of a WebSocket connection: frames in, messages out, and back again. wsproto does the work.

Nothing here waits or writes: a `Side` is given the bytes that its peer has sent and says what they
mean, and it says which bytes tell its peer of a message. What is held of an unfinished message is
bounded; a longer one passes in pieces, as a long body does.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
from wsproto.extensions import Extension, PerMessageDeflate
from wsproto.frame_protocol import CloseReason, FrameDecoder, FrameProtocol, Opcode, RsvBits
from wsproto.utilities import split_comma_header

from hms_addons.engine.flow_builder import build_websocket

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hms_addons.engine.flow_builder import WebSocket
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer, Fields

logger = logging.getLogger(__name__)

FRAGMENT = 4000
"""Size of the frames that an edited message is cut into, as mitmproxy does: some servers take no larger
ones, others no continuations, so one that was a single frame and has not grown stays one."""

_PIECE_COST = 64
"""Bytes that a held piece costs besides its content: a message may come byte by byte, or have many
empty frames."""

type Data = str | bytes
"""(A piece of) a text or a binary message."""


class Whole(NamedTuple):
    """A message, in the frames in which it came."""

    frames: Sequence[Data]

    @property
    def opcode(self) -> Opcode:
        """Whether it is text or binary."""
        return Opcode.TEXT if isinstance(self.frames[0], str) else Opcode.BINARY

    @property
    def content(self) -> bytes:
        """All of it."""
        return b"".join(_encoded(frame) for frame in self.frames)


class Part(NamedTuple):
    """A piece of a message that is too long to be held."""

    data: Data
    last: bool


type Received = Whole | Part | Ping | Pong | CloseConnection
"""What a peer has said."""


def make_data(exchange: Exchange, answer: Answer, events: FlowEvents) -> WebSocket | None:
    """An empty `flow.websocket` if `answer` opens a WebSocket whose messages can be shown."""
    if answer.tunnel is None or answer.tunnel.protocol.lower() != b"websocket":
        return None
    if exchange.head.get(b"sec-websocket-version") != b"13" or not events.shows_websockets:
        return None
    if negotiated(answer.fields) is None:
        logger.warning("a WebSocket's messages are not shown: its extensions are not known here")
        return None
    return build_websocket()


class _Deflate(PerMessageDeflate):
    """wsproto's (1.3), which loses its place in a message when a ping comes between its fragments."""

    _control = False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        """See `Extension`."""
        self._control = opcode.iscontrol()
        if self._control:
            return RsvBits(rsv1=False, rsv2=False, rsv3=False)
        return super().frame_inbound_header(proto, opcode, rsv, payload_length)

    def frame_inbound_payload_data(
        self, proto: FrameDecoder | FrameProtocol, data: bytes
    ) -> bytes | CloseReason:
        """See `Extension`."""
        return data if self._control else super().frame_inbound_payload_data(proto, data)

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,
        fin: bool,  # noqa: FBT001 - wsproto's signature
    ) -> bytes | CloseReason | None:
        """See `Extension`."""
        return None if self._control else super().frame_inbound_complete(proto, fin)


def negotiated(fields: Fields) -> list[Extension] | None:
    """The extensions that the fields of a 101 put in force; None if one of them is not known here."""
    found: list[Extension] = []
    try:
        for name, value in fields:
            if name.lower() == b"sec-websocket-extensions":
                for extension in filter(None, split_comma_header(value)):
                    if extension.partition(";")[0].strip() != PerMessageDeflate.name or found:
                        return None
                    deflate = _Deflate()
                    deflate.finalize(extension)
                    found.append(deflate)
    except (ValueError, IndexError):  # no ASCII, or a window that zlib does not have
        return None
    return found


class Side:
    """The end of a WebSocket connection that faces one peer.

    Args:
        faces: `CLIENT` if the peer is a client. (wsproto names the end itself, so the other way.)
        fields: of the 101, which tell the extensions.
        limit: bytes of an unfinished message to hold.
    """

    def __init__(self, faces: ConnectionType, fields: Fields, limit: int) -> None:
        own = ConnectionType.SERVER if faces is ConnectionType.CLIENT else ConnectionType.CLIENT
        self.broken = False
        """The peer has sent what is no WebSocket; the close that was told of is what it must get."""
        self.sending_parts = False
        """A message that passes in pieces is on its way to the peer."""
        self._ws = Connection(own, negotiated(fields) or [])
        self._limit = limit
        self._frames: list[list[Data]] = [[]]
        self._held = 0
        self._passing = False

    def __repr__(self) -> str:
        return f"<Side {self._ws.state.name} held={self._held}{' broken' if self.broken else ''}>"

    @property
    def open(self) -> bool:
        """Messages may be sent to the peer: neither has said goodbye."""
        return self._ws.state is ConnectionState.OPEN

    # -- from the peer --------------------------------------------------------------------------

    def receive(self, data: bytes) -> Iterator[Received]:
        """What the peer says with `data`; after its close, nothing."""
        ws = self._ws
        if self.broken or ws.state in {ConnectionState.REMOTE_CLOSING, ConnectionState.CLOSED}:
            return
        ws.receive_data(data)
        for event in ws.events():
            if isinstance(event, TextMessage | BytesMessage):
                received = self._take(event)
                if received is not None:
                    yield received
            elif isinstance(event, CloseConnection):
                # wsproto tells a breach of the protocol as a close, and stays in its state.
                self.broken = ws.state in {ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING}
                yield event
                return
            elif isinstance(event, Ping | Pong):
                yield event

    def _take(self, event: TextMessage | BytesMessage) -> Whole | Part | None:
        data: Data = event.data if isinstance(event.data, str) else bytes(event.data)
        if self._passing:
            self._passing = not event.message_finished
            return Part(data, event.message_finished)
        self._frames[-1].append(data)
        self._held += len(data) + _PIECE_COST
        if self._held > self._limit:
            self._passing = not event.message_finished
            held = [piece for pieces in self._let_go() for piece in pieces]
            return Part(_joined(held, data), event.message_finished)
        if event.message_finished:
            return Whole([_joined(pieces, data) for pieces in self._let_go()])
        if event.frame_finished:
            self._frames.append([])
        return None

    def _let_go(self) -> list[list[Data]]:
        frames, self._frames, self._held = self._frames, [[]], 0
        return frames

    # -- to the peer ----------------------------------------------------------------------------

    def message(self, frames: Sequence[Data]) -> bytes:
        """The bytes of a whole message; none if the peer takes no more."""
        if not self.open:
            return b""
        last = len(frames) - 1
        return b"".join(self._frame(data, at == last) for at, data in enumerate(frames))

    def part(self, part: Part) -> bytes:
        """The bytes of a piece of a message; none if the peer takes no more."""
        self.sending_parts = not part.last
        return self._frame(part.data, part.last) if self.open else b""

    def control(self, event: Ping | Pong | CloseConnection) -> bytes:
        """The bytes of a control frame; none if the peer takes no more."""
        closing = isinstance(event, CloseConnection)
        if self.open or (closing and self._ws.state is ConnectionState.REMOTE_CLOSING):
            return self._ws.send(event)
        return b""

    def _frame(self, data: Data, finished: bool) -> bytes:  # noqa: FBT001 - private
        if isinstance(data, str):
            return self._ws.send(TextMessage(data=data, message_finished=finished))
        return self._ws.send(BytesMessage(data=data, message_finished=finished))


def frames_of(content: bytes, opcode: Opcode, before: Whole | None = None) -> Sequence[Data]:
    """The frames for a message.

    Args:
        content: all of it.
        opcode: text or binary.
        before: as it came, if it did: where it is still the same, so are its frames.
    """
    size = FRAGMENT
    if before is not None:
        if before.content == content and before.opcode is opcode:
            return before.frames
        if len(before.frames) == 1:
            size = max(size, len(before.frames[0]))
    data: Data = content.decode(errors="replace") if opcode is Opcode.TEXT else content
    return [data[start : start + size] for start in range(0, len(data) or 1, size)]


def _encoded(data: Data) -> bytes:
    return data.encode() if isinstance(data, str) else data


def _joined(pieces: list[Data], like: Data) -> Data:
    if len(pieces) == 1:
        return pieces[0]
    if isinstance(like, str):
        return "".join(piece for piece in pieces if isinstance(piece, str))
    return b"".join(piece for piece in pieces if isinstance(piece, bytes))
