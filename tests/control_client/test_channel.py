from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import httpx
import pytest

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control_client.channel import MOST_BYTES, Channel, Question
from hms_addons.control_client.failures import (
    ControlAnswerError,
    ControlAwayError,
    ControlRefusedError,
    ControlUntrustedError,
)
from hms_addons.control_client.trust import control_context
from hms_addons.identity.spiffe_id import SpiffeId
from tests.fakes.clock import FakeClock
from tests.fakes.control_plane import FakeControlPlane, problem, reply
from tests.fakes.upstream_server import RawServer, read_head

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ASK = Question("GET", "/v1/x")


@pytest.fixture
async def control() -> AsyncIterator[FakeControlPlane]:
    async with FakeControlPlane() as plane:
        yield plane


@pytest.fixture
async def channel(control: FakeControlPlane) -> AsyncIterator[Channel]:
    opened = Channel(control_context(control.bundle, None, SYSTEM_CLOCK), SYSTEM_CLOCK)
    yield opened
    assert opened.users == 0
    await opened.close()


async def test_an_answer(control: FakeControlPlane, channel: Channel) -> None:
    control.answers["/v1/x"] = reply(200, b'{"a": 1}', "X-Y: z")
    found = await channel.ask(control.url, ASK)
    assert (found.status, found.headers["x-y"], found.json("c")) == (200, "z", {"a": 1})
    assert control.requests == [("GET", "/v1/x", None)]


@pytest.mark.parametrize("status", [204, 304])
async def test_without_a_body(control: FakeControlPlane, channel: Channel, status: int) -> None:
    control.answers["/v1/x"] = reply(status)
    assert (await channel.ask(control.url, ASK)).body == b""


async def test_a_refusal_says_what_the_other_side_said(
    control: FakeControlPlane, channel: Channel
) -> None:
    control.answers["/v1/x"] = problem(403, "not\nyours" + "!" * 1000)
    with pytest.raises(ControlRefusedError, match="GET /v1/x with 403: not yours!!") as caught:
        await channel.ask(control.url, ASK)
    assert caught.value.status == 403
    assert len(str(caught.value)) < 400
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("status", [408, 429, 500, 503])
async def test_later(control: FakeControlPlane, channel: Channel, status: int) -> None:
    control.answers["/v1/x"] = reply(status, b"", "Retry-After: 7")
    with pytest.raises(ControlAwayError) as caught:
        await channel.ask(control.url, ASK)
    assert caught.value.retry_after == 7
    control.answers["/v1/x"] = reply(status, b"", "Retry-After: Fri, 01 Jan 2027 00:00:00 GMT")
    with pytest.raises(ControlAwayError) as caught:
        await channel.ask(control.url, ASK)
    assert caught.value.retry_after is None


async def test_a_redirect_is_not_followed(control: FakeControlPlane, channel: Channel) -> None:
    control.answers["/v1/x"] = reply(307, b"", f"Location: {control.url}/v1/bundle")
    with pytest.raises(ControlAnswerError, match="307"):
        await channel.ask(control.url, ASK)
    assert len(control.requests) == 1


async def test_an_answer_without_end(control: FakeControlPlane, channel: Channel) -> None:
    control.answers["/v1/x"] = reply(200, b"x" * (MOST_BYTES + 1))
    with pytest.raises(ControlAnswerError, match=f"more than {MOST_BYTES} bytes"):
        await channel.ask(control.url, ASK)


async def test_a_packed_answer(control: FakeControlPlane, channel: Channel) -> None:
    control.answers["/v1/x"] = reply(200, b"x", "Content-Encoding: gzip")
    with pytest.raises(ControlAnswerError, match="packed"):
        await channel.ask(control.url, ASK)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b'{"a": NaN}', b"[" * 100_000, b"\xff"])
async def test_what_is_no_json_object(
    control: FakeControlPlane, channel: Channel, body: bytes
) -> None:
    control.answers["/v1/x"] = reply(200, body)
    found = await channel.ask(control.url, ASK)
    with pytest.raises(ControlAnswerError):
        found.json("c")


