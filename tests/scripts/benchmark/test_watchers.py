from __future__ import annotations

import asyncio
import ssl
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from scripts.benchmark.process import BenchError
from scripts.benchmark.watchers import Watcher

if TYPE_CHECKING:
    from collections.abc import Sequence


def answer(status: int, *fields: str, body: str = "") -> bytes:
    head = (f"HTTP/1.1 {status} X", *fields, f"Content-Length: {len(body)}", "", body)
    return "\r\n".join(head).encode()


async def asked(*answers: bytes) -> tuple[Watcher, Sequence[bytes]]:
    """A watcher that was given `answers`, and what it has sent."""
    control: Any = SimpleNamespace(port=0, token="t0k", context=ssl.create_default_context())
    watcher, sent = Watcher(control, "svc-1"), list[bytes]()
    writer: Any = SimpleNamespace(write=sent.append)
    for given in answers:
        reader = asyncio.StreamReader()
        reader.feed_data(given)
        await watcher._ask(reader, writer)
    return watcher, sent


async def test_it_asks_with_what_it_has_and_keeps_the_newest() -> None:
    first = answer(200, 'ETag: "7.ab"', body='{"version":7,"config_version":3,"document":{}}')
    watcher, sent = await asked(first, answer(304))
    assert (watcher.version, watcher.bytes) == (3, 46)
    assert watcher.changed
    assert sent[0].startswith(b"GET /v1/snapshot?service=svc-1&wait=60s HTTP/1.1\r\n")
    assert b"Authorization: Bearer t0k\r\n" in sent[0]
    assert b"If-None-Match" not in sent[0]
    assert b'If-None-Match: "7.ab"\r\n\r\n' in sent[1]


async def test_another_answer_ends_the_measurement() -> None:
    with pytest.raises(BenchError, match="svc-1 was given 403: b'no'"):
        await asked(answer(403, body="no"))
