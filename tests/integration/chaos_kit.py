"""Replicas that fail by turns, a steady load on them, and an account of every request.

Everything here runs on one event loop; the sidecar between client and replicas is a process of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from tests.integration.servers import Serving, reset

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence

    from tests.integration.servers import Behaviour, Received, Visit

FAULTS: Final = ("crash", "hang", "reset mid-body", "slow", "500")
BODY: Final = b"0123456789" * 40
SLOW: Final = 0.8
"""Seconds that a slow replica takes: longer than one try may, shorter than a claim's timeout."""


class Replica(Serving):
    """An app that does what its `mood` says, and writes down what it has carried out.

    Attributes:
        mood: None for good health, else one of `FAULTS`.
        done: how often each request was carried out, by its X-Request-ID: whole, whatever came of
            the answer.
        served: requests in good health since the last change of mood.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mood: str | None = None
        self.done: Counter[str] = Counter()
        self.served = 0
        self._well = asyncio.Event()

    def behaviour(self, request: Received) -> Behaviour:
        """By mood."""
        del request
        return self._behave

    async def _behave(self, visit: Visit) -> bool | None:
        await visit.read_body()
        self.done[visit.request.header("x-request-id") or ""] += 1
        mood = self.mood
        if mood == "hang":
            await self._well.wait()
            return False
        if mood == "500":
            await visit.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n")
            return True
        if mood == "slow":
            await asyncio.sleep(SLOW)
        head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(BODY)
        if mood == "reset mid-body":
            await visit.send(head + BODY[:100])
            return reset(visit)
        self.served += mood is None
        await visit.send(head + BODY)
        return True

    async def turn(self, mood: str | None) -> None:
        """From now on it is like this."""
        before, self.mood = self.mood, mood
        self.served = 0
        if mood == "crash":
            await self.stop()
        elif before == "crash":
            await self.start(self.port)
        if mood is None:
            self._well.set()
            self._well = asyncio.Event()


async def trouble(
    replicas: Sequence[Replica], rng: random.Random, seconds: float, seen: Counter[str]
) -> None:
    """Replicas fail by turns, at most two at once, for so long; then all are well."""
    loop = asyncio.get_running_loop()
    end = loop.time() + seconds
    sick: dict[Replica, float] = {}
    turns: list[str] = []
    while loop.time() < end:
        for replica, until in list(sick.items()):
            if loop.time() >= until:
                del sick[replica]
                await replica.turn(None)
        if len(sick) < 2:
            # Every fault has its turn before one comes again.
            turns = turns or rng.sample(FAULTS, len(FAULTS))
            fault = turns.pop()
            victim = rng.choice([replica for replica in replicas if replica not in sick])
            await victim.turn(fault)
            seen[fault] += 1
            sick[victim] = loop.time() + rng.uniform(0.5, 2.5)
        await asyncio.sleep(rng.uniform(0.2, 0.8))
    for replica in sick:
        await replica.turn(None)


@dataclass
class Outcome:
    """What became of one request."""

    name: str
    status: int
    """0: the connection ended before the answer was whole."""
    took: float
    """Seconds."""


@dataclass
class Load:
    """Requests at a steady pace, each on a connection of its own; whoever is late is not waited for."""

    port: int
    method: str
    target: str
    every: float
    outcomes: list[Outcome] = field(default_factory=list)

    async def run(self, seconds: float) -> None:
        """For so long, and until the last has ended."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            number = 0
            while (at := began + number * self.every) < began + seconds:
                await asyncio.sleep(max(0.0, at - loop.time()))
                group.create_task(self._one(f"{self.method}-{number}"))
                number += 1

    async def _one(self, name: str) -> None:
        outcome = await ask(self.port, self.method, self.target, name)
        self.outcomes.append(outcome)


async def ask(port: int, method: str, target: str, name: str) -> Outcome:
    """One request; a cut answer has the status 0."""
    loop = asyncio.get_running_loop()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    began = loop.time()
    status = 0
    body = b"pay" if method == "POST" else b""
    try:
        writer.write(
            f"{method} {target} HTTP/1.1\r\nHost: mesh.test\r\nX-Request-ID: {name}\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
            await reader.readexactly(length)
            status = int(head.split(b" ", 2)[1])
        return Outcome(name, status, loop.time() - began)
    finally:
        writer.close()


class Lateness:
    """How late this machine runs a timer: what a measured time may owe to it and not to the mesh."""

    def __init__(self) -> None:
        self.found: list[float] = []

    async def watch(self) -> None:
        """Until it is cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            due = loop.time() + 0.02
            await asyncio.sleep(0.02)
            self.found.append(loop.time() - due)


def quantile(values: Sequence[float], share: float) -> float:
    """The value that `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0
