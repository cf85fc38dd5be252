"""A fast lane with everything real but the sockets, the upstream and the plugins, which are scripted."""

from __future__ import annotations

import types
from random import Random
from typing import TYPE_CHECKING, Any

from mitmproxy.exceptions import AddonHalt

from hms_addons.config.snapshot import Direction
from hms_addons.engine.connection_context import ConnectionContext
from hms_addons.engine.fast_lane import Binding, FastLane
from hms_addons.engine.flow_builder import build_client, unconnected_server
from hms_addons.engine.flow_events import FlowEvents
from hms_addons.engine.hook_chain import Hook, HookChain
from hms_addons.engine.http1_server import Http1Server
from hms_addons.http_message import Answer
from hms_addons.tasks import TaskSet
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_listener, make_route, make_snapshot
from tests.fakes.lane import Response, read_responses, settle
from tests.fakes.transport import FakeTransport
from tests.fakes.upstream import make_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.exchange import Exchange

PHASES = ("identify", "route", "authorize", "prepare", "forward", "respond", "complete")


class World:
    """A lane whose one plugin does what `phases` say, and agrees where they say nothing.

    Attributes:
        log: phases and mitmproxy events, in the order in which they came.
        completed: every exchange that was completed.
        sent: what was forwarded: method, path with query, fields.
    """

    def __init__(
        self,
        *,
        events: dict[str, Callable[[Any], Any]] | None = None,
        direction: Direction = Direction.INBOUND,
        **phases: Any,
    ) -> None:
        self.log: list[str] = []
        self.completed: list[Exchange] = []
        self.sent: list[tuple[str, str, dict[str, str]]] = []
        self.clock = FakeClock()
        self.tasks = TaskSet("test")
        self._phases = phases
        names = [name for name in PHASES if name != "respond" or name in phases]
        hooks = {
            f"hms_{name}": [Hook(self._hook(name), "scripted", f"hms_{name}")] for name in names
        }
        self.chain = HookChain(hooks, Random(1), self.clock)
        self.events = FlowEvents(AddonHalt)
        if events:
            script = types.SimpleNamespace(
                **{name: self._listener(name, function) for name, function in events.items()}
            )
            self.events.compile([script])
        snapshot = make_snapshot(clusters={"auth-svc": make_cluster()})
        self.lane = FastLane(
            Binding.of(snapshot, make_listener(direction=direction), self.chain),
            "the upstream",
            self.events,
            self.clock,
            self.tasks,
            self._identify,
            unconnected_server(),
        )
        self.connection = Http1Server(self.lane, self.clock)
        self.transport = FakeTransport(self.connection)

    def _identify(self, connection: Http1Server, listener: Any) -> ConnectionContext:
        client = build_client(connection.peername, connection.sockname, None, tls=False)
        return ConnectionContext(client, tls=False)

    def _listener(self, name: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def listener(data: Any) -> Any:
            self.log.append(name)
            return function(data)

        return listener

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(exchange: Exchange, upstream: Any = None) -> Any:
            self.log.append(name)
            if name == "complete":
                self.completed.append(exchange)
            if name == "forward":
                assert upstream == "the upstream"
                request = exchange.flow.request
                fields = {key.lower(): value for key, value in request.headers.items()}
                self.sent.append((request.method, request.path, fields))
            if name in self._phases:
                return self._phases[name](exchange)
            if name == "route":
                return make_route()
            return Answer(200, b"OK", (), b"fine") if name == "forward" else None

        return hook

    async def send(self, data: bytes) -> list[Response]:
        """Bytes arrive; what has been answered since the beginning."""
        if not self.transport.is_closing():
            self.connection.data_received(data)
        await settle()
        return self.responses()

    def responses(self) -> list[Response]:
        return read_responses(bytes(self.transport.sent), ended=self.transport.is_closing())

    async def end(self, completed: int = 1) -> None:
        """The client leaves: each request was completed once, and nothing is left."""
        self.transport.reset()
        await settle()
        assert self.lane.connections == set()
        assert self.lane.in_flight == 0
        assert len(self.tasks) == 0
        assert self.clock.pending == 0
        assert len(self.completed) == len({id(one) for one in self.completed}) == completed
        assert self.log.count("complete") == completed


def phase_of(name: str, function: Any) -> dict[str, Any]:
    """One phase for `World`, by name."""
    return {name: function}


def nothing(data: Any) -> None:
    """An addon that only listens."""
