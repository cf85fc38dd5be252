"""A resolver of one's own, on loopback, by UDP and TCP, that says what a test has told it to."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from hms_addons.tasks import TaskSet
from tests.dns.queries import foreign_answer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ADDRESS = b"\xcb\0\x71\x05"
type Say = Callable[[bytes], list[bytes]]


def knows(data: bytes) -> list[bytes]:
    """Every name is 203.0.113.5."""
    return [foreign_answer(data, ADDRESS)]


def silent(data: bytes) -> list[bytes]:
    """It has been asked, and says nothing."""
    del data
    return []


class Resolver:
    def __init__(self, packets: socket.socket, say: Say) -> None:
        self.address: tuple[str, int] = packets.getsockname()
        self.say = say
        self.asked: list[tuple[bytes, tuple[str, int]]] = []
        self.arrived = asyncio.Event()
        self._packets = packets

    def note(self, data: bytes, peer: tuple[str, int]) -> list[bytes]:
        self.asked.append((data, peer))
        self.arrived.set()
        return self.say(data)

    def read(self) -> None:
        data, peer = self._packets.recvfrom(65535)
        for reply in self.note(data, peer):
            self._packets.sendto(reply, peer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            size = int.from_bytes(await reader.readexactly(2))
            data = await reader.readexactly(size)
            for reply in self.note(data, writer.get_extra_info("peername")):
                writer.write(len(reply).to_bytes(2) + reply)
            await writer.drain()
            await reader.read()
        except (EOFError, OSError):
            pass
        finally:
            writer.close()


def free_port() -> int:
    """A port that is free for UDP and for TCP: on a busy machine many are not for one of them."""
    for _ in range(50):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as packets,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as streams,
        ):
            packets.bind(("127.0.0.1", 0))
            try:
                streams.bind(packets.getsockname())
            except OSError:
                continue
            port: int = packets.getsockname()[1]
            return port
    raise AssertionError("no port is free for both")


@asynccontextmanager
async def resolver(say: Say = knows) -> AsyncIterator[Resolver]:
    tasks = TaskSet("resolver")
    packets = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    packets.setblocking(False)
    packets.bind(("127.0.0.1", free_port()))
    made = Resolver(packets, say)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.start(made.serve(reader, writer), "stream")

    streams = await asyncio.start_server(accept, *made.address)
    loop = asyncio.get_running_loop()
    loop.add_reader(packets.fileno(), made.read)
    try:
        yield made
    finally:
        loop.remove_reader(packets.fileno())
        packets.close()
        streams.close()
        await tasks.close()
        await streams.wait_closed()
