"""A gibibyte through `hms sidecar`, each way: it passes, and does not stay.

The peers are as cheap as they can be: the one sends a sparse file by `sendfile`, the other reads into
one buffer and counts.
"""

from __future__ import annotations

import contextlib
import socket
import tempfile
import threading
from typing import TYPE_CHECKING, BinaryIO

import pytest

from tests.integration.basics import Closing, free_port
from tests.integration.clients import Connection
from tests.integration.processes import hms_sidecar

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.integration.conftest import ConfigFile
    from tests.integration.processes import Program

MIB = 1 << 20
SIZE = 1 << 30
"""Bytes of each body: 1 GiB."""
GROWTH = 32 * MIB
"""Bytes that the sidecar's resident memory may grow at its highest."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def gibibyte() -> Iterator[BinaryIO]:
    """A file of `SIZE` zeros that takes no room."""
    with tempfile.TemporaryFile() as file:
        file.truncate(SIZE)
        yield file


def send_chunked(sock: socket.socket, file: BinaryIO) -> None:
    """The whole file in chunks of 1 MiB."""
    for offset in range(0, SIZE, MIB):
        sock.sendall(b"%x\r\n" % MIB)
        sock.sendfile(file, offset, MIB)
        sock.sendall(b"\r\n")
    sock.sendall(b"0\r\n\r\n")


def send_whole(sock: socket.socket, file: BinaryIO) -> None:
    sock.sendfile(file)


SENDERS = {"Content-Length": (f"Content-Length: {SIZE}", send_whole)}
SENDERS["chunked"] = ("Transfer-Encoding: chunked", send_chunked)


class Peer(Closing):
    """An HTTP/1.1 server for the two requests of this file.

    `PUT` reads the body and answers with the zeros it counted; anything else is answered with the file.
    """

    def __init__(self, file: BinaryIO, framing: str) -> None:
        self._file = file
        self._line, self._send = SENDERS[framing]
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._server.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = self._server.accept()
                with accepted:
                    self._serve_one(accepted)

    def _serve_one(self, sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(65536)
        if head.startswith(b"PUT"):
            begun = head.partition(b"\r\n\r\n")[2].count(0)
            count = b"%d" % (begun + count_zeros(sock, SIZE - begun))
            length = len(count)
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % length
            )
            sock.sendall(count)
        else:
            sock.sendall(
                b"HTTP/1.1 200 OK\r\nConnection: close\r\n%b\r\n\r\n" % self._line.encode()
            )
            self._send(sock, self._file)


def count_zeros(sock: socket.socket, wanted: int) -> int:
    """Read until so many zero bytes have come, or the end; how many came. Framing holds none."""
    buffer = bytearray(4 * MIB)
    found = 0
    while found < wanted and (size := sock.recv_into(buffer)):
        found += buffer.count(0, 0, size)
    return found


@pytest.fixture(params=SENDERS)
def framing(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def mesh(framing: str, gibibyte: BinaryIO, config: ConfigFile) -> Iterator[tuple[Program, int]]:
    port = free_port()
    with Peer(gibibyte, framing) as peer:
        config.write(f"""
            listeners:
              - name: out
                port: {port}
                routes: [{{match: {{prefix: /}}, action: {{cluster: peer, timeout: 0}}}}]
            clusters: [{{name: peer, endpoints: ["127.0.0.1:{peer.port}"]}}]
            """)
        with hms_sidecar("--config", config.path) as program:
            program.wait_listening(port)
            yield program, port
            assert program.stop() == 0


def test_a_gibibyte_comes_down(mesh: tuple[Program, int]) -> None:
    program, port = mesh
    with Connection(port, timeout=120) as connection:
        before = program.rss
        program.forget_peak()
        connection.request("GET", "/down")
        head = connection.head()
        assert head.status == 200
        got = connection.buffered.count(0)
        assert got + count_zeros(connection.sock, SIZE - got) == SIZE
        assert program.peak_rss - before <= GROWTH


def test_a_gibibyte_goes_up(mesh: tuple[Program, int], framing: str, gibibyte: BinaryIO) -> None:
    program, port = mesh
    line, send = SENDERS[framing]
    with Connection(port, timeout=120) as connection:
        before = program.rss
        program.forget_peak()
        connection.request("PUT", "/up", line)
        send(connection.sock, gibibyte)
        answer = connection.response()
        assert answer.status == 200
        assert int(answer.body) == SIZE
        assert program.peak_rss - before <= GROWTH