async def test_bytes_that_are_no_answer(control: FakeControlPlane, channel: Channel) -> None:
    control.answers["/v1/x"] = b"SSH-2.0-OpenSSH_9.2\r\n\r\n"
    with pytest.raises(ControlAwayError, match="cannot be reached"):
        await channel.ask(control.url, ASK)


async def test_an_answer_that_never_comes(control: FakeControlPlane) -> None:
    clock = FakeClock()
    channel = Channel(control_context(control.bundle, None, SYSTEM_CLOCK), clock)
    control.answers["/v1/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1"
    asked = asyncio.ensure_future(channel.ask(control.url, ASK._replace(seconds=20)))
    await control.until(lambda: bool(control.requests))
    clock.tick(19.9)
    assert not asked.done()
    clock.tick(0.2)
    with pytest.raises(ControlAwayError, match="within 20s"):
        await asked
    assert clock.pending == 0
    await channel.close()


async def test_nobody_is_there(channel: Channel) -> None:
    async with FakeControlPlane() as gone:
        url = gone.url
    with pytest.raises(ControlAwayError, match="cannot be reached"):
        await channel.ask(url, ASK)


async def test_a_port_that_does_not_speak_tls(channel: Channel) -> None:
    async def plain(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    async with RawServer(plain) as server:
        with pytest.raises(ControlAwayError, match="does not speak TLS"):
            await channel.ask(f"https://127.0.0.1:{server.port}", ASK)


async def test_a_sidecar_of_the_mesh_cannot_pose_as_control_plane(
    control: FakeControlPlane, channel: Channel
) -> None:
    impostor = FakeControlPlane(control.authority)
    impostor.name = "/svc/claims-svc"
    async with impostor:
        with pytest.raises(ControlUntrustedError, match="hms/control.*nothing was sent"):
            await channel.ask(impostor.url, ASK)
    assert impostor.requests == []


async def test_another_ca_s_control_plane(channel: Channel) -> None:
    async with FakeControlPlane() as stranger:
        with pytest.raises(ControlUntrustedError, match="cannot prove"):
            await channel.ask(stranger.url, ASK)
    assert stranger.requests == []


async def test_our_own_certificate_is_shown(control: FakeControlPlane) -> None:
    svid = control.authority.issue(SpiffeId.for_service("mpsa.mil", "claims-svc"))
    channel = Channel(control_context(control.bundle, svid, SYSTEM_CLOCK), SYSTEM_CLOCK)
    control.answers["/v1/x"] = reply(200, b"{}")
    await channel.ask(control.url, ASK)
    assert control.requests == [("GET", "/v1/x", "/svc/claims-svc")]
    await channel.close()


async def test_cancelled_while_it_waits(control: FakeControlPlane, channel: Channel) -> None:
    control.answers["/v1/x"] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n1"
    asked = asyncio.ensure_future(channel.ask(control.url, ASK))
    await control.until(lambda: bool(control.requests))
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked


async def test_proxies_of_the_environment_are_not_used(
    control: FakeControlPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def tell(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)

    async with RawServer(tell) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
        monkeypatch.setenv("ALL_PROXY", f"http://127.0.0.1:{proxy.port}")
        channel = Channel(control_context(control.bundle, None, SYSTEM_CLOCK), SYSTEM_CLOCK)
        control.answers["/v1/x"] = reply(200, b"{}")
        await channel.ask(control.url, ASK)
        await channel.close()
        assert proxy.accepted == 0


async def test_an_error_without_words_is_told_by_its_name(control: FakeControlPlane) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadError("", request=request)

    context = control_context(control.bundle, None, SYSTEM_CLOCK)
    silent = Channel(context, FakeClock(), httpx.MockTransport(handle))
    with pytest.raises(ControlAwayError, match="cannot be reached: ReadError$"):
        await silent.ask("https://control.test", ASK)
    await silent.close()
