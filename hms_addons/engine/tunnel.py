"""An upgraded connection (WebSocket and its like): bytes both ways until both sides are done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.upstream.outcome import UpstreamError

if TYPE_CHECKING:
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import BodyStream, Tunnel
    from hms_addons.tasks import TaskSet


async def run_tunnel(
    connection: Http1Server, tunnel: Tunnel, exchange: Exchange, tasks: TaskSet
) -> None:
    """Carry bytes between the client and the upstream, with backpressure, until it is over.

    A side that says it has no more to send is told on; when either side breaks off, so is the other.
    The bytes carried are added to `exchange.bytes_in` and `bytes_out`.

    Args:
        connection: the client's, whose answer of 101 has been written.
        tunnel: the upstream's side.
        exchange: the request that asked for it.
        tasks: runs one of the two directions.
    """
    incoming = connection.start_tunnel()
    upwards = tasks.start(_carry_up(incoming, tunnel), "tunnel")
    try:
        while data := await tunnel.incoming.read():
            exchange.bytes_out += len(data)
            connection.transport.write(data)
            await connection.flow_control.drain()
        if connection.transport.can_write_eof():
            connection.transport.write_eof()
            await upwards
        connection.close()
    except (OSError, UpstreamError):
        connection.abort()
    finally:
        exchange.bytes_in += incoming.received
        upwards.cancel()
        tunnel.close()
        incoming.close()


async def _carry_up(incoming: BodyStream, tunnel: Tunnel) -> None:
    """From the client to the upstream; a broken end shows on the other direction too."""
    try:
        while data := await incoming.read():
            tunnel.write(data)
            await tunnel.drain()
        tunnel.write_eof()
    except (OSError, UpstreamError):
        tunnel.close()
