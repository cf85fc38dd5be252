"""Plain long-poll clients, a thousand in one process: each waits for its service's snapshot."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Self

from scripts.benchmark.process import BenchError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from scripts.benchmark.control_process import ControlPlane

WAIT = 60
"""Seconds of one long poll."""
_HANDSHAKES = 32
"""At once, while they connect: it is the waiting that is measured."""
_OK, _NOT_MODIFIED, _TOO_MANY = 200, 304, 429


class Watcher:
    """One client on one connection."""

    def __init__(self, control: ControlPlane, service: str) -> None:
        self._control = control
        self._service = service
        self._etag: str | None = None
        self.version = 0
        """Of the configuration that it has."""
        self.changed = 0.0
        """When its last answer with news was complete, as `time.monotonic`."""
        self.bytes = 0
        """Of that answer's body."""

    async def follow(self, handshakes: asyncio.Semaphore) -> None:
        """Ask again and again until cancelled."""
        context: ssl.SSLContext = self._control.context
        async with handshakes:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", self._control.port, ssl=context, limit=2**16
            )
        try:
            while True:
                await self._ask(reader, writer)
        finally:
            writer.transport.abort()

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        lines = [
            f"GET /v1/snapshot?service={self._service}&wait={WAIT}s HTTP/1.1",
            "Host: 127.0.0.1",
            f"Authorization: Bearer {self._control.token}",
        ]
        if self._etag is not None:
            lines.append(f"If-None-Match: {self._etag}")
        writer.write("\r\n".join((*lines, "", "")).encode())
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        status = int(head.split(" ", 2)[1])
        fields = {}
        for line in head.split("\r\n")[1:]:
            name, _, value = line.partition(":")
            fields[name.lower()] = value.strip()
        body = await reader.readexactly(int(fields.get("content-length", "0")))
        if status == _OK:
            self.changed, self.bytes = time.monotonic(), len(body)
            self._etag = fields["etag"]
            self.version = int(body.partition(b'"config_version":')[2].split(b",", 1)[0])
        elif status == _TOO_MANY:
            await asyncio.sleep(float(fields.get("retry-after", "1")))
        elif status != _NOT_MODIFIED:
            raise BenchError(f"a watcher of {self._service} was given {status}: {body[:200]!r}")


class Watchers:
    """`async with Watchers(control, services) as watchers: …`; `services` has one name a watcher."""

    def __init__(self, control: ControlPlane, services: Sequence[str]) -> None:
        self._control = control
        self.all = [Watcher(control, service) for service in services]
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        """Connect them all."""
        handshakes = asyncio.Semaphore(_HANDSHAKES)
        self._tasks = [asyncio.create_task(one.follow(handshakes)) for one in self.all]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Leave."""
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)

    async def all_wait(self, seconds: float = 120) -> None:
        """Until every one has something and the control plane holds its next question."""
        async with asyncio.timeout(seconds):
            await self._until(lambda: all(one.changed for one in self.all), seconds)
            while await asyncio.to_thread(self._control.waiting) < len(self.all):  # noqa: ASYNC110 - asks a process
                await asyncio.sleep(0.1)

    async def all_have(self, version: int, seconds: float = 60) -> None:
        """Until every one has that version of the configuration."""
        await self._until(lambda: all(one.version >= version for one in self.all), seconds)

    async def _until(self, condition: Callable[[], bool], seconds: float) -> None:
        async with asyncio.timeout(seconds):
            while not condition():
                for task in self._tasks:
                    if task.done():
                        task.result()
                await asyncio.sleep(0.02)
