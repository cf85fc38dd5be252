"""The chain inside mitmproxy's own layers: its events as mitmproxy fires them, scripted plugins."""

from __future__ import annotations

import asyncio
import types
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.connection import Client, Server
from mitmproxy.http import Headers, HTTPFlow, Request, Response

from hms_addons.config.snapshot import Direction
from hms_addons.engine.fast_lane import Binding
from hms_addons.engine.flow_builder import flow_error
from hms_addons.engine.hook_chain import Hook, HookChain
from hms_addons.engine.native_lane import MAX_HELD, NativeLane
from hms_addons.errors import Failure, Fault
from hms_addons.http_message import Answer, BodyStream
from hms_addons.upstream.outcome import Outcome, UpstreamError
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_listener, make_route, make_snapshot
from tests.fakes.lane import settle
from tests.fakes.upstream import make_cluster

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Fields

SNAPSHOT = make_snapshot(clusters={"auth-svc": make_cluster()})
OUTBOUND = make_listener(name="apps", port=15001, direction=Direction.OUTBOUND)
INBOUND = make_listener(name="peers", port=15006)


def make_flow(
    path: str = "/verify-id", *, port: int = 15006, method: str = "GET", headers: Fields = ()
) -> HTTPFlow:
    """A live flow as mitmproxy hands it to `request`."""
    flow = HTTPFlow(
        Client(peername=("192.0.2.7", 40000), sockname=("127.0.0.1", port)),
        Server(address=None),
        live=True,
    )
    fields = ((b"Host", b"auth-svc.svc"), *headers)
    flow.request = Request.make(method, f"http://auth-svc.svc{path}", b"", fields)
    return flow


class World:
    """A lane with both listeners, whose one plugin does what `phases` say."""

    def __init__(self, **phases: Callable[[Any], Any]) -> None:
        self.log: list[str] = []
        self.completed: list[Exchange] = []
        self.updates: list[HTTPFlow] = []
        self._phases = phases
        phase_names = (
            "identify",
            "route",
            "authorize",
            "prepare",
            "forward",
            "respond",
            "complete",
        )
        hooks = {
            f"hms_{name}": [Hook(self._hook(name), "scripted", f"hms_{name}")]
            for name in phase_names
        }
        chain = HookChain(hooks, Random(1))
        self.bindings = {
            listener.name: Binding.of(SNAPSHOT, listener, chain) for listener in (INBOUND, OUTBOUND)
        }
        self.clock = FakeClock()
        manager: Any = types.SimpleNamespace(trigger_event=self._trigger)
        self.lane = NativeLane(
            manager,
            lambda: self.bindings,
            "the upstream",
            self.clock,
            lambda: self.why_not,
        )
        self.why_not: Failure | None = None

    async def _trigger(self, hook: Any) -> None:
        self.updates.extend(hook.flows)

    def _hook(self, name: str) -> Callable[..., Any]:
        def hook(exchange: Exchange, upstream: Any = None) -> Any:
            self.log.append(name)
            if name == "complete":
                self.completed.append(exchange)
            if name in self._phases:
                return self._phases[name](exchange)
            if name == "route":
                return make_route()
            return Answer(200, b"OK", ((b"X-A", b"1"),), b"fine") if name == "forward" else None

        return hook

    async def run(self, flow: HTTPFlow, edit: Callable[[HTTPFlow], object] | None = None) -> Any:
        """Both events, with a script's edits between them; the answer as it is written."""
        await self.lane.request(flow)
        if edit is not None:
            edit(flow)
        await self.lane.response(flow)
        return flow.response

    @property
    def exchange(self) -> Exchange:
        """The one that was completed, once."""
        assert repr(self.lane) == "<NativeLane in_flight=0>"
        assert self.log.count("complete") == 1
        return self.completed[0]


async def test_a_request_is_decided_forwarded_and_answered() -> None:
    world, flow = World(), make_flow()
    response = await world.run(flow)
    assert (response.status_code, response.content) == (200, b"fine")
    assert response.headers["Content-Length"] == "4"
    assert world.log == [
        *("identify", "route", "authorize", "prepare", "forward", "respond", "complete")
    ]
    assert world.exchange.bytes_out == 4
    assert flow.metadata["hms"]["listener"] == "peers"
    assert "route=to-auth-svc" in flow.comment


