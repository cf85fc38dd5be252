"""One batch, one POST: what a collector makes of it."""

from __future__ import annotations

import asyncio
import gzip
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.spans.collector import MAX_ANSWER, Collector
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

URL = "http://127.0.0.1:4318/v1/traces"


def collector(handler: object, clock: FakeClock | None = None) -> Collector:
    transport = httpx.MockTransport(handler)  # type: ignore[arg-type]
    return Collector(URL, {"x-scope-orgid": "mpsa"}, 10.0, clock or FakeClock(), transport)


async def test_a_batch_is_posted_as_protobuf() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(200, content=b"fine")

    one = collector(answer)
    reply = await one.post(b"spans")
    assert (reply.taken, reply.body) == (True, b"fine")
    (request,) = seen
    assert (request.method, str(request.url), request.content) == ("POST", URL, b"spans")
    assert request.headers["content-type"] == "application/x-protobuf"
    assert request.headers["x-scope-orgid"] == "mpsa"
    assert request.headers["accept-encoding"] == "identity"
    assert repr(one) == f"<Collector {URL}>"
    await one.close()


@pytest.mark.parametrize(
    ("status", "retriable"),
    [(400, False), (401, False), (404, False), (429, True), (500, False), (502, True), (503, True),
     (504, True), (302, False)],
)  # fmt: skip
async def test_which_refusals_are_for_good(status: int, retriable: bool) -> None:
    one = collector(lambda _: httpx.Response(status, headers={"Location": "http://evil.test"}))
    reply = await one.post(b"")
    assert (reply.taken, reply.retriable) == (False, retriable)
    assert reply.error == f"status {status}"


async def test_where_a_redirect_leads_is_not_even_read() -> None:
    """httpx would read it, and idna would raise what is no `HTTPError`."""
    seen: list[str] = []

    def lead(request: httpx.Request) -> httpx.Response:
        seen.append(str(request.url))
        return httpx.Response(302, headers={"Location": "http://xn--a/"})

    reply = await collector(lead).post(b"")
    assert (reply.taken, reply.retriable, reply.error) == (False, False, "status 302")
    assert seen == [URL]


async def test_whatever_goes_wrong_is_a_no_and_says_why() -> None:
    def break_down(_: httpx.Request) -> httpx.Response:
        raise UnicodeError("x" * 1000)

    reply = await collector(break_down).post(b"")
    assert (reply.taken, reply.retriable) == (False, False)
    assert reply.error.startswith("UnicodeError: xxx")
    assert len(reply.error) == 200


@pytest.mark.parametrize(("value", "seconds"), [("7", 7.0), ("soon", None), ("-1", None)])
async def test_it_may_ask_to_be_left_alone(value: str, seconds: float | None) -> None:
    one = collector(lambda _: httpx.Response(429, headers={"Retry-After": value}))
    assert (await one.post(b"")).retry_after == seconds


async def test_one_that_is_not_there_may_come_back() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    reply = await collector(refuse).post(b"")
    assert (reply.taken, reply.retriable, reply.error) == (False, True, "ConnectError: refused")


async def test_one_that_hangs_is_given_up_after_the_timeout() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    clock = FakeClock()
    task = asyncio.ensure_future(collector(hang, clock).post(b""))
    await clock.advance(9.9)
    assert not task.done()
    await clock.advance(0.2)
    reply = await task
    assert (reply.taken, reply.retriable) == (False, True)
    assert reply.error == "no answer within 10s"
    assert not clock.pending


async def test_waiting_for_it_can_be_cancelled() -> None:
    async def hang(_: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    clock = FakeClock()
    task = asyncio.ensure_future(collector(hang, clock).post(b""))
    await clock.advance(1.0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not clock.pending


async def test_an_answer_without_end_is_read_no_further() -> None:
    given = 0

    async def endless() -> object:
        nonlocal given
        while True:
            given += 1
            yield b"x" * 4096

    reply = await collector(lambda _: httpx.Response(200, content=endless())).post(b"")  # type: ignore[arg-type]
    assert reply.taken
    assert len(reply.body) == MAX_ANSWER
    assert given <= MAX_ANSWER // 4096 + 2


@pytest.mark.parametrize("encoding", ["gzip", "GZIP", "identity, gzip", "br", "unknown"])
async def test_an_answer_that_is_compressed_is_not_unpacked(encoding: str) -> None:
    given = 0

    async def bomb() -> AsyncIterator[bytes]:
        nonlocal given
        given += 1
        yield gzip.compress(bytes(10_000_000))

    one = collector(
        lambda _: httpx.Response(200, headers={"Content-Encoding": encoding}, content=bomb())
    )
    reply = await one.post(b"")
    assert (reply.taken, reply.body, given) == (True, b"", 0)
