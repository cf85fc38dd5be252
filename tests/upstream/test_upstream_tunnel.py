"""What becomes of a connection after 101 Switching Protocols."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.upstream import settle
from tests.upstream.test_http1_client import GET, Rig

if TYPE_CHECKING:
    from hms_addons.http_message import Tunnel

SWITCH = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: ws\r\nX-A: b\r\n\r\n"


@pytest.fixture
async def rig() -> Any:
    rig = Rig()
    yield rig
    await rig.end()


async def open_tunnel(rig: Rig, rest: bytes = b"") -> Tunnel:
    waiter = rig.send(GET, 110.0, upgrade=b"chat, ws")
    rig.say(SWITCH + rest)
    answer = await waiter
    assert (answer.status, answer.fields) == (101, ((b"X-A", b"b"),))
    assert answer.tunnel is not None
    assert answer.tunnel.protocol == b"ws"
    return answer.tunnel


async def test_bytes_both_ways(rig: Rig) -> None:
    tunnel = await open_tunnel(rig, b"hello")
    assert await tunnel.incoming.read() == b"hello"
    rig.say(b"\x81\x02hi")
    assert await tunnel.incoming.read() == b"\x81\x02hi"
    tunnel.write(b"\x88\x00")
    await tunnel.drain()
    assert rig.transport.written == GET + b"\x88\x00"
    assert rig.diary == [], "its slots stay occupied"


async def test_the_routes_timeout_does_not_end_it(rig: Rig) -> None:
    tunnel = await open_tunnel(rig)
    rig.clock.tick(10_000)
    assert not tunnel.incoming.ended


async def test_an_ordinary_answer_to_an_upgrade(rig: Rig) -> None:
    waiter = rig.send(GET, upgrade=b"chat, ws")
    rig.say(b"HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\n\r\n")
    answer = await waiter
    assert (answer.status, answer.tunnel) == (426, None)
    assert rig.diary == ["reusable"]


async def test_closing_it_frees_the_connections_slots(rig: Rig) -> None:
    tunnel = await open_tunnel(rig)
    tunnel.close()
    assert rig.diary == ["finished", "lost"]
    assert await tunnel.incoming.read() == b""
    tunnel.write(b"late")
    tunnel.write_eof()
    tunnel.close()


async def test_half_close(rig: Rig) -> None:
    tunnel = await open_tunnel(rig)
    assert rig.connection.eof_received() is True  # keep the other half
    assert await tunnel.incoming.read() == b""
    tunnel.write(b"more")
    tunnel.write_eof()
    assert rig.transport.eof_written
    assert rig.diary == []


async def test_a_transport_that_cannot_be_half_closed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rig.transport, "can_write_eof", lambda: False)
    tunnel = await open_tunnel(rig)
    assert rig.connection.eof_received() is False
    tunnel.write_eof()
    assert rig.diary == ["finished", "lost"]


async def test_an_upstream_that_goes(rig: Rig) -> None:
    tunnel = await open_tunnel(rig)
    rig.transport.lose(ConnectionResetError("reset"))
    await settle()
    with pytest.raises(ConnectionResetError):
        await tunnel.incoming.read()
    with pytest.raises(ConnectionResetError):
        await tunnel.drain()
    assert rig.diary == ["finished", "lost", "gone"]


async def test_drain_waits_for_the_buffer(rig: Rig) -> None:
    tunnel = await open_tunnel(rig)
    rig.connection.pause_writing()
    waiting = asyncio.create_task(tunnel.drain())
    await settle()
    assert not waiting.done()
    rig.connection.resume_writing()
    await waiting


async def test_repr(rig: Rig) -> None:
    tunnel = await open_tunnel(rig)
    assert repr(tunnel) == "<UpstreamTunnel open <BodyStream open buffered=0>>"
