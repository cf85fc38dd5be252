"""The usual line of the access log; every request that is logged pays for it. Compiled by `scripts/compile`.

Most requests of a sidecar are alike in most fields: same listener, caller, route, cluster, endpoint, status. What
these come to in a line is remembered, and what differs is put between.

When a request ends, no more is done than to note down where its line will take things from. The words come later,
for some dozens of requests at once: in a loop that is run so often in a row a line takes 4 µs, but 25 µs on its
own, as between two requests everything that it needs has left the processor's caches.

    request ends ──Note──▶ LineLog, up to 64 or 0.1 s ──UsualLines──▶ lines ──▶ its thread ──▶ file
"""

from __future__ import annotations

from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final

from hms_addons.redaction import redact_path

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Cluster, Listener, Route, Snapshot
    from hms_addons.errors import Flag
    from hms_addons.exchange import Attempt, Exchange, Principal
    from hms_addons.line_log import LineLog

MAX_PATH: Final = 1024
MAX_TEXT: Final = 256
_MAX_TRACE: Final = 32
_MAX_KNOWN: Final = 1024
_JWT: Final = "eyJ"
_DECIMALS: Final = 3


class Note:
    """All that the usual line of a request is made from, and no more: what it holds stays in memory with it."""

    __slots__ = (
        "attempt",
        "bytes_in",
        "bytes_out",
        "cluster",
        "downstream",
        "ended",
        "endpoint",
        "flag",
        "listener",
        "method",
        "path",
        "peer",
        "principal",
        "request_id",
        "route",
        "started",
        "status",
        "traceparent",
    )

    def __init__(self, exchange: Exchange, status: int, attempt: Attempt, ended: float) -> None:
        self.listener: Listener = exchange.listener
        self.downstream: Any = exchange.downstream
        self.peer: str | None = exchange.peer
        self.principal: Principal = exchange.principal
        self.method: bytes = exchange.method_bytes
        self.status: int = status
        self.flag: Flag | None = exchange.flag
        self.route: Route | None = exchange.route
        self.cluster: Cluster | None = exchange.cluster
        self.endpoint: str | None = exchange.endpoint
        self.path: str = exchange.path
        self.request_id: str = exchange.request_id
        self.traceparent: bytes | None = exchange.traceparent
        self.attempt: Attempt = attempt
        self.started: float = exchange.started
        self.ended: float = ended
        self.bytes_in: int = exchange.bytes_in
        self.bytes_out: int = exchange.bytes_out

    def __repr__(self) -> str:
        return f"<Note {self.path} {self.status}>"


class UsualLog:
    """Takes down requests of one configuration, if their lines are usual ones.

    Args:
        snapshot: the configuration.
        log: what makes its lines by `UsualLines.lines`.
        now: the monotonic clock.
    """

    __slots__ = ("_log", "_now", "_snapshot")

    def __init__(self, snapshot: Snapshot, log: LineLog, now: Callable[[], float]) -> None:
        self._snapshot = snapshot
        self._log = log
        self._now = now

    def take(self, exchange: Exchange) -> bool:
        """Take a request down that has just ended.

        Returns:
            False: its line is not a usual one, as it has failed, or needed none or several tries; or its
            configuration is another.
        """
        attempts, answer = exchange.attempts, exchange.answer
        if (
            exchange.failure is not None
            or len(attempts) != 1
            or answer is None
            or exchange.snapshot is not self._snapshot
        ):
            return False
        self._log.write(Note(exchange, answer.status, attempts[0], self._now()))
        return True


