"""A request's place in a trace (W3C Trace Context), and the tries that are spans of it.

    traceparent: 00-<trace>-<parent>-<flags>
         │
         ▼
    Trace, the span of this hop ──▶ TracedTry, a span for each try ──▶ traceparent of that try

Which requests are traced is the plugin `tracing`'s to say; whoever sends one asks its `Trace` for each try,
so that what the next hop does hangs below the try that has reached it, not below one that failed.
"""

from __future__ import annotations

import re
from random import getrandbits
from typing import Final

_LENGTH: Final = 55
_SAMPLED: Final = 1
_RANDOM: Final = 2
"""The trace ID's last 7 bytes are random (Trace Context, Level 2): ours are, and others' word is kept."""
_NAME: Final = b"traceparent"

_match = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
).match


def is_traceparent(value: bytes) -> bool:
    """Whether a trace can be continued from it (section 3.2.2.3, 4.3).

    A later version than 00 may have more behind a dash; 00 and what is no version may not. Fields of that
    name that were repeated are joined by commas by now, and so are none.
    """
    if _match(value) is None:
        return False
    return len(value) == _LENGTH or (value[:2] != b"00" and value[_LENGTH : _LENGTH + 1] == b"-")


def is_sampled(traceparent: bytes) -> bool:
    """Whether the caller records the trace; of a good one."""
    return bool(int(traceparent[53:55], 16) & _SAMPLED)


def _new_id() -> bytes:
    return b"%016x" % (getrandbits(64) or 1)


class Trace:
    """A request that is traced: the span of this hop, and those of its tries.

    Args:
        traceparent: a good one that the request came with; None begins a trace.

    Attributes:
        trace_id, span_id: 32 and 16 hexadecimal digits.
        parent_id: the caller's span; empty where the trace begins here.
        value: the `traceparent` that stands for this hop.
        tries: in the order in which they began.
    """

    __slots__ = ("_flags", "_written", "parent_id", "span_id", "trace_id", "tries", "value")

    def __init__(self, traceparent: bytes | None = None) -> None:
        flags = _SAMPLED | _RANDOM
        if traceparent is None:
            self.trace_id = b"%032x" % (getrandbits(128) or 1)
            self.parent_id = b""
        else:
            self.trace_id = traceparent[3:35]
            self.parent_id = traceparent[36:52]
            flags = _SAMPLED | (int(traceparent[53:55], 16) & _RANDOM)
        self.span_id = _new_id()
        self._flags = b"%02x" % flags
        self.value = self.header(self.span_id)
        self._written = b"\r\n%b: %b" % (_NAME, self.value)
        self.tries: list[TracedTry] = []

    def __repr__(self) -> str:
        return f"<Trace {self.value.decode()} tries={len(self.tries)}>"

    def header(self, span_id: bytes) -> bytes:
        """The `traceparent` of a span of this trace; in version 00, whatever came."""
        return b"00-%b-%b-%b" % (self.trace_id, span_id, self._flags)

    def begin(self, endpoint: str, cluster: str, started: float, *, hedged: bool) -> TracedTry:
        """A try begins.

        Args:
            endpoint, cluster: where it goes.
            started: monotonic seconds.
            hedged: it was made beside another that was slow.
        """
        one = TracedTry(_new_id(), endpoint, cluster, started, hedged)
        self.tries.append(one)
        return one

    def stamp(self, head: bytes, one: TracedTry) -> bytes:
        """A request as bytes, with the `traceparent` of one try in place of this hop's.

        If it has none, as a header rule or a plugin has taken it out, it stays without.
        """
        at = head.find(self._written)
        if at < 0:
            return head
        end = at + len(self._written)
        return head[: end - _LENGTH] + self.header(one.span_id) + head[end:]


class TracedTry:
    """One try of a request that is traced.

    Attributes:
        span_id: 16 hexadecimal digits.
        endpoint, cluster: where it went.
        started, ended: monotonic seconds; 0 as the end while it goes on.
        outcome: as in `exchange.Attempt`; empty while it goes on.
        detail: what went wrong, for people.
        hedged: it was made beside another that was slow.
    """

    __slots__ = (
        "cluster",
        "detail",
        "ended",
        "endpoint",
        "hedged",
        "outcome",
        "span_id",
        "started",
    )

    def __init__(
        self,
        span_id: bytes,
        endpoint: str,
        cluster: str,
        started: float,
        hedged: bool,  # noqa: FBT001 - made in one place
    ) -> None:
        self.span_id = span_id
        self.endpoint = endpoint
        self.cluster = cluster
        self.started = started
        self.hedged = hedged
        self.ended = 0.0
        self.outcome = ""
        self.detail = ""

    def __repr__(self) -> str:
        return f"<TracedTry {self.span_id.decode()} {self.endpoint} {self.outcome or 'going on'}>"

    def end(self, ended: float, outcome: str, detail: str = "") -> None:
        """It is over, at `ended` (monotonic seconds)."""
        self.ended = ended
        self.outcome = outcome
        self.detail = detail
