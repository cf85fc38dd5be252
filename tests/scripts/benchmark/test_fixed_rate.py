from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING

import pytest

from scripts.benchmark import fixed_rate
from scripts.benchmark.fixed_rate import Answer, request_bytes, run, summarise
from scripts.benchmark.wrk import VoidRoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scripts.benchmark.process import Address

ANSWER = b"HTTP/1.1 200 OK\r\nServer: x\r\ncontent-length: 5\r\n\r\nhello"


def test_an_answer_fed_whole_and_then_the_next() -> None:
    answer = Answer()
    assert answer.feed(ANSWER)
    assert answer.feed(ANSWER)


def test_an_answer_fed_bytewise() -> None:
    answer = Answer()
    ends = [answer.feed(ANSWER[i : i + 1]) for i in range(len(ANSWER))]
    assert ends == [False] * (len(ANSWER) - 1) + [True]


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (ANSWER + b"!", "1 bytes came after"),
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", "without Content-Length"),
    ],
)
def test_an_answer_that_voids_the_round(data: bytes, fault: str) -> None:
    with pytest.raises(VoidRoundError, match=fault):
        Answer().feed(data)


def test_the_request_on_the_wire() -> None:
    assert request_bytes(("127.0.0.1", 80), "/p", {"A": "b"}) == (
        b"GET /p HTTP/1.1\r\nHost: 127.0.0.1:80\r\nA: b\r\n\r\n"
    )


def test_a_summary_is_in_milliseconds() -> None:
    figures = summarise([0.001] * 98 + [0.5, 0.9], unanswered=3)
    assert (figures.p50_ms, figures.p99_ms) == (1.0, 500.0)
    assert (figures.answered, figures.unanswered) == (100, 3)


def test_nothing_answered_voids_the_round() -> None:
    with pytest.raises(VoidRoundError, match="not one"):
        summarise([], unanswered=7)


@contextlib.contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[Address]:
    """Calls `answer` for each request that arrives, on a thread for each connection."""

    class Handler(socketserver.BaseRequestHandler):
        request: socket.socket

        def handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                while self.request.recv(65536):
                    answer(self.request)

    class Server(socketserver.ThreadingTCPServer):
        request_queue_size = fixed_rate.CONNECTIONS

    with Server(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield ("127.0.0.1", running.server_address[1])
        running.shutdown()
        thread.join()


def test_every_request_of_the_round_is_counted_and_those_of_the_warm_up_are_not() -> None:
    with server(lambda client: client.sendall(ANSWER)) as address:
        figures = run(address, request_bytes(address, "/", {}), rate=200, seconds=0.2)
    assert (figures.answered, figures.unanswered) == (40, 0)
    assert 0 < figures.p50_ms <= figures.p99_ms


def test_a_stall_is_paid_for_by_every_request_that_was_due_meanwhile() -> None:
    """A client that waits for an answer before it sends again would count one slow request."""
    stalled_from = int(500 * fixed_rate.WARM_UP) + 20
    held: list[socket.socket] = []
    lock = threading.Lock()
    arrived = 0

    def answer(client: socket.socket) -> None:
        nonlocal arrived
        with lock:
            arrived += 1
            held.append(client)
            # 30 requests are held back until all of them have come, which takes 60 ms.
            if stalled_from <= arrived < stalled_from + 30:
                return
            for one in held:
                one.sendall(ANSWER)
            held.clear()

    with server(answer) as address:
        figures = run(address, request_bytes(address, "/", {}), rate=500, seconds=0.1)
    assert (figures.answered, figures.unanswered) == (50, 0)
    assert figures.p50_ms > 10, "half the round's requests were due during the stall"
    assert figures.p99_ms > 55


def test_requests_that_are_never_answered_are_reported() -> None:
    arrived = threading.Semaphore(fixed_rate.CONNECTIONS // 2 + int(200 * fixed_rate.WARM_UP))

    def answer(client: socket.socket) -> None:
        if arrived.acquire(blocking=False):
            client.sendall(ANSWER)

    with server(answer) as address:
        figures = run(address, request_bytes(address, "/", {}), rate=200, seconds=0.5)
    assert figures.unanswered == 100 - figures.answered
    assert figures.answered == fixed_rate.CONNECTIONS // 2


def test_a_closed_connection_voids_the_round() -> None:
    with (
        server(lambda client: client.shutdown(socket.SHUT_RDWR)) as address,
        pytest.raises(VoidRoundError, match="closed before its answer"),
    ):
        run(address, request_bytes(address, "/", {}), rate=100, seconds=0.1)


def test_nobody_listening_voids_the_round() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        with pytest.raises(VoidRoundError, match="refused"):
            run(unused.getsockname(), b"", rate=100, seconds=0.1)
