"""The scripted control plane on a loop of its own, for commands that run theirs."""

from __future__ import annotations

import asyncio
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tests.fakes import pki
from tests.fakes.control_server import pin_of, scripted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.control_server import Answers


@contextmanager
def threaded(answers: Answers) -> Iterator[dict[str, str]]:
    """A server that answers as told, and the environment that leads `hms` to it."""
    ready, loop, urls = threading.Event(), asyncio.new_event_loop(), list[str]()
    ends = asyncio.Event()

    async def serve() -> None:
        async with scripted(answers) as (url, _):
            urls.append(url)
            ready.set()
            await ends.wait()

    def run() -> None:
        try:
            loop.run_until_complete(serve())
        finally:
            loop.close()
            ready.set()

    thread = threading.Thread(target=run)
    thread.start()
    ready.wait(10)
    try:
        yield {
            "HMS_CONTROL": urls[0],
            "HMS_CA_PIN": pin_of(pki.bundle()),
            "HMS_ADMIN_TOKEN": "hmsadm1.token",
        }
    finally:
        loop.call_soon_threadsafe(ends.set)
        thread.join(20)
