"""One very large body: an upstream that makes or swallows it, and a client that does the other."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import TYPE_CHECKING, BinaryIO

from scripts.benchmark.process import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from io import BufferedIOBase

    from scripts.benchmark.process import Address

GIGABYTE = 2**30
TIMEOUT = 120.0
"""Seconds that a transfer may stand still."""
_PIECE = b"x" * 2**20
_PATH = "/gigabyte"


@contextlib.contextmanager
def upstream() -> Iterator[int]:
    """An upstream whose `GET /gigabyte` is just that; a `POST` it answers with the bytes it got.

    Yields its port. It is no nginx, because nginx would write such an upload to disk.
    """
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="bulk", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def download(address: Address) -> Iterator[int]:
    """Get 1 GiB; yields the sizes of the pieces, about a MiB each."""
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        connection.sendall(f"GET {_PATH} HTTP/1.1\r\nHost: bench\r\n\r\n".encode())
        with connection.makefile("rb") as stream:
            length = _answer_length(stream)
            while length and (data := stream.read(min(length, len(_PIECE)))):
                length -= len(data)
                yield len(data)


def upload(address: Address) -> Iterator[int]:
    """Post 1 GiB; yields the sizes of the pieces; `BenchError` unless all of it was received."""
    with socket.create_connection(address, timeout=TIMEOUT) as connection:
        head = f"POST {_PATH} HTTP/1.1\r\nHost: bench\r\nContent-Length: {GIGABYTE}\r\n\r\n"
        connection.sendall(head.encode())
        for _ in range(GIGABYTE // len(_PIECE)):
            connection.sendall(_PIECE)
            yield len(_PIECE)
        with connection.makefile("rb") as stream:
            answer = stream.read(_answer_length(stream))
    if answer != str(GIGABYTE).encode():
        raise BenchError(f"the upstream received {answer!r} bytes of {GIGABYTE}")


def _answer_length(stream: BinaryIO) -> int:
    """Read the head of an answer; its `Content-Length`. `BenchError` on any status but 200."""
    status = stream.readline()
    if b" 200 " not in status:
        raise BenchError(f"a body of 1 GiB was answered with {status!r}")
    return _content_length(stream)


def _content_length(stream: BinaryIO | BufferedIOBase) -> int:
    """Read the fields of a head to its end; the `Content-Length`, or 0."""
    length = 0
    while line := stream.readline().strip():
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = int(value)
    return length


class _Handler(socketserver.StreamRequestHandler):
    """One request a connection is all it is asked, but proxies keep theirs: it answers in a loop."""

    timeout = TIMEOUT

    def handle(self) -> None:
        # A proxy that is stopped meanwhile takes its connections with it.
        with contextlib.suppress(ConnectionError):
            while self._answer():
                pass

    def _answer(self) -> bool:
        """One request; whether there was one."""
        method, _, rest = self.rfile.readline().partition(b" ")
        if not method:
            return False
        length = _content_length(self.rfile)
        if method == b"POST":
            received = 0
            while received < length and (data := self.rfile.read1(len(_PIECE))):
                received += len(data)
            self._write([str(received).encode()])
            return received == length
        wanted = rest.startswith(_PATH.encode())
        self._write([_PIECE] * (GIGABYTE // len(_PIECE)) if wanted else [b"{}"])
        return True

    def _write(self, pieces: list[bytes]) -> None:
        """A 200 with that body."""
        length = sum(map(len, pieces))
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % length)
        for piece in pieces:
            self.wfile.write(piece)


class _Server(socketserver.ThreadingTCPServer):
    """A thread a connection."""

    daemon_threads = True
    # What still moves when the scenario is over must not hold up its end.
    block_on_close = False
