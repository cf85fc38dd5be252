from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.errors import MeshError
from hms_addons.replay.comparison import Rules
from hms_addons.replay.message import Answered
from hms_addons.replay.player import Player, Result, Target
from hms_addons.replay.selection import Wishes
from tests.replay.kit import recorded

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from hms_addons.replay.message import Recorded


async def played(
    answer: Callable[[httpx.Request], Coroutine[None, None, httpx.Response]],
    *requests: Recorded,
    at_once: int = 1,
    patience: float = 15.0,
) -> tuple[Player, list[Result]]:
    player = Player(
        Target("http://127.0.0.1:9002"),
        Wishes(),
        Rules(),
        timeout=patience,
        at_once=at_once,
        transport=httpx.MockTransport(answer),
    )
    found: list[Result] = []
    async with player:
        await player.play(requests, found.append)
    return player, found


async def same(request: httpx.Request) -> httpx.Response:
    return httpx.Response(200, headers={"Content-Type": "text/plain"}, stream=_stream(b"old"))


def _stream(body: bytes) -> httpx.ByteStream:
    return httpx.ByteStream(body)


async def test_requests_go_out_byte_for_byte() -> None:
    seen: list[httpx.Request] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return await same(request)

    fields = ((b"Host", b"a.svc"), (b"X-Raw", b"\xff"))
    player, _ = await played(answer, recorded(b"/a/../b%2f?q=[1]", fields=fields))
    (request,) = seen
    assert request.extensions["target"] == b"/a/../b%2f?q=[1]"
    assert request.headers.raw == [*fields]
    assert (player.tally.same, player.tally.compared) == (1, 1)


async def test_differences_are_counted_and_told_in_the_file_s_order() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/slow":
            for _ in range(5):
                await asyncio.sleep(0)
            return httpx.Response(500, stream=_stream(b"new"))
        return await same(request)

    requests = [recorded(b"/slow"), recorded(b"/b"), recorded(b"/c"), recorded(method="POST")]
    player, results = await played(answer, *requests, at_once=2)
    assert [one.recorded.target for one in results] == [b"/slow", b"/b", b"/c"]
    assert [len(one.differences) > 0 for one in results] == [True, False, False]
    assert (player.tally.different, player.tally.same) == (1, 2)
    assert sum(player.tally.skipped.values()) == 1


async def test_no_more_are_in_flight_than_asked_for() -> None:
    flying, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal flying, most
        flying += 1
        most = max(most, flying)
        for _ in range(3):
            await asyncio.sleep(0)
        flying -= 1
        return await same(request)

    await played(answer, *[recorded()] * 10, at_once=3)
    assert most == 3


async def test_after_some_that_cannot_be_sent_the_others_are_not_tried() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("nobody there")

    player, results = await played(answer, *[recorded()] * 10)
    assert [one.error for one in results] == ["nobody there"] * 3
    assert (player.tally.failed, player.tally.unsent) == (3, 7)


async def test_a_connection_that_was_let_go_of_is_tried_once_more() -> None:
    calls = 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal calls
        calls += 1
        if calls != 2:
            raise httpx.RemoteProtocolError("gone")
        return await same(request)

    player, results = await played(answer, recorded(), recorded())
    assert [one.error for one in results] == [None, "gone"]
    assert (calls, player.tally.same) == (4, 1)


async def test_whatever_a_library_trips_over_is_that_request_s_error() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/x":
            return httpx.Response(302, headers={"Location": "http://xn--a/"}, stream=_stream(b""))
        return await same(request)

    player, results = await played(answer, recorded(), recorded(b"/y"))
    assert [one.error is None for one in results] == [False, True]
    assert (player.tally.failed, player.tally.same) == (1, 1)


async def test_an_answer_that_never_ends_is_given_up() -> None:
    async def answer(request: httpx.Request) -> httpx.Response:
        await asyncio.Event().wait()
        raise AssertionError

    _, (result,) = await played(answer, recorded(), patience=0.01)
    assert result.error == "no whole answer within 0.01 s"


async def test_what_was_not_recorded_as_a_whole_is_compared_without_its_body() -> None:
    part = Answered(200, ((b"Content-Type", b"text/plain"),), None)
    player, (result,) = await played(same, recorded(answer=part))
    assert result.differences == []
    assert "not recorded as a whole" in (result.partly or "")
    assert player.tally.partly == 1


async def test_an_answer_too_long_is_compared_without_its_body(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hms_addons.replay.player.MOST_BODY", 2)
    _, (result,) = await played(same, recorded())
    assert "longer than 2 bytes" in (result.partly or "")


async def test_secrets_that_are_missing_are_counted() -> None:
    one = recorded(fields=((b"Authorization", b"[redacted]"),))
    player, _ = await played(same, one, one)
    assert player.tally.missing == {"Authorization": 2}


async def test_to_end_it_ends_what_is_in_flight() -> None:
    begun = asyncio.Event()

    async def answer(request: httpx.Request) -> httpx.Response:
        begun.set()
        await asyncio.Event().wait()
        raise AssertionError

    playing = asyncio.ensure_future(played(answer, recorded(), recorded(), at_once=2))
    await begun.wait()
    playing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await playing


@pytest.mark.parametrize(
    "wrong", ["", "ftp://a:1", "http://", "http://a:x", "http://a:1/b", "http://a:1?b", "http://[a"]
)
def test_what_is_no_address_is_refused(wrong: str) -> None:
    with pytest.raises(MeshError, match="is no address"):
        Target(wrong)


def test_an_address_needs_no_scheme() -> None:
    assert repr(Target("127.0.0.1:9002")) == "<Target http://127.0.0.1:9002>"
    assert Target("https://a/").url == "https://a"
