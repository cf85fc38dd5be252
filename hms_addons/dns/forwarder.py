"""Passes queries on to those who know, and their answers back: unchanged, within bounds.

Each UDP query goes out of a socket of its own, whose port the system picks: to forge the answer one would have to
guess port and identifier (RFC 5452). A query that comes out of such a socket has been led back to us.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hms_addons.clock import within
from hms_addons.dns.wire import is_answer_to

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hms_addons.clock import Clock
    from hms_addons.dns.wire import Query

PATIENCE: Final = 2.0
"""Seconds for one resolver's answer."""
ROUNDS: Final = 2
"""Times that each is asked by UDP, which may lose a packet."""
_LARGEST: Final = 65535


class Forwarder:
    """Asks resolvers.

    Args:
        clock: time.

    Attributes:
        own: addresses of the sockets that queries are out of now.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.own: set[tuple[str, int]] = set()

    def __repr__(self) -> str:
        return f"<Forwarder waiting={len(self.own)}>"

    async def ask(
        self, query: Query, data: bytes, resolvers: Sequence[tuple[str, int]], *, stream: bool
    ) -> bytes | None:
        """The first answer that comes; None if none does.

        Args:
            query, data: what is asked, read and as it came.
            resolvers: who is asked, one after the other.
            stream: by TCP.
        """
        for resolver in resolvers if stream else [*resolvers] * ROUNDS:
            try:
                async with within(self._clock, PATIENCE):
                    if stream:
                        return await self._by_tcp(query, data, resolver)
                    return await self._by_udp(query, data, resolver)
            except (OSError, EOFError, TimeoutError):
                continue
        return None

    async def _by_udp(self, query: Query, data: bytes, resolver: tuple[str, int]) -> bytes:
        loop = asyncio.get_running_loop()
        with _socket(resolver, socket.SOCK_DGRAM) as asking:
            asking.connect(resolver)
            with self._noted(asking):
                await loop.sock_sendall(asking, data)
                while True:
                    answer = await loop.sock_recv(asking, _LARGEST)
                    if is_answer_to(query, answer):
                        return answer

    async def _by_tcp(self, query: Query, data: bytes, resolver: tuple[str, int]) -> bytes:
        loop = asyncio.get_running_loop()
        with _socket(resolver, socket.SOCK_STREAM) as asking:
            await loop.sock_connect(asking, resolver)
            with self._noted(asking):
                await loop.sock_sendall(asking, len(data).to_bytes(2) + data)
                size = int.from_bytes(await _exactly(asking, 2))
                answer = await _exactly(asking, size)
        if not is_answer_to(query, answer):
            raise ConnectionError("that is no answer to what was asked")
        return answer

    @contextmanager
    def _noted(self, asking: socket.socket) -> Iterator[None]:
        address = asking.getsockname()[:2]
        self.own.add(address)
        try:
            yield
        finally:
            self.own.discard(address)


def _socket(resolver: tuple[str, int], kind: socket.SocketKind) -> socket.socket:
    made = socket.socket(socket.AF_INET6 if ":" in resolver[0] else socket.AF_INET, kind)
    made.setblocking(False)  # noqa: FBT003 - the socket module's signature
    return made


async def _exactly(asking: socket.socket, size: int) -> bytes:
    loop = asyncio.get_running_loop()
    read = bytearray()
    while len(read) < size:
        more = await loop.sock_recv(asking, size - len(read))
        if not more:
            raise EOFError("the resolver closed the connection")
        read += more
    return bytes(read)
