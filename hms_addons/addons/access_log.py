"""`access_log`: a line for each request that has ended, as JSON or as `key=value` pairs.

It costs nothing while nobody has asked for it. What a line says is compiled once per configuration to a
flat list of functions; `LineLog` keeps the disk away from the event loop. No line holds a token, a
cookie or a body; a query is written only where the configuration says so, and then without the values
of what looks like a secret.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from datetime import UTC, datetime
from functools import partial
from itertools import groupby
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.access_line import (
    MAX_PATH,
    MAX_TEXT,
    UsualLines,
    UsualLog,
    client_of,
    cut,
    thousandths,
    trace_id_of,
)
from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.snapshot_access_log import DEFAULT_FIELDS
from hms_addons.hookspecs import hookimpl
from hms_addons.line_log import LineLog
from hms_addons.redaction import REDACTED, is_secret, redact_path, redact_query, redact_value
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.config.snapshot_access_log import AccessLog as AccessLogSpec
    from hms_addons.exchange import Attempt, Exchange
    from hms_addons.hookspecs import Mesh

NAME: Final = "access_log"
CLOSING: Final = 2.0
"""Seconds that a file is given to take what is left."""

_ERROR: Final = 400
"""Statuses from here on are written whatever the sample is."""
_DETAIL: Final = 500
_MOST_KNOWN: Final = 1024
"""Texts of a run of fields that are remembered."""
_ALIKE: Final = frozenset(
    """direction listener client caller role method status flag service route cluster endpoint attempts
    """.split()
)
"""Fields of few values."""
_PLAIN: Final = re.compile(r"[!#-<>-\[\]-~]+")
"""What needs no quotes in a pair's value: no space, no `"`, `=` or backslash, nothing unprintable."""

type _Value = str | int | float | list[str] | dict[str, str] | None
type _Getter = Callable[[Exchange, float, float], _Value]
"""One field of an exchange that has ended, given its end on the monotonic and on the wall clock."""
type _Writer = Callable[[Any, Sequence[_Field], float, float], list[str]]
type _Field = tuple[str | None, _Getter]
"""How a field begins in a line, and its value; None: what is got is text of the line as it is."""


class _State(NamedTuple):
    """What one snapshot asks for."""

    snapshot: Snapshot
    spec: AccessLogSpec | None
    log: LineLog | None
    fields: tuple[_Field, ...]
    usual: UsualLog | None
    """Takes most requests down, where the fields are the default ones, as JSON."""