async def test_complete_waits_for_the_response_and_comes_once() -> None:
    world, flow = World(), make_flow()
    await world.lane.request(flow)
    assert "complete" not in world.log
    assert repr(world.lane) == "<NativeLane in_flight=1>"
    await world.lane.response(flow)
    await world.lane.response(flow)
    world.lane.error(flow)
    assert world.exchange.failure is None


async def test_a_denial_forwards_nothing() -> None:
    world = World(authorize=lambda exchange: exchange.deny(403, "RBAC", "not you"))
    response = await world.run(make_flow())
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (403, "RBAC")
    assert "forward" not in world.log
    assert world.exchange.flow.metadata["hms"]["flag"] == "RBAC"


@pytest.mark.parametrize("phase", ["identify", "route", "authorize", "prepare", "forward"])
async def test_a_plugin_that_fails_refuses_the_request(phase: str) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError

    phases: dict[str, Any] = {phase: fail}
    world = World(**phases)
    response = await world.run(make_flow())
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (500, "PE")
    assert world.exchange.permit is None


async def test_a_bad_target_never_reaches_the_chain() -> None:
    world = World()
    response = await world.run(make_flow("/a%2Fb"))
    assert response.status_code == 400
    assert world.log == ["respond", "complete"]


async def test_a_caller_cannot_supply_the_mesh_s_own_headers() -> None:
    world = World()
    flow = make_flow(headers=((b"X-Caller-Role", b"GENERAL"), (b"Connection", b"close")))
    await world.run(flow)
    assert "X-Caller-Role" not in flow.request.headers
    assert "Connection" not in flow.request.headers
    assert flow.request.headers["X-Forwarded-For"] == "192.0.2.7"


async def test_plugins_and_scripts_change_the_answer() -> None:
    def stamp(exchange: Exchange) -> None:
        assert exchange.answer is not None
        exchange.answer.fields = (*exchange.answer.fields, (b"X-Stamp", b"1"))

    world = World(respond=stamp)

    def edit(flow: HTTPFlow) -> None:
        assert flow.response is not None
        flow.response.content = b"edited by hand"
        flow.response.headers["X-A"] = "2"

    response = await world.run(make_flow(), edit)
    assert (response.content, response.headers["X-A"]) == (b"edited by hand", "2")
    assert response.headers["X-Stamp"] == "1"
    assert response.headers.get_all("Content-Length") == ["14"]


@pytest.mark.parametrize(("allowed", "local"), [(True, [False]), (False, [True])])
async def test_plugins_can_tell_an_upstreams_answer_from_the_mesh_s_own(
    *, allowed: bool, local: list[bool]
) -> None:
    seen: list[bool] = []

    def authorize(exchange: Exchange) -> None:
        if not allowed:
            exchange.deny(403, "RBAC", "no")

    def respond(exchange: Exchange) -> None:
        assert exchange.answer is not None
        seen.append(exchange.answer.local)

    await World(authorize=authorize, respond=respond).run(make_flow())
    assert seen == local


async def test_an_answer_to_head_keeps_the_length_of_get() -> None:
    world = World(forward=lambda exchange: Answer(200, b"OK", (), b"", length=1234))
    response = await world.run(make_flow(method="HEAD"))
    assert response.headers.get_all("Content-Length") == ["1234"]


# --- what scripts and people do before ------------------------------------------------------------


async def test_a_refusal_of_head_tells_its_length_and_has_no_body() -> None:
    world = World(authorize=lambda exchange: exchange.deny(403, "RBAC", "no"))
    response = await world.run(make_flow(method="HEAD"))
    assert (response.status_code, response.content) == (403, b"")
    assert int(response.headers["Content-Length"]) > 50


async def test_a_script_s_answer_is_left_alone() -> None:
    world, flow = World(), make_flow()
    flow.response = Response.make(203, b"scripted")
    assert (await world.run(flow)).content == b"scripted"
    assert world.log == []


