"""Load at a fixed rate: the latency that callers see when the proxy is not saturated.

The client is open-loop. Request i is due at `start + i / rate`, whatever became of those before,
and its latency counts from when it was *due*: a proxy that stalls pays for every request that
should have been sent meanwhile (no coordinated omission). One thread, no garbage collection, and
nothing else between `select` and the clock.
"""

from __future__ import annotations

import contextlib
import gc
import select
import socket
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from scripts.benchmark.spread import percentile
from scripts.benchmark.wrk import VoidRoundError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Self

    from scripts.benchmark.process import Address

CONNECTIONS = 64
"""At most so many requests are in flight; those due beyond that wait, and their latency grows."""
WARM_UP = 0.3
"""The requests of the first so many seconds are sent, but not counted."""
DRAIN = 1.0
"""Seconds after the last request was due that answers are still waited for."""
CONNECT_TIMEOUT = 5.0
READ_SIZE = 64 * 1024


@dataclass(frozen=True, slots=True)
class Latencies:
    """What the client measured in one round."""

    p50_ms: float
    p99_ms: float
    answered: int
    unanswered: int
    """Requests that were due but not answered when the round was over: more than it can carry."""


class Answer:
    """Frames one response at a time on a connection; every answer must be a 200 with a length."""

    def __init__(self) -> None:
        """Before the first byte."""
        self._head = b""
        self._left: int | None = None

    def feed(self, data: bytes) -> bool:
        """Take bytes; whether they end the response (the next one may begin).

        `VoidRoundError` on another status, without `Content-Length`, or with bytes beyond the end.
        """
        if self._left is None:
            self._head += data
            head, separator, data = self._head.partition(b"\r\n\r\n")
            if not separator:
                return False
            self._left = _content_length(head)
        if len(data) > self._left:
            raise VoidRoundError(f"{len(data) - self._left} bytes came after the answer's end")
        self._left -= len(data)
        if self._left:
            return False
        self._head, self._left = b"", None
        return True


def _content_length(head: bytes) -> int:
    """The response's length, from its head."""
    status, *fields = head.split(b"\r\n")
    if not status.startswith(b"HTTP/1.1 200"):
        raise VoidRoundError(f"the answer was {status!r}")
    for field in fields:
        name, _, value = field.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    raise VoidRoundError(f"an answer without Content-Length: {head!r}")


def request_bytes(address: Address, path: str, headers: Mapping[str, str]) -> bytes:
    """A GET as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {address[0]}:{address[1]}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def run(address: Address, request: bytes, rate: float, seconds: float) -> Latencies:
    """Send `request` at `rate` a second for `seconds`; `VoidRoundError` when one of them fails."""
    with _Client(address, request) as client, _without_garbage_collection():
        try:
            return client.run(rate, seconds)
        except OSError as error:
            raise VoidRoundError(f"a connection failed: {error}") from error


def summarise(latencies: list[float], unanswered: int) -> Latencies:
    """Seconds of each counted request → the round's figures."""
    if not latencies:
        raise VoidRoundError("not one request was answered")
    p50, p99 = (percentile(latencies, rank) * 1e3 for rank in (50, 99))
    return Latencies(p50, p99, len(latencies), unanswered)


class _Connection:
    """A kept-alive connection and the request in flight on it."""

    def __init__(self, address: Address) -> None:
        self.socket = socket.create_connection(address, timeout=CONNECT_TIMEOUT)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.answer = Answer()
        self.due = 0.0
        self.counted = False


class _Client:
    """The client's loop and its connections."""

    def __init__(self, address: Address, request: bytes) -> None:
        self._address = address
        self._request = request
        self._all: list[_Connection] = []
        self._idle: list[_Connection] = []
        self._busy: dict[int, _Connection] = {}
        self._latencies: list[float] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for connection in self._all:
            connection.socket.close()

    def run(self, rate: float, seconds: float) -> Latencies:
        """See the module's `run`."""
        start = time.perf_counter()
        count = int(rate * (WARM_UP + seconds))
        due = deque(start + number / rate for number in range(count))
        counted_from = start + WARM_UP
        end = due[-1] + DRAIN
        while due or self._busy:
            now = time.perf_counter()
            if now >= end:
                break
            while due and due[0] <= now and (connection := self._free()) is not None:
                self._send(connection, due.popleft(), counted_from)
            # With every connection busy, only an answer lets the next request go.
            blocked = not due or len(self._busy) == CONNECTIONS
            self._receive((end if blocked else due[0]) - time.perf_counter())
        lost = sum(connection.counted for connection in self._busy.values())
        return summarise(self._latencies, len(due) + lost)

    def _free(self) -> _Connection | None:
        """An idle connection, the last used first, or a new one, or None at the limit."""
        if self._idle:
            return self._idle.pop()
        if len(self._all) == CONNECTIONS:
            return None
        connection = _Connection(self._address)
        self._all.append(connection)
        return connection

    def _send(self, connection: _Connection, due: float, counted_from: float) -> None:
        connection.due, connection.counted = due, due >= counted_from
        connection.socket.sendall(self._request)
        self._busy[connection.socket.fileno()] = connection

    def _receive(self, wait: float) -> None:
        """Wait for answers, at most so many seconds, and take those that came."""
        # select(2) waits to the microsecond; epoll and poll, as Python gives them, to the millisecond.
        readable, _, _ = select.select(list(self._busy), [], [], max(wait, 0.0))
        for number in readable:
            connection = self._busy[number]
            data = connection.socket.recv(READ_SIZE)
            now = time.perf_counter()
            if not data:
                raise VoidRoundError("a connection was closed before its answer")
            if connection.answer.feed(data):
                del self._busy[number]
                self._idle.append(connection)
                if connection.counted:
                    self._latencies.append(now - connection.due)


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    """No pauses of our own among the measured ones."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