class AccessLog:
    """The built-in plugin `access_log`.

    Args:
        clock: when a request ended.
        rng: chooses the sample.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK, rng: random.Random | None = None) -> None:
        self._clock = clock
        self._random = (rng or random.Random()).random  # noqa: S311 - a sample, not a secret
        self._tasks = TaskSet(NAME)
        self._state: _State | None = None
        self._usual: UsualLog | None = None
        """The newest state's, where every request has a line."""
        self._previous: _State | None = None
        self._retired: list[LineLog] = []

    def __repr__(self) -> str:
        return f"<AccessLog {self._state.log if self._state else None}>"

    # -- life -----------------------------------------------------------------------------------

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Make ready what the snapshot asks for; a file stays open as long as one asks for it."""
        before, newest = self._previous, self._state
        state = before if before is not None and before.snapshot is snapshot else None
        if state is None:
            spec = snapshot.access_log
            fields = () if spec is None else fields_of(spec)
            log = self._log_for(spec)
            usual = (
                UsualLog(snapshot, log, self._clock.monotonic) if log and _is_usual(spec) else None
            )
            state = _State(snapshot, spec, log, fields, usual)
        self._previous, self._state = newest, state
        everything = state.spec is not None and state.spec.sample >= 1.0
        self._usual = state.usual if everything else None
        gone = None if before is None else before.log
        if gone is not None and gone not in self._logs():
            self._retired.append(gone)
            self._tasks.start(self._retire(gone), "close")

    async def _retire(self, log: LineLog) -> None:
        """No request can come to it any more but one that outlived two changes."""
        await log.close(CLOSING)
        self._retired.remove(log)

    def _log_for(self, spec: AccessLogSpec | None) -> LineLog | None:
        if spec is None:
            return None
        for log in self._logs():
            if log.path == spec.path:
                return log
        return LineLog(spec.path, self._clock, "access log", form=UsualLines(self._clock).lines)

    def _logs(self) -> list[LineLog]:
        states = (self._state, self._previous)
        found = [state.log for state in states if state is not None and state.log is not None]
        return list(dict.fromkeys(found))

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Nothing is written where nobody has asked for it."""
        return () if snapshot.access_log is not None else ("hms_complete",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Tell how many lines there are, and were dropped."""
        mesh.add_status(NAME, self._status)

    def _status(self) -> dict[str, Any] | None:
        log = self._state.log if self._state is not None else None
        if log is None:
            return None
        return {
            "path": log.path,
            "written": log.written,
            "waiting_chars": log.waiting,
            "dropped": log.dropped,
            "failing": log.failing,
        }

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Write what is left; a file that hangs is left behind."""
        logs = (*self._logs(), *self._retired)
        await asyncio.gather(*(log.close(CLOSING) for log in logs))
        await self._tasks.close()

    # -- a request ------------------------------------------------------------------------------

    @hookimpl
    def hms_complete(self, exchange: Exchange) -> None:
        """Write it down, if it is in the sample or went wrong."""
        usual = self._usual
        if usual is not None and usual.take(exchange):
            return
        state = self._state
        if state is None or state.snapshot is not exchange.snapshot:
            previous = self._previous
            if previous is not None and previous.snapshot is exchange.snapshot:
                state = previous
        if state is None or state.spec is None or state.log is None:
            return
        spec = state.spec
        if spec.sample < 1.0 and not _is_error(exchange) and self._random() >= spec.sample:
            return
        if state.usual is not None and state.usual.take(exchange):
            return
        clock = self._clock
        state.log.write(line_of(exchange, state, clock.monotonic(), clock.wall()))


def _is_error(exchange: Exchange) -> bool:
    return (
        exchange.failure is not None
        or exchange.flag is not None
        or _status(exchange, 0, 0) >= _ERROR
    )


# -- a line -------------------------------------------------------------------------------------


class _Run:
    """Fields that stand side by side and are alike in many requests: their text is remembered."""

    __slots__ = ("_fields", "_getters", "_known", "_write")

    def __init__(self, fields: Sequence[tuple[str, _Getter]], write: _Writer) -> None:
        self._fields = [(prefix, partial(_nth, index)) for index, (prefix, _) in enumerate(fields)]
        self._getters = [get for _, get in fields]
        self._known: dict[tuple[_Value, ...], str] = {}
        self._write = write

    def __call__(self, exchange: Exchange, now: float, wall: float) -> str:
        values = tuple([get(exchange, now, wall) for get in self._getters])
        text = self._known.get(values)
        if text is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            text = self._known[values] = "".join(self._write(values, self._fields, now, wall))
        return text


def _nth(index: int, values: Any, now: float, wall: float) -> _Value:
    del now, wall
    found: _Value = values[index]
    return found


def fields_of(spec: AccessLogSpec) -> tuple[_Field, ...]:
    """What a line of `spec` has, each with how it begins in it."""
    getters: list[tuple[str, _Getter]] = [(name, _GETTERS[name]) for name in spec.fields]
    if spec.headers:
        names = [(name, None if is_secret(name) else name.encode()) for name in spec.headers]
        getters.append(("headers", partial(_headers, names)))
    form, write = (',"{}":', _json_parts) if spec.as_json else (" {}=", _text_parts)
    found: list[_Field] = []
    for alike, group in groupby(getters, key=lambda field: field[0] in _ALIKE):
        fields = [(form.format(name), get) for name, get in group]
        if alike and len(fields) > 1:
            found.append((None, _Run(fields, write)))
        else:
            found += fields
    return tuple(found)


def line_of(exchange: Exchange, state: _State, now: float, wall: float) -> str:
    """The line of an exchange that ended at `now` on the monotonic and `wall` on the wall clock."""
    assert state.spec is not None  # noqa: S101 - or there is no line
    if state.spec.as_json:
        return "{" + "".join(_json_parts(exchange, state.fields, now, wall))[1:] + "}"
    return "".join(_text_parts(exchange, state.fields, now, wall))[1:]


def _is_usual(spec: AccessLogSpec | None) -> bool:
    return spec is not None and spec.as_json and not spec.headers and spec.fields == DEFAULT_FIELDS


def _json_parts(exchange: Any, fields: Sequence[_Field], now: float, wall: float) -> list[str]:
    """Members of an object, each after a comma; what is not known has none."""
    parts = []
    for prefix, get in fields:
        value = get(exchange, now, wall)
        if isinstance(value, str):
            parts.append(value if prefix is None else prefix + quoted(value))
        elif isinstance(value, int):
            parts.append(f"{prefix}{value}")
        elif isinstance(value, float):
            parts.append(f"{prefix}{thousandths(value)}")
        elif value:
            parts.append(f"{prefix}{json.dumps(value)}")
    return parts


def _text_parts(exchange: Any, fields: Sequence[_Field], now: float, wall: float) -> list[str]:
    """Pairs, each after a space; what is not known is left out."""
    parts = []
    for prefix, get in fields:
        value = get(exchange, now, wall)
        if prefix is None:
            parts.append(str(value))
        elif isinstance(value, float):
            parts.append(f"{prefix}{thousandths(value)}")
        elif isinstance(value, list):
            parts.append(prefix + quoted(", ".join(value)))
        elif isinstance(value, dict):
            parts += [f" header.{name}={_plain(text)}" for name, text in value.items()]
        elif value is not None:
            parts.append(prefix + _plain(str(value)))
    return parts


def _plain(text: str) -> str:
    return text if _PLAIN.fullmatch(text) else quoted(text)


def _cut(text: str, length: int = MAX_TEXT) -> str:
    return cut(text, length)


# -- its fields ---------------------------------------------------------------------------------


class _Second:
    """The text of the last second that was asked for: hundreds of requests share it."""

    __slots__ = ("number", "text")

    def __init__(self) -> None:
        self.number = -1
        self.text = ""


_second: Final = _Second()


def _time(exchange: Exchange, now: float, wall: float) -> str:
    """When it began, in UTC to the millisecond (RFC 3339)."""
    milliseconds = int((wall - now + exchange.started) * 1000)
    number, rest = divmod(milliseconds, 1000)
    if number != _second.number:
        _second.text = datetime.fromtimestamp(number, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        _second.number = number
    return f"{_second.text}.{rest:03d}Z"


def _status(exchange: Exchange, now: float, wall: float) -> int:
    del now, wall
    answer, failure = exchange.answer, exchange.failure
    return answer.status if answer is not None else 0 if failure is None else failure.status


def _flag(exchange: Exchange, now: float, wall: float) -> str | None:
    del now, wall
    flag = exchange.flag if exchange.failure is None else exchange.failure.flag
    return None if flag is None else str(flag)


def _detail(exchange: Exchange, now: float, wall: float) -> str | None:
    del now, wall
    return None if exchange.failure is None else _cut(exchange.failure.detail, _DETAIL)


def _query(exchange: Exchange, now: float, wall: float) -> str | None:
    del now, wall
    query = exchange.query
    return _cut(redact_query(query), MAX_PATH) if query else None


def _role(exchange: Exchange, now: float, wall: float) -> str | None:
    del now, wall
    roles = exchange.principal.roles
    return _cut(",".join(roles)) if roles else None


def _subject(exchange: Exchange, now: float, wall: float) -> str | None:
    del now, wall
    subject = exchange.principal.subject
    return None if subject is None else _cut(subject)


def _tries(exchange: Exchange, now: float, wall: float) -> list[str] | None:
    """Each attempt, where there were several."""
    del now, wall
    attempts = exchange.attempts
    return [_told(attempt) for attempt in attempts] if len(attempts) > 1 else None


def _told(attempt: Attempt) -> str:
    milliseconds = (attempt.ended - attempt.started) * 1000
    return f"{attempt.endpoint} {attempt.outcome} {milliseconds:.1f}ms"


def _upstream_ms(exchange: Exchange, now: float, wall: float) -> float | None:
    """From the first attempt's begin to the last one's response head, waits between them included."""
    del now, wall
    attempts = exchange.attempts
    return (attempts[-1].ended - attempts[0].started) * 1000 if attempts else None


def _headers(
    names: Sequence[tuple[str, bytes | None]], exchange: Exchange, now: float, wall: float
) -> dict[str, str]:
    """As they came; a name whose key is None is not to be shown, only that it was there."""
    del now, wall
    head = exchange.head
    found = {}
    for name, key in names:
        if key is None:
            if name.encode() in head:
                found[name] = REDACTED
        elif (value := head.get(key)) is not None:
            found[name] = _cut(redact_value(name, value.decode("latin-1")))
    return found


_GETTERS: Final[dict[str, _Getter]] = {
    "time": _time,
    "direction": lambda exchange, _n, _w: exchange.listener.direction.value,
    "listener": lambda exchange, _n, _w: exchange.listener.name,
    "method": lambda exchange, _n, _w: _cut(exchange.method),
    "path": lambda exchange, _n, _w: _cut(redact_path(exchange.path), MAX_PATH) or None,
    "query": _query,
    "status": _status,
    "flag": _flag,
    "detail": _detail,
    "request_id": lambda exchange, _n, _w: _cut(exchange.request_id),
    "trace_id": lambda exchange, _n, _w: trace_id_of(exchange.traceparent),
    "client": lambda exchange, _n, _w: client_of(exchange.downstream),
    "caller": lambda exchange, _n, _w: exchange.peer,
    "subject": _subject,
    "role": _role,
    "service": lambda exchange, _n, _w: None if exchange.route is None else exchange.route.service,
    "route": lambda exchange, _n, _w: None if exchange.route is None else exchange.route.name,
    "cluster": lambda exchange, _n, _w: None if exchange.cluster is None else exchange.cluster.name,
    "endpoint": lambda exchange, _n, _w: exchange.endpoint,
    "attempts": lambda exchange, _n, _w: len(exchange.attempts),
    "tries": _tries,
    "duration_ms": lambda exchange, now, _w: (now - exchange.started) * 1000,
    "upstream_ms": _upstream_ms,
    "bytes_in": lambda exchange, _n, _w: exchange.bytes_in,
    "bytes_out": lambda exchange, _n, _w: exchange.bytes_out,
}
