"""One request from bytes to bytes: a real `Http1Server` and `HookChain`, scripted plugins, no sockets."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.http import Response

from hms_addons.config.snapshot import Direction
from hms_addons.engine.fast_lane import Binding
from hms_addons.http_message import Answer, BodyStream
from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.request_encoder import encode_request
from tests.fakes.exchange import make_snapshot
from tests.fakes.lane import settle
from tests.fakes.world import PHASES, World, nothing, phase_of

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow

    from hms_addons.exchange import Exchange

GET = b"GET /verify-id?id=7 HTTP/1.1\r\nHost: auth-svc.svc\r\n\r\n"


async def test_the_phases_in_order() -> None:
    world = World(respond=nothing)
    [answer] = await world.send(GET)
    assert (answer.status, answer.body) == (200, b"fine")
    assert world.log == list(PHASES)
    [(method, path, fields)] = world.sent
    assert (method, path, fields["host"]) == ("GET", "/verify-id?id=7", "auth-svc.svc")
    [exchange] = world.completed
    assert (exchange.bytes_in, exchange.bytes_out) == (0, 4)
    assert not exchange.flow.live
    await world.end()


@pytest.mark.parametrize("watched", [False, True])
async def test_http_1_0_without_host_is_sent_with_an_empty_one(watched: bool) -> None:
    world = World(events={"request": nothing} if watched else None)
    [answer] = await world.send(b"GET /a HTTP/1.0\r\nAccept: */*\r\n\r\n")
    assert answer.status == 200
    assert world.sent[0][2]["host"] == ""
    [exchange] = world.completed
    assert encode_request(exchange)[0].startswith(b"GET /a HTTP/1.1\r\nHost: \r\nAccept: */*\r\n")
    assert (exchange.fields is exchange.vouched) is not watched
    await world.end()


async def test_a_host_that_a_script_has_taken_out_is_sent_empty() -> None:
    def strip(flow: HTTPFlow) -> None:
        del flow.request.headers["Host"]

    world = World(events={"request": strip})
    await world.send(GET)
    assert world.sent[0][2]["host"] == ""
    await world.end()


async def test_mitmproxys_events_stand_between_the_phases() -> None:
    names = ("requestheaders", "request", "responseheaders", "response")
    world = World(events=dict.fromkeys((*names, "error", "client_connected"), nothing))
    await world.send(GET)
    assert world.log == [
        *("client_connected", "requestheaders", "request"),
        *("identify", "route", "authorize", "prepare", "forward"),
        *("responseheaders", "response", "complete"),
    ]
    await world.end()


@pytest.mark.parametrize("phase", ["identify", "route", "authorize", "prepare", "forward"])
async def test_a_plugin_that_fails_refuses_the_request(phase: str) -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError("the secret is hunter2")

    world = World(**phase_of(phase, fail))
    [answer] = await world.send(GET)
    assert (answer.status, answer.headers["x-hms-flag"]) == (500, "PE")
    assert f"plugin 'scripted' failed in hms_{phase}".encode() in answer.body
    assert b"hunter2" not in answer.body
    assert ("forward" in world.log) == (phase == "forward")
    assert (await world.send(GET))[1].status == 500, "the connection goes on"
    await world.end(2)


async def test_a_plugin_that_fails_late_does_not_harm_the_answer() -> None:
    def fail(exchange: Exchange) -> None:
        raise RuntimeError

    world = World(respond=fail, complete=fail)
    [answer] = await world.send(GET)
    assert answer.status == 200
    assert world.chain.errors == {
        ("scripted", "hms_respond"): 1,
        ("scripted", "hms_complete"): 1,
    }
    await world.end()


async def test_a_denial_forwards_nothing() -> None:
    world = World(authorize=lambda exchange: exchange.deny(403, "RBAC", "not you"))
    [answer] = await world.send(GET)
    assert (answer.status, answer.headers["x-hms-flag"]) == (403, "RBAC")
    assert world.log == ["identify", "route", "authorize", "complete"]
    await world.end()


async def test_a_client_that_leaves_cancels_the_forwarding() -> None:
    cancelled: list[str] = []

    async def hang(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append("forward")
            raise

    world = World(forward=hang)
    assert await world.send(GET) == []
    assert world.lane.in_flight == 1
    await world.end()
    assert cancelled == ["forward"]
    failure = world.completed[0].failure
    assert failure is not None
    assert (failure.status, failure.flag) == (499, "DC")


@pytest.mark.parametrize("phase", ["identify", "authorize", "prepare", "respond"])
async def test_a_client_may_leave_in_any_phase(phase: str) -> None:
    async def hang(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    world = World(**phase_of(phase, hang))
    assert await world.send(GET) == []
    await world.end()
    assert world.completed[0].failure is not None


async def test_a_client_that_leaves_is_an_error_event_for_watchers() -> None:
    async def hang(exchange: Exchange) -> None:
        await asyncio.Event().wait()

    errors: list[Any] = []
    world = World(events={"error": lambda flow: errors.append(flow.error.msg)}, forward=hang)
    await world.send(GET)
    await world.end()
    assert errors == ["Client disconnected."]
    assert "flag=DC" in world.completed[0].flow.comment


# --- what scripts do ------------------------------------------------------------------------------


async def test_an_answer_by_a_script_skips_the_chain() -> None:
    def answer_it(flow: HTTPFlow) -> None:
        flow.response = Response.make(203, b"scripted", {"X-By": "script"})

    world = World(events={"request": answer_it}, respond=nothing)
    [answer] = await world.send(GET)
    assert (answer.status, answer.body, answer.headers["x-by"]) == (203, b"scripted", "script")
    assert world.log == ["request", "respond", "complete"]
    await world.end()


@pytest.mark.parametrize("event", ["requestheaders", "request", "responseheaders", "response"])
async def test_a_kill_aborts_the_connection(event: str) -> None:
    world = World(events={event: lambda flow: flow.kill()})
    assert await world.send(GET) == []
    assert world.transport.aborted
    assert ("forward" in world.log) == event.startswith("response")
    await world.end()


async def test_what_a_script_changes_is_what_is_decided_and_sent() -> None:
    seen: list[tuple[str, str | None]] = []

    def edit(flow: HTTPFlow) -> None:
        flow.request.path = "/other/../edited"
        flow.request.headers["X-Team"] = "blue"

    world = World(
        events={"request": edit},
        authorize=lambda exchange: seen.append((exchange.path, exchange.header("x-team"))),
    )
    await world.send(GET)
    assert seen == [("/edited", "blue")]
    assert world.sent[0][1] == "/edited"
    await world.end()


async def test_a_script_cannot_forge_what_the_mesh_owns() -> None:
    def forge(flow: HTTPFlow) -> None:
        flow.request.headers["X-Caller-Role"] = "GENERAL"

    world = World(events={"request": forge})
    await world.send(GET)
    assert "x-caller-role" not in world.sent[0][2]
    await world.end()


async def test_a_person_holds_a_request_and_the_decision_waits() -> None:
    held: list[HTTPFlow] = []

    def hold(flow: HTTPFlow) -> None:
        flow.intercept()
        held.append(flow)

    world = World(events={"request": hold})
    assert await world.send(GET) == []
    assert world.log == ["request"]
    held[0].request.path = "/by-hand"
    held[0].resume()
    await settle()
    assert world.sent[0][1] == "/by-hand"
    assert world.responses()[0].status == 200
    await world.end()


async def test_an_addon_may_refuse_a_client() -> None:
    def refuse(client: Any) -> None:
        client.error = "not from there"

    world = World(events={"client_connected": refuse})
    assert await world.send(GET) == []
    assert world.transport.aborted
    assert "identify" not in world.log
    await world.end()


# --- targets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", [b"/a%2Fb", b"/a%zz", b"/%00"])
async def test_a_bad_target_is_refused_and_the_connection_closed(target: bytes) -> None:
    world = World()
    [answer] = await world.send(b"GET " + target + b" HTTP/1.1\r\nHost: a.svc\r\n\r\n")
    assert (answer.status, answer.headers["x-hms-flag"]) == (400, "DPE")
    assert answer.headers["connection"] == "close"
    assert world.log == ["complete"]
    await world.end()


@pytest.mark.parametrize("target", [b"/a%2Fb", b"/a?host=b.svc&host=c.svc"])
async def test_a_bad_target_s_answer_has_the_callers_request_id(target: bytes) -> None:
    world = World(direction=Direction.OUTBOUND)
    head = b"GET " + target + b" HTTP/1.1\r\nHost: a.svc\r\nX-Request-ID: mine\r\n\r\n"
    [answer] = await world.send(head)
    assert answer.status == 400
    assert json.loads(answer.body)["request_id"] == "mine"
    assert world.completed[0].request_id == "mine"
    await world.end()


async def test_the_authority_of_an_absolute_target_replaces_host() -> None:
    world = World()
    await world.send(b"GET http://auth-svc.svc/a?b=c HTTP/1.1\r\nHost: forged.svc\r\n\r\n")
    [(_, path, fields)] = world.sent
    assert (path, fields["host"]) == ("/a?b=c", "auth-svc.svc")
    assert world.completed[0].header("host") == "auth-svc.svc"
    await world.end()


async def test_the_host_parameter_names_the_service_and_goes_no_further() -> None:
    world = World(direction=Direction.OUTBOUND)
    await world.send(b"GET /a?x=1&host=auth-svc.svc HTTP/1.1\r\nHost: localhost:15001\r\n\r\n")
    [(_, path, fields)] = world.sent
    assert (path, fields["host"]) == ("/a?x=1", "auth-svc.svc")
    assert world.completed[0].service == "auth-svc"
    await world.end()


async def test_inbound_the_host_parameter_is_the_app_s() -> None:
    world = World()
    await world.send(b"GET /a?host=auth-svc.svc HTTP/1.1\r\nHost: a.svc\r\n\r\n")
    assert world.sent[0][1] == "/a?host=auth-svc.svc"
    await world.end()


# --- bodies ---------------------------------------------------------------------------------------

EXPECTING = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"


async def take_body(exchange: Exchange) -> Answer:
    body = exchange.flow.request.raw_content or b""
    if exchange.body is not None:
        body = b"".join([piece async for piece in exchange.body])
    return Answer(200, b"OK", (), body)


async def test_continue_comes_only_after_the_permit() -> None:
    go = asyncio.Event()

    async def think(exchange: Exchange) -> None:
        await go.wait()

    world = World(authorize=think, forward=take_body)
    assert await world.send(EXPECTING) == []
    go.set()
    await settle()
    assert [answer.status for answer in world.responses()] == [100]
    answers = await world.send(b"hello")
    assert [(answer.status, answer.body) for answer in answers] == [(100, b""), (200, b"hello")]
    assert world.completed[0].bytes_in == 5
    await world.end()


async def test_a_denied_expectation_is_never_continued() -> None:
    world = World(authorize=lambda exchange: exchange.deny(403, "RBAC", "no"))
    [answer] = await world.send(EXPECTING)
    assert answer.status == 403
    assert answer.headers["connection"] == "close", "the body may still come, or not"
    await world.end()


async def test_a_stream_that_breaks_off_cuts_the_client() -> None:
    body = BodyStream(lambda: None, lambda: None)
    world = World(forward=lambda exchange: Answer(200, b"OK", (), body, length=100))
    world.connection.data_received(GET)
    body.feed(b"half")
    await settle()
    body.fail(UpstreamError(Outcome.RESET, "the upstream reset"))
    await settle()
    assert world.transport.aborted
    assert bytes(world.transport.sent).endswith(b"half")
    failure = world.completed[0].failure
    assert failure is not None
    assert (failure.flag, failure.detail) == (
        "UC",
        "the answer's body was cut short: the upstream reset",
    )
    await world.end()


async def test_a_client_that_does_not_read_holds_up_its_next_answer() -> None:
    big = b"x" * 200_000
    world = World(forward=lambda exchange: Answer(200, b"OK", (), big))
    world.transport.stalled = True
    world.connection.data_received(GET + GET)
    await settle()
    assert world.log.count("forward") == 1, "the second waits until the first has been taken"
    assert world.completed == []
    world.transport.release()
    await settle()
    assert [answer.body for answer in world.responses()] == [big, big]
    await world.end(2)


async def test_a_client_that_never_reads_and_leaves() -> None:
    world = World(forward=lambda exchange: Answer(200, b"OK", (), b"x" * 200_000))
    world.transport.stalled = True
    world.connection.data_received(GET)
    await settle()
    await world.end()
    assert world.completed[0].failure is not None


class FakeTunnel:
    """The upstream's side of an upgrade: it echoes."""

    def __init__(self) -> None:
        self.incoming = BodyStream(lambda: None, lambda: None)
        self.protocol = b"echo"
        self.closed = False

    def write(self, data: bytes) -> None:
        self.incoming.feed(data.upper())

    async def drain(self) -> None: ...

    def write_eof(self) -> None:
        self.incoming.feed_eof()

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("watched", [False, True])
async def test_a_101_names_the_protocol_that_was_chosen(watched: bool) -> None:
    shown: list[str] = []

    def look(flow: HTTPFlow) -> None:
        assert flow.response is not None
        shown.append(flow.response.headers["Upgrade"])

    world = World(
        events={"response": look} if watched else None,
        forward=lambda exchange: Answer(101, b"", (), tunnel=FakeTunnel()),
    )
    upgrade = b"Connection: Upgrade\r\nUpgrade: chat, h2c, Echo/1\r\n\r\n"
    [answer] = await world.send(GET[:-2] + upgrade)
    assert answer.headers == {"connection": "Upgrade", "upgrade": "echo"}
    assert world.sent[0][2]["upgrade"] == "chat, Echo/1"
    assert shown == ["echo"] * watched
    world.transport.leave()
    await world.end()


