"""Clients that say exactly what a test wants, and read answers as a strict client reads them."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.integration.basics import Closing, Fields, Headed, parse_fields

if TYPE_CHECKING:
    import ssl

TIMEOUT = 15.0


@dataclass
class Response(Headed):
    """An answer; interim (1xx) ones that came before it are in `interim`."""

    status: int
    reason: str
    fields: Fields
    body: bytes = b""
    trailers: Fields = field(default_factory=list)
    interim: list[Response] = field(default_factory=list)
    version: str = "HTTP/1.1"

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)

    @property
    def flag(self) -> str | None:
        """The mesh's flag, if this is its own answer."""
        return self.header("x-hms-flag")

    @property
    def closes(self) -> bool:
        """It announces that the connection ends."""
        return (self.header("connection") or "").lower() == "close"


class Connection(Closing):
    """A connection to 127.0.0.1, over TLS if a context is given."""

    def __init__(
        self, port: int, tls: ssl.SSLContext | None = None, timeout: float = TIMEOUT
    ) -> None:
        sock = socket.create_connection(("127.0.0.1", port), timeout)
        try:
            self.sock = sock if tls is None else tls.wrap_socket(sock)
        except BaseException:
            sock.close()
            raise
        self._buffer = b""

    def close(self) -> None:
        """Close it."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send it all."""
        self.sock.sendall(data)

    def request(
        self,
        method: str,
        target: str,
        *fields: str,
        body: bytes | None = None,
        host: str = "mesh.test",
    ) -> None:
        """Send a request of HTTP/1.1; `fields` are whole header lines."""
        lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *fields]
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b""))

    def exchange(self, method: str, target: str, *fields: str, **options: Any) -> Response:
        """Send a request, read its answer."""
        self.request(method, target, *fields, **options)
        return self.response(method)

    @property
    def buffered(self) -> bytes:
        """What has been received and not been asked for."""
        return self._buffer

    # -- reading --------------------------------------------------------------------------------

    def _more(self) -> bytes:
        data = self.sock.recv(256 * 1024)
        self._buffer += data
        return data

    def read_until(self, end: bytes) -> bytes:
        """Bytes up to and with `end`."""
        while end not in self._buffer:
            if not self._more():
                raise EOFError(f"the connection ended after {self._buffer[:200]!r}")
        found, _, self._buffer = self._buffer.partition(end)
        return found + end

    def read_exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self._buffer) < size:
            if not self._more():
                raise EOFError(f"the connection ended {size - len(self._buffer)} bytes too early")
        found, self._buffer = self._buffer[:size], self._buffer[size:]
        return found

    def head(self) -> Response:
        """A response's head, interim or final."""
        line, _, rest = self.read_until(b"\r\n\r\n").partition(b"\r\n")
        version, code, reason = (line.decode("latin-1") + " ").split(" ", 2)
        assert version.startswith("HTTP/1."), f"not an answer: {line!r}"
        return Response(int(code), reason.strip(), parse_fields(rest), version=version)

    def response(self, method: str = "GET") -> Response:
        """A whole response by the rules of RFC 9112 section 6.3.

        Raises:
            EOFError: the connection ended before it was whole.
        """
        interim = []
        found = self.head()
        while 100 <= found.status < 200 and found.status != 101:
            interim.append(found)
            found = self.head()
        found.interim = interim
        if method == "HEAD" or found.status in {101, 204, 304}:
            return found
        if found.header("transfer-encoding") == "chunked":
            assert found.header("content-length") is None
            while piece := self.chunk():
                found.body += piece
            while (line := self.read_until(b"\r\n")) != b"\r\n":
                found.trailers += parse_fields(line)
        elif (length := found.header("content-length")) is not None:
            found.body = self.read_exactly(int(length))
        else:
            found.body = self.rest()
        return found

    def chunk(self) -> bytes:
        """One chunk; the last is empty, and its trailer section is left to be read."""
        size = int(self.read_until(b"\r\n").split(b";")[0], 16)
        data = self.read_exactly(size)
        if size:
            assert self.read_exactly(2) == b"\r\n"
        return data

    def rest(self) -> bytes:
        """All that comes until the other side closes.

        Raises:
            TimeoutError: it does not close.
        """
        while self._more():
            pass
        found, self._buffer = self._buffer, b""
        return found

    @property
    def ended(self) -> bool:
        """The other side has closed (waits for it), and had nothing more to say.

        Raises:
            TimeoutError: it stays open.
        """
        try:
            return self.rest() == b""
        except ConnectionError:
            return True


def fetch(port: int, method: str, target: str, *fields: str, **options: Any) -> Response:
    """One request on a connection of its own."""
    tls = options.pop("tls", None)
    with Connection(port, tls) as connection:
        return connection.exchange(method, target, *fields, **options)


def curl(*arguments: str, data: bytes | None = None) -> subprocess.CompletedProcess[str]:
    """Run curl without a user's configuration; it may take 30 s."""
    path = shutil.which("curl")
    assert path is not None, "tests that use curl are marked so"
    return subprocess.run(
        [path, "-q", "--silent", "--show-error", "--max-time", "30", *arguments],
        input=None if data is None else data.decode("latin-1"),
        capture_output=True,
        text=True,
        check=False,
        timeout=40,
    )
