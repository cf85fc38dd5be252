"""An upgraded connection (WebSocket and its like): bytes both ways until both sides are done."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Tunnel


async def run_tunnel(connection: Http1Server, tunnel: Tunnel, exchange: Exchange) -> None:
    """Carry bytes between the client and the upstream, with backpressure, until it is over.

    A side that says it has no more to send is told on; when either side breaks off, so is the other.
    The bytes carried are added to `exchange.bytes_in` and `bytes_out` by the end.
    """
    incoming = connection.start_tunnel()

    async def upstream() -> None:
        while data := await incoming.read():
            tunnel.write(data)
            await tunnel.drain()
        tunnel.write_eof()

    async def downstream() -> None:
        while data := await tunnel.incoming.read():
            exchange.bytes_out += len(data)
            connection.transport.write(data)
            await connection.flow_control.drain()
        if connection.transport.can_write_eof():
            connection.transport.write_eof()
        else:
            connection.close()  # TLS has no half-close

    tasks = [asyncio.ensure_future(upstream()), asyncio.ensure_future(downstream())]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
        for task in done:
            task.result()
    except (OSError, EOFError):
        connection.abort()
    else:
        connection.close()
    finally:
        for task in tasks:
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError, Exception):
                await task
        tunnel.close()
        incoming.close()