async def test_a_killed_flow_is_left_alone() -> None:
    world, flow = World(), make_flow()
    flow.kill()
    await world.lane.request(flow)
    assert flow.response is None
    assert world.log == []


async def test_an_interception_is_waited_out_before_anything_is_decided() -> None:
    world, flow = World(), make_flow()
    flow.intercept()
    task = asyncio.create_task(world.lane.request(flow))
    await settle()
    assert world.log == []
    assert world.updates == [flow], "people see that it waits"
    flow.request.path = "/by-hand"
    flow.resume()
    await asyncio.wait_for(task, 1)
    await world.lane.response(flow)
    assert world.exchange.path == "/by-hand"


async def test_killed_while_it_was_held() -> None:
    world, flow = World(), make_flow()
    flow.intercept()
    task = asyncio.create_task(world.lane.request(flow))
    await settle()
    flow.kill()
    await asyncio.wait_for(task, 1)
    assert world.log == []


# --- streams --------------------------------------------------------------------------------------


def stream_of(*pieces: bytes, left: list[str] | None = None, end: bool = True) -> BodyStream:
    abandoned = left if left is not None else []
    body = BodyStream(lambda: None, lambda: None, lambda: abandoned.append("left"))
    for piece in pieces:
        body.feed(piece)
    if end:
        body.feed_eof(((b"X-Sum", b"7"),))
    return body


async def test_a_stream_is_held_whole_with_its_trailers() -> None:
    world = World(forward=lambda exchange: Answer(200, b"OK", (), stream_of(b"a", b"b")))
    flow = make_flow()
    flow.request.http_version = "HTTP/2.0"
    response = await world.run(flow)
    assert (response.content, response.headers["Content-Length"]) == (b"ab", "2")
    assert response.trailers.fields == ((b"X-Sum", b"7"),)


async def test_trailers_are_not_shown_to_a_client_of_http_1() -> None:
    """mitmproxy's HTTP/1 layer breaks down over them."""
    world = World(forward=lambda exchange: Answer(200, b"OK", (), stream_of(b"a", b"b")))
    response = await world.run(make_flow())
    assert (response.content, response.trailers) == (b"ab", None)


@pytest.mark.parametrize(
    "kind",
    [b"text/event-stream", b"Text/Event-Stream ; charset=utf-8", b"multipart/x-mixed-replace"],
)
async def test_an_event_stream_is_answered_at_once_with_the_remedy(kind: bytes) -> None:
    left: list[str] = []
    body = stream_of(b"data: 1\n\n", left=left, end=False)
    fields = ((b"Content-Type", kind),)
    world = World(forward=lambda exchange: Answer(200, b"OK", fields, body))
    response = await world.run(make_flow())
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (501, "DPE")
    assert "call a listener of the mesh" in response.json()["detail"]
    assert left == ["left"]
    assert world.exchange.failure is not None


async def test_a_body_that_never_ends_is_waited_for_a_minute_unless_it_says_its_length() -> None:
    left: list[str] = []
    world = World(
        forward=lambda exchange: Answer(200, b"OK", (), stream_of(b"a", left=left, end=False))
    )
    flow = make_flow()
    waiting = asyncio.ensure_future(world.run(flow))
    await settle()
    await world.clock.advance(59)
    await settle()
    assert not waiting.done()
    await world.clock.advance(2)
    await settle()
    response = await waiting
    assert (response.status_code, left) == (501, ["left"])
    assert world.clock.pending == 0

    body = stream_of(b"a", end=False)
    world = World(forward=lambda exchange: Answer(200, b"OK", (), body, length=2))
    waiting = asyncio.ensure_future(world.run(make_flow()))
    await settle()
    await world.clock.advance(1000)
    body.feed(b"b")
    body.feed_eof()
    assert (await waiting).content == b"ab"


