"""The open tunnels of one lane, which are judged again when the configuration changes.

A tunnel (a WebSocket, or another upgrade) outlives the decision that let it in. When a new snapshot is
in force, `hms_recheck` is asked about each; one that is refused is closed. A tunnel that opens
after the change, by a decision made before it, is judged at once. (ztunnel rechecks live connections likewise.)
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from hms_addons.engine.tunnel import run_tunnel
from hms_addons.engine.websocket import WebSocketRelay

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.engine.fast_lane import Binding
    from hms_addons.engine.flow_events import FlowEvents
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Tunnel
    from hms_addons.tasks import TaskSet

logger = logging.getLogger(__name__)

_AT_A_TIME = 50
"""Tunnels that are judged before others get their turn on the loop."""


class OpenTunnels:
    """Those of one lane.

    Args:
        binding: the lane's, as it is in force.
        events: mitmproxy's listeners, who are shown a WebSocket's messages.
        tasks: runs what judges them, and one of a tunnel's two directions.
        now: tells the time, in seconds since the epoch.
    """

    __slots__ = ("_binding", "_closers", "_events", "_now", "_tasks")

    def __init__(
        self,
        binding: Callable[[], Binding],
        events: FlowEvents,
        tasks: TaskSet,
        now: Callable[[], float],
    ) -> None:
        self._binding = binding
        self._events = events
        self._tasks = tasks
        self._now = now
        self._closers: dict[Exchange, Callable[[], object]] = {}

    def __len__(self) -> int:
        return len(self._closers)

    def __repr__(self) -> str:
        return f"<OpenTunnels {len(self._closers)}>"

    async def carry(self, connection: Http1Server, tunnel: Tunnel, exchange: Exchange) -> None:
        """Carry what passes between a client and its upstream, until it is over.

        Args:
            connection: the client's, whose answer of 101 has been written.
            tunnel: the upstream's side.
            exchange: the request that asked for it.
        """
        flow = exchange.made_flow
        if flow is None or flow.websocket is None:
            self._closers[exchange] = connection.abort
            work = run_tunnel(connection, tunnel, exchange, self._tasks)
        else:
            relay = WebSocketRelay(
                connection, tunnel, exchange, self._events, self._tasks, self._now
            )
            self._closers[exchange] = relay.refuse
            work = relay.run()
        try:
            if exchange.snapshot is not self._binding().snapshot:
                self._start([exchange])
            await work
        finally:
            del self._closers[exchange]

    def recheck(self) -> None:
        """A new configuration is in force."""
        if self._closers:
            self._start(list(self._closers))

    def _start(self, exchanges: list[Exchange]) -> None:
        if self._binding().chain.rechecks and not self._tasks.closed:
            self._tasks.start(self._judge(exchanges), "recheck")

    async def _judge(self, exchanges: list[Exchange]) -> None:
        for count, exchange in enumerate(exchanges, start=1):
            await self._judge_one(exchange)
            if count % _AT_A_TIME == 0:
                await asyncio.sleep(0)

    async def _judge_one(self, exchange: Exchange) -> None:
        if exchange not in self._closers:
            return
        binding = self._binding()
        judged = exchange.under(binding.snapshot, binding.listener)
        await binding.chain.recheck(judged)
        failure, close = judged.failure, self._closers.get(exchange)
        if failure is None or close is None:
            return
        logger.info(
            "listener %s: a tunnel is closed, as configuration %s does not allow it: %s (request %s)",
            exchange.listener.name,
            binding.snapshot.version,
            failure.detail,
            exchange.request_id[:128],
        )
        exchange.failure = exchange.failure or failure
        exchange.decision = judged.decision
        close()
