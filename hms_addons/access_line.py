"""The usual line of the access log, made in a few microseconds; every request that is logged pays for it.

Most requests of a sidecar are alike in most fields: same listener, caller, route, cluster, endpoint, status. What
these come to in a line is remembered, and what differs is put between. `scripts/compile` compiles this.
"""

from __future__ import annotations

from datetime import UTC, datetime
from json.encoder import encode_basestring_ascii as quoted
from typing import TYPE_CHECKING, Any, Final

from hms_addons.redaction import redact_path

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.exchange import Exchange

MAX_PATH: Final = 1024
MAX_TEXT: Final = 256
_MAX_TRACE: Final = 32
_MAX_KNOWN: Final = 1024


class UsualLines:
    """Lines of JSON with the default fields, of requests that needed one try.

    Args:
        before: makes the members in front of the path; each begins with a comma.
        after: makes those between the path and the request ID.
    """

    __slots__ = ("_after", "_before", "_known", "_second", "_text")

    def __init__(
        self,
        before: Callable[[Exchange, float, float], Any],
        after: Callable[[Exchange, float, float], Any],
    ) -> None:
        self._before = before
        self._after = after
        self._known: dict[tuple[Any, ...], tuple[str, str]] = {}
        self._second = -1
        self._text = ""

    def line(self, exchange: Exchange, now: float, wall: float) -> str | None:
        """The line of an exchange that ended at `now` on the monotonic, `wall` on the wall clock.

        Returns:
            None: it is not a usual one, as it has failed, or needed none or several tries.
        """
        attempts, answer = exchange.attempts, exchange.answer
        if exchange.failure is not None or len(attempts) != 1 or answer is None:
            return None
        route, cluster = exchange.route, exchange.cluster
        key = (
            exchange.listener.name,
            client_of(exchange),
            exchange.peer,
            exchange.principal.roles,
            exchange.method_bytes,
            answer.status,
            exchange.flag,
            None if route is None else route.name,
            None if route is None else route.service,
            None if cluster is None else cluster.name,
            exchange.endpoint,
        )
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            known = (self._before(exchange, now, wall), self._after(exchange, now, wall))
            self._known[key] = known
        begun = int((wall - (now - exchange.started)) * 1000)
        second = begun // 1000
        if second != self._second:
            self._text = datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self._second = second
        path, request_id, trace = exchange.path, exchange.request_id, trace_id_of(exchange)
        attempt = attempts[0]
        return "".join(
            (
                '{"time":"',
                self._text,
                f".{begun % 1000:03d}Z",
                '"',
                known[0],
                "" if not path else ',"path":' + quoted(cut(redact_path(path), MAX_PATH)),
                known[1],
                ',"request_id":',
                quoted(cut(request_id, MAX_TEXT)),
                "" if trace is None else ',"trace_id":' + quoted(trace),
                ',"duration_ms":',
                f"{(now - exchange.started) * 1000:.3f}",
                ',"upstream_ms":',
                f"{(attempt.ended - attempt.started) * 1000:.3f}",
                ',"bytes_in":',
                str(exchange.bytes_in),
                ',"bytes_out":',
                str(exchange.bytes_out),
                "}",
            )
        )


def client_of(exchange: Exchange) -> str | None:
    """The caller's address, without its port."""
    client = getattr(exchange.downstream, "client", None)
    peername: Any = getattr(client, "peername", None)
    return peername[0] if peername else None


def trace_id_of(exchange: Exchange) -> str | None:
    """Of the `traceparent` that came, or that was made for it."""
    value = exchange.head.get(b"traceparent")
    if value is None:
        for name, found in reversed(exchange.fields):
            if name == b"traceparent":
                value = found
                break
        else:
            return None
    begin = value.find(b"-") + 1
    if not begin:
        return None
    end = value.find(b"-", begin)
    return cut((value[begin:] if end < 0 else value[begin:end]).decode("latin-1"), _MAX_TRACE)


def cut(text: str, length: int) -> str:
    """`text`, of which no more than `length` characters are written."""
    return text if len(text) <= length else f"{text[:length]}…"