async def test_http_1_0_without_host_is_sent_with_an_empty_one() -> None:
    sent: list[Fields] = []

    def forward(exchange: Exchange) -> Answer:
        sent.append(exchange.fields)
        return Answer(200, b"OK", ())

    flow = make_flow()
    flow.request.http_version = "HTTP/1.0"
    flow.request.data.authority = b""
    flow.request.data.headers = Headers(((b"Accept", b"*/*"),))
    assert (await World(forward=forward).run(flow)).status_code == 200
    assert sent[0][:2] == ((b"Host", b""), (b"Accept", b"*/*"))


@pytest.mark.parametrize("protocol", [b"websocket", b"chat", b"h2c, chat"])
async def test_an_upgrade_is_refused_with_the_remedy(protocol: bytes) -> None:
    world = World()
    headers = ((b"Connection", b"keep-alive, Upgrade"), (b"Upgrade", protocol))
    response = await world.run(make_flow(headers=headers))
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (501, "DPE")
    assert "call a listener of the mesh" in response.json()["detail"]
    assert "forward" not in world.log


@pytest.mark.parametrize("protocol", [b"h2c", b",h2c", b" , H2C"])
async def test_an_upgrade_to_h2c_is_simply_not_taken_up(protocol: bytes) -> None:
    world = World()
    headers = ((b"Connection", b"Upgrade, HTTP2-Settings"), (b"Upgrade", protocol))
    assert (await world.run(make_flow(headers=headers))).status_code == 200


@pytest.mark.parametrize(("path", "why"), [("/a%2Fb", "target"), ("/" + "a" * 9000, "head")])
async def test_a_refused_request_s_answer_has_its_request_id(path: str, why: str) -> None:
    response = await World().run(make_flow(path, headers=((b"X-Request-ID", b"mine"),)))
    assert response.json()["request_id"] == "mine", why
    flow = make_flow(path)
    assert (await World().run(flow)).json()["request_id"] == flow.id


async def test_no_body_is_streamed_past_the_decision() -> None:
    flow = make_flow()
    flow.request.stream = True
    World().lane.requestheaders(flow)
    assert flow.request.stream is False


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"method": b"G@T"}, 400),
        ({"headers": ((b"X-Fold", b"a\r\n b"),)}, 400),
        ({"headers": ((b"X-Nul", b"a\0b"),)}, 400),
        ({"headers": ((b"Host", b"second"),)}, 400),
        ({"headers": ((b"Transfer-Encoding", b"gzip, chunked"),)}, 400),
        ({"headers": ((b"X-Many", b"a"),) * 100}, 431),
        ({"headers": ((b"X-Long", b"a" * 70_000),)}, 431),
        ({"path": "/" + "a" * 9000}, 414),
    ],
)
async def test_what_mitmproxy_lets_through_is_checked_again(
    changes: dict[str, Any], status: int
) -> None:
    world = World()
    flow = make_flow(changes.get("path", "/"))
    flow.request.data.method = changes.get("method", b"GET")
    flow.request.data.headers.fields += changes.get("headers", ())
    response = await world.run(flow)
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (status, "DPE")
    assert response.headers["Connection"] == "close"
    assert "forward" not in world.log


@pytest.mark.parametrize(
    ("version", "connection", "closes"),
    [
        ("HTTP/1.1", b"keep-alive", False),
        ("HTTP/1.1", b"X-Hop, Close", True),
        ("HTTP/1.0", b"x", True),
        ("HTTP/2.0", b"close", False),
    ],
)
async def test_a_client_that_wants_its_connection_closed_is_heard(
    version: str, connection: bytes, closes: bool
) -> None:
    flow = make_flow(headers=((b"Connection", connection),))
    flow.request.http_version = version
    response = await World(forward=lambda exchange: Answer(200, b"OK", ())).run(flow)
    assert response.headers.get("Connection") == ("close" if closes else None)


async def test_the_authority_of_an_absolute_target_is_the_host() -> None:
    hosts = []
    flow = make_flow()
    flow.request.data.authority = b"other.svc"
    await World(route=lambda exchange: hosts.append(exchange.header("host"))).run(flow)
    assert hosts == ["other.svc"]