@pytest.mark.parametrize("watched", [False, True])
async def test_an_upgrade_becomes_a_tunnel(watched: bool) -> None:
    tunnel = FakeTunnel()
    fields = ((b"Connection", b"Upgrade"), (b"Upgrade", b"echo"))
    world = World(
        events={"response": nothing} if watched else None,
        forward=lambda exchange: Answer(101, b"Switching Protocols", fields, tunnel=tunnel),
    )
    upgrade = b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"
    await world.send(upgrade + b"early")
    [answer] = await world.send(b" and late")
    assert (answer.status, answer.body) == (101, b"EARLY AND LATE")
    assert answer.headers["upgrade"] == "echo"
    assert world.sent[0][2]["upgrade"] == "echo"
    assert world.completed == [], "it is not over"
    world.transport.leave()
    await settle()
    assert world.transport.is_closing()
    assert tunnel.closed
    assert world.completed[0].bytes_out == 14
    await world.end()


# --- the lane itself ------------------------------------------------------------------------------


async def test_a_new_binding_is_for_the_next_request() -> None:
    go = asyncio.Event()

    async def wait(exchange: Exchange) -> Answer:
        await go.wait()
        return Answer(200, b"OK", (), exchange.snapshot.version.encode())

    world = World(forward=wait)
    await world.send(GET)
    old = world.lane.binding
    newer = make_snapshot(version="2", clusters=old.snapshot.clusters)
    world.lane.binding = Binding.of(newer, old.listener, old.chain)
    go.set()
    await settle()
    answers = await world.send(GET)
    assert [answer.body for answer in answers] == [b"1", b"2"]
    await world.end(2)


async def test_a_malformed_request_is_counted_and_never_an_exchange(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "hms_addons")
    world = World()
    [answer] = await world.send(
        b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nX-Request-ID: mine\r\n\r\n"
    )
    assert answer.status == 400
    assert "(request mine)" in caplog.text
    assert world.lane.refusals == 1
    assert world.log == []
    await world.end(0)
