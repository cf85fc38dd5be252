"""Records a running sidecar's flows for whoever has asked: the pieces of a mitmproxy flow file.

A recording is an ordinary listener of flow events, in the fast lane and among mitmproxy's addons alike. It
joins them when it begins and leaves them at its end, so it costs nothing while there is none. Whoever
asked reads the flows as a stream; one that reads too slowly loses flows, which are counted, and never holds
up a request. Secrets (see `redaction`) are left out before anything leaves the sidecar.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from hms_addons.errors import MeshError
from hms_addons.http_message import BodyStream, FilteredStream
from hms_addons.redaction import redact_fields, redact_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.http import HTTPFlow

    from hms_addons.clock import Clock
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.recording_wish import RecordingWish

logger = logging.getLogger(__name__)

MOST_WAITING: Final = 16 * 1024 * 1024
"""Bytes that wait for whoever reads; flows beyond them are dropped."""


class Recording:
    """One recording, as an addon of mitmproxy's kind.

    Args:
        wish: what is to be in it.
        write: makes a flow's state the text of a flow file.
    """

    name = "hms-recording"

    def __init__(
        self,
        wish: RecordingWish,
        write: Callable[[Any], bytes],
    ) -> None:
        self._wish = wish
        self._write = write
        self.on_ended: Callable[[], object] = _nothing
        """Called once at its end."""
        self._begun: set[str] = set()
        """The flows in flight that began after it did: others were not watched from their begin."""
        self._pieces: deque[bytes] = deque()
        self._waiting = 0
        self._more = asyncio.Event()
        self.ended = False
        self.recorded = 0
        self.dropped = 0
        self.incomplete = 0
        """Of those recorded: flows with a body that streamed, or was too long."""
        source = BodyStream(_nothing, _nothing, self.end)
        self.stream: BodyStream = FilteredStream(source, self._pull)
        """What is recorded; to close it ends the recording."""

    def __repr__(self) -> str:
        state = "ended" if self.ended else "open"
        return f"<Recording {state} recorded={self.recorded} dropped={self.dropped}>"

    def state(self) -> dict[str, Any]:
        """How it is, in plain types."""
        return {
            "recorded": self.recorded,
            "dropped": self.dropped,
            "incomplete": self.incomplete,
        }

    # -- mitmproxy's events ---------------------------------------------------------------------

    def requestheaders(self, flow: HTTPFlow) -> None:
        """mitmproxy event: from here on it is watched."""
        self._begun.add(flow.id)

    def response(self, flow: HTTPFlow) -> None:
        """mitmproxy event: it has its answer."""
        self._add(flow)

    def error(self, flow: HTTPFlow) -> None:
        """mitmproxy event: it has ended without one, or its client has left."""
        self._add(flow)

    # -- what is written ------------------------------------------------------------------------

    def _add(self, flow: HTTPFlow) -> None:
        if flow.id not in self._begun:
            return
        self._begun.discard(flow.id)
        about = flow.metadata.get("hms")
        direction = about.get("direction") if isinstance(about, dict) else None
        if self.ended or (direction != self._wish.direction != "both"):
            return
        try:
            state, whole = _state_of(flow, self._wish.most_body)
            piece = self._write(state)
        except (TypeError, ValueError) as error:
            # What an addon has put into `flow.metadata`, most likely.
            self.dropped += 1
            logger.warning("a flow cannot be recorded: %s", error)
            return
        if self._pieces and self._waiting + len(piece) > MOST_WAITING:
            self.dropped += 1
            return
        self.recorded += 1
        self.incomplete += not whole
        self._pieces.append(piece)
        self._waiting += len(piece)
        self._more.set()

    async def _pull(self, stream: FilteredStream) -> bytes:
        """See `FilteredStream`: the next flow."""
        del stream
        while not self._pieces:
            if self.ended:
                return b""
            self._more.clear()
            await self._more.wait()
        piece = self._pieces.popleft()
        self._waiting -= len(piece)
        return piece

    def end(self) -> None:
        """Record no more; what is there can still be read."""
        if not self.ended:
            self.ended = True
            self._more.set()
            self.on_ended()


def _nothing() -> None:
    """Nobody is to be told; nor paused, as a recording drops instead."""


def _state_of(flow: HTTPFlow, most: int) -> tuple[dict[str, Any], bool]:
    """A flow as a file holds it, without secrets; and whether its bodies are whole.

    A body that streamed has no content; one longer than `most` is left out likewise.
    """
    state: dict[str, Any] = flow.get_state()
    state["backup"] = None  # it may hold what an edit has taken out
    state["metadata"] = {"hms": flow.metadata["hms"]} if "hms" in flow.metadata else {}
    whole = True
    for name in ("request", "response"):
        message = state.get(name)
        if message is None:
            continue
        message["headers"] = redact_fields(message["headers"])
        if message["trailers"] is not None:
            message["trailers"] = redact_fields(message["trailers"])
        if message["content"] is not None and len(message["content"]) > most:
            message["content"] = None
        whole = whole and message["content"] is not None
    state["request"]["path"] = redact_target(state["request"]["path"])
    return state, whole


class Recorder:
    """Begins recordings, one at a time.

    Args:
        events: what recordings listen to.
        clock: time.
    """

    def __init__(self, events: FlowEvents, clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._last: Recording | None = None
        self._until = 0.0
        self._closed = False

    def __repr__(self) -> str:
        return f"<Recorder {self._last}>"

    async def begin(self, wish: RecordingWish) -> BodyStream:
        """Record for a while; what comes back is to be read, and to be closed at the end.

        Raises:
            MeshError: somebody records already, or the sidecar is about to end.
        """
        # In a thread, and not before somebody asks: it takes a while to load.
        library = await asyncio.to_thread(importlib.import_module, "mitmproxy.io.tnetstring")
        if self._last is not None and not self._last.ended:
            left = self._until - self._clock.monotonic()
            raise MeshError(f"somebody records already; that ends in {max(left, 0.0):.0f} s")
        if self._closed:
            raise MeshError("the sidecar is about to end")
        recording = self._last = Recording(wish, library.dumps)
        detach = self._events.attach(recording)
        self._until = self._clock.monotonic() + wish.seconds
        timer = self._clock.call_later(wish.seconds, recording.end)
        logger.info("recording %s requests for %g s", wish.direction, wish.seconds)

        def ended() -> None:
            detach()
            timer.cancel()
            logger.info("recorded: %r", recording)

        recording.on_ended = ended
        return recording.stream

    def state(self) -> dict[str, Any]:
        """Whether somebody records, and how the last recording went; plain types."""
        last = self._last
        running = last is not None and not last.ended
        return {"recording": running, "last": None if last is None else last.state()}

    def close(self) -> None:
        """End what is being recorded."""
        self._closed = True
        if self._last is not None:
            self._last.end()