@pytest.mark.parametrize("error", [UpstreamError(Outcome.RESET, "gone"), OSError("gone")])
async def test_a_stream_that_breaks_off_is_a_failure_and_not_half_an_answer(
    error: Exception,
) -> None:
    body = stream_of(b"half", end=False)
    body.fail(error)
    world = World(forward=lambda exchange: Answer(200, b"OK", (), body))
    response = await world.run(make_flow())
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (503, "UC")
    assert b"half" not in response.content
    assert "gone" in response.text


async def test_a_stream_that_is_too_large_is_let_go() -> None:
    mebibyte = b"x" * 1024 * 1024
    left: list[str] = []
    body = stream_of(*[mebibyte] * 65, left=left, end=False)
    world = World(forward=lambda exchange: Answer(200, b"OK", (), body))
    response = await world.run(make_flow())
    assert response.headers["X-HMS-Flag"] == "UO"
    assert f"larger than the native lane holds, {MAX_HELD} bytes" in response.text
    assert left == ["left"]


async def test_a_client_that_leaves_completes_the_exchange_as_gone() -> None:
    world, flow = World(), make_flow()
    await world.lane.request(flow)
    flow.error = flow_error("Client disconnected.")
    world.lane.error(flow)
    failure = world.exchange.failure
    assert failure is not None
    assert (failure.flag, failure.detail) == ("DC", "Client disconnected.")


async def test_cancelled_while_forwarding_it_is_completed_all_the_same() -> None:
    async def hang(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    world, flow = World(forward=hang), make_flow()
    task = asyncio.create_task(world.lane.request(flow))
    await settle()
    assert repr(world.lane) == "<NativeLane in_flight=1>"
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.exchange.answer is None
    assert flow.response is None


# --- which listener -------------------------------------------------------------------------------


@pytest.mark.parametrize(("port", "listener"), [(15006, "peers"), (15001, "apps"), (8080, "apps")])
async def test_the_listener_is_that_of_the_port_else_the_outbound_one(
    port: int, listener: str
) -> None:
    world = World()
    await world.run(make_flow(port=port))
    assert world.exchange.listener.name == listener


async def test_without_a_listener_nothing_is_forwarded() -> None:
    world = World()
    del world.bindings["apps"]
    response = await world.run(make_flow(port=8080))
    assert (response.status_code, response.headers["X-HMS-Flag"]) == (404, "NR")
    assert world.log == []


async def test_a_replay_goes_through_the_listener_and_peer_that_were_recorded() -> None:
    world = World()
    flow = make_flow(port=8080)
    flow.is_replay = "request"
    flow.metadata["hms"] = {"listener": "peers", "peer": "spiffe://mpsa.mil/svc/claims-svc"}
    await world.run(flow)
    assert world.exchange.listener.name == "peers"
    assert world.exchange.downstream.peer == "spiffe://mpsa.mil/svc/claims-svc"


async def test_what_was_recorded_counts_for_replays_only() -> None:
    """A script could write it into any flow: no caller gets a peer by that."""
    world = World()
    flow = make_flow(port=15001)
    flow.metadata["hms"] = {"listener": "peers", "peer": "spiffe://mpsa.mil/svc/claims-svc"}
    await world.run(flow)
    assert world.exchange.listener.name == "apps"
    assert world.exchange.downstream.peer is None


async def test_while_no_requests_are_taken_nobody_is_asked() -> None:
    world = World()
    world.why_not = Failure.of(Fault.DRAINING, "this sidecar is leaving", close=True)
    flow = make_flow()
    await world.lane.request(flow)
    assert flow.response is not None
    assert flow.response.status_code == 503
    assert flow.response.headers["X-HMS-Flag"] == "DRAIN"
    assert flow.response.headers["Connection"] == "close"
    assert world.log == []
    assert world.completed == []


@pytest.mark.parametrize(("count", "length"), [(101, 1), (3, 30_000)])
async def test_a_trailer_section_is_bounded(count: int, length: int) -> None:
    world = World()
    flow = make_flow(method="POST")
    flow.request.trailers = Headers([(b"X-%d" % n, b"x" * length) for n in range(count)])
    await world.lane.request(flow)
    assert flow.response is not None
    assert flow.response.status_code == 431
    assert "forward" not in world.log