class UsualLines:
    """Makes lines of JSON with the default fields, of requests that needed one try.

    Args:
        clock: the one that the notes' times are of.
    """

    __slots__ = ("_clock", "_known", "_second", "_text")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._known: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._second = -1
        self._text = ""

    def lines(self, entries: Sequence[str | Note]) -> list[str]:
        """The lines of notes, soon after they were taken; what is a line already stays as it is."""
        begin_of_clock = self._clock.wall() - self._clock.monotonic()
        return [
            self._line(entry, begin_of_clock) if isinstance(entry, Note) else entry
            for entry in entries
        ]

    def _line(self, note: Note, begin_of_clock: float) -> str:
        route, cluster = note.route, note.cluster
        key = (
            note.listener.name,
            client_of(note.downstream),
            note.peer,
            note.principal.roles,
            note.method,
            note.status,
            note.flag,
            None if route is None else route.name,
            None if route is None else route.service,
            None if cluster is None else cluster.name,
            note.endpoint,
        )
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = self._known[key] = _alike(note.listener.direction, key)
        begun = int((begin_of_clock + note.started) * 1000.0)
        second = begun // 1000
        if second != self._second:
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second
        millisecond = str(begun % 1000 + 1000)[1:]
        path, trace, attempt = note.path, trace_id_of(note.traceparent), note.attempt
        if path:
            path = f',"path":{quoted(cut(redact_path(path) if _JWT in path else path, MAX_PATH))}'
        if trace is not None:
            trace = f',"trace_id":{quoted(trace)}'
        duration = thousandths((note.ended - note.started) * 1000.0)
        # By number: what stands in a named tuple is found four times as fast.
        upstream = thousandths((attempt[2] - attempt[1]) * 1000.0)
        return (
            f'{{"time":"{self._text}.{millisecond}Z"{known[0]}{path}{known[1]}'
            f',"request_id":{quoted(cut(note.request_id, MAX_TEXT))}{trace or ""}'
            f',"duration_ms":{duration},"upstream_ms":{upstream}'
            f',"bytes_in":{note.bytes_in},"bytes_out":{note.bytes_out}}}'
        )


def _alike(direction: str, key: tuple[Any, ...]) -> tuple[str, str]:
    """The members in front of the path and those between it and the request ID; each begins with a comma."""
    listener, client, peer, roles, method, status, flag, route, service, cluster, endpoint = key
    role = cut(",".join(roles), MAX_TEXT) if roles else None
    before = (
        ("direction", str(direction)),
        ("listener", listener),
        ("client", client),
        ("caller", peer),
        ("role", role),
        ("method", cut(method.decode("latin-1"), MAX_TEXT)),
    )
    after = (
        ("flag", None if flag is None else str(flag)),
        ("service", service),
        ("route", route),
        ("cluster", cluster),
        ("endpoint", endpoint),
    )
    return _members(before), f',"status":{status}{_members(after)},"attempts":1'


def _members(pairs: Sequence[tuple[str, str | None]]) -> str:
    return "".join([f',"{name}":{quoted(text)}' for name, text in pairs if text is not None])


def client_of(downstream: Any) -> str | None:
    """The caller's address, without its port, from the engine's connection to it."""
    client = getattr(downstream, "client", None)
    peername: Any = getattr(client, "peername", None)
    return peername[0] if peername else None


def trace_id_of(traceparent: bytes | None) -> str | None:
    """The trace that a `traceparent` names."""
    if traceparent is None:
        return None
    begin = traceparent.find(b"-") + 1
    if not begin:
        return None
    end = traceparent.find(b"-", begin)
    trace = traceparent[begin:] if end < 0 else traceparent[begin:end]
    return cut(trace.decode("latin-1"), _MAX_TRACE)


def thousandths(value: float) -> str:
    """A number that is not negative, with three digits after the point."""
    digits = str(int(value * 1000.0 + 0.5))
    if len(digits) <= _DECIMALS:
        digits = digits.zfill(_DECIMALS + 1)
    return f"{digits[:-_DECIMALS]}.{digits[-_DECIMALS:]}"


def cut(text: str, length: int) -> str:
    """`text`, of which no more than `length` characters are written."""
    return text if len(text) <= length else f"{text[:length]}…"
