from __future__ import annotations

import asyncio
import logging
import random
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from mitmproxy.http import Headers

from hms_addons.addons.governance import Governance
from hms_addons.config.policy_header import MAX_ANSWER
from hms_addons.config.policy_source import RETRY_MAX
from hms_addons.config.snapshot import Governance as Spec
from hms_addons.config.snapshot import HeaderNames, Snapshot
from hms_addons.errors import Flag
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_snapshot, sent
from tests.fakes.mesh import FakeMesh

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from hms_addons.exchange import Exchange

    type Responder = Callable[[httpx.Request], Awaitable[httpx.Response]]

URL = "http://gov.example:9100"
MESH = FakeMesh().mesh


class FakeGov:
    """HMS-GOV behind httpx's transport: counts the questions, answers what it is told to."""

    def __init__(self) -> None:
        self.requests: list[httpx.Request] = []
        self.document: Any = {"version": "1.3.4"}
        self.status = 200
        self.headers: dict[str, str] = {}
        self.down = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.transport = httpx.MockTransport(self.answer)

    async def answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        await self.gate.wait()
        if self.down:
            raise httpx.ConnectError("connection refused")
        return httpx.Response(self.status, json=self.document, headers=self.headers)


class Bench:
    """The plugin, its clock and its HMS-GOV."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.gov = FakeGov()
        self.plugin = Governance(
            clock=self.clock, rng=random.Random(1), transport=self.gov.transport
        )

    def snapshot(self, **changes: Any) -> Snapshot:
        names = changes.pop("headers", HeaderNames())
        return make_snapshot(governance=Spec(**{"url": URL} | changes), headers=names)

    async def start(self, **changes: Any) -> None:
        self.plugin.hms_configure(self.snapshot(**changes))
        self.plugin.hms_startup(MESH)
        await self.clock.advance(0)

    async def ask(self, **request: Any) -> Exchange:
        exchange = make_exchange(**request)
        waiting = self.plugin.hms_prepare(exchange)
        if waiting is not None:
            await waiting
        return exchange

    async def version(self) -> list[str]:
        exchange = await self.ask()
        assert exchange.failure is None, exchange.failure
        return sent(exchange, "X-Policy-Version")


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    bench = Bench()
    yield bench
    await bench.plugin.hms_shutdown()
    assert len(bench.plugin._tasks) == 0
    assert bench.clock.pending == 0


# -- the ordinary course ------------------------------------------------------------------------


async def test_every_request_carries_the_version(bench: Bench) -> None:
    await bench.start()
    exchange = await bench.ask(headers=[("X-Policy-Version", "forged")])
    assert sent(exchange, "X-Policy-Version") == ["1.3.4"]
    (request,) = bench.gov.requests
    assert str(request.url) == f"{URL}/policy-header"
    assert request.method == "GET"


async def test_once_per_ttl_whatever_the_load(bench: Bench) -> None:
    await bench.start(ttl=60.0)
    for _ in range(5):
        exchanges = [make_exchange() for _ in range(100)]
        assert [bench.plugin.hms_prepare(e) for e in exchanges] == [None] * 100
        await bench.clock.advance(9)
    assert len(bench.gov.requests) == 1
    await bench.clock.advance(10)
    assert len(bench.gov.requests) == 2, "renewed between 80% and 90% of the TTL"
    await bench.clock.advance(600)


async def test_first_requests_wait_for_one_question(bench: Bench) -> None:
    bench.gov.gate.clear()
    await bench.start()
    waiting = [asyncio.ensure_future(bench.version()) for _ in range(50)]
    await bench.clock.advance(1)
    assert not any(task.done() for task in waiting)
    bench.gov.gate.set()
    assert await asyncio.gather(*waiting) == [["1.3.4"]] * 50
    assert len(bench.gov.requests) == 1


async def test_a_cancelled_request_does_not_disturb_the_question(bench: Bench) -> None:
    bench.gov.gate.clear()
    await bench.start()
    leaving = asyncio.ensure_future(bench.version())
    staying = asyncio.ensure_future(bench.version())
    await asyncio.sleep(0)
    leaving.cancel()
    await asyncio.sleep(0)
    bench.gov.gate.set()
    assert await staying == ["1.3.4"]
    assert len(bench.gov.requests) == 1


async def test_no_request_waits_while_it_is_renewed(bench: Bench) -> None:
    await bench.start(ttl=60.0)
    bench.gov.gate.clear()
    bench.gov.document = {"version": "2.0"}
    await bench.clock.advance(56)
    assert len(bench.gov.requests) == 2
    exchange = make_exchange()
    assert bench.plugin.hms_prepare(exchange) is None
    assert sent(exchange, "X-Policy-Version") == ["1.3.4"]
    bench.gov.gate.set()
    await bench.clock.advance(0)
    assert await bench.version() == ["2.0"]


@pytest.mark.parametrize("form", ["ttl", "max-age"])
async def test_the_answer_says_how_long_it_counts(bench: Bench, form: str) -> None:
    if form == "ttl":
        bench.gov.document["ttl"] = 10
    else:
        bench.gov.headers["Cache-Control"] = "max-age=10"
    await bench.start(ttl=60.0)
    await bench.clock.advance(9.5)
    assert len(bench.gov.requests) == 2


async def test_changes_are_logged(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        await bench.start()
        bench.gov.document = {"version": "1.4.0"}
        await bench.clock.advance(60)
    assert "policy version 1.3.4, from http://gov.example:9100" in caplog.text
    assert "policy version 1.4.0 instead of 1.3.4" in caplog.text


async def test_no_governance_costs_nothing(bench: Bench) -> None:
    bench.plugin.hms_configure(make_snapshot())
    bench.plugin.hms_startup(MESH)
    await bench.clock.advance(100)
    assert await bench.version() == []
    assert bench.gov.requests == []


async def test_the_header_has_the_configured_name(bench: Bench) -> None:
    await bench.start(headers=HeaderNames(policy_version=b"Policy"))
    exchange = await bench.ask()
    assert sent(exchange, "Policy") == ["1.3.4"]
    assert sent(exchange, "X-Policy-Version") == []


async def test_further_headers_replace_the_callers(bench: Bench) -> None:
    bench.gov.document = {"version": "1", "X-Retention": "7y"}
    await bench.start()
    exchange = await bench.ask(headers=[("x-retention", "0d"), ("X_Retention", "0d")])
    assert sent(exchange, "X-Retention") == ["7y"]
    assert sent(exchange, "X_Retention") == []


async def test_further_headers_are_no_trailers_of_the_callers(bench: Bench) -> None:
    bench.gov.document = {"version": "1", "X-Kept-For": "7y"}
    await bench.start()
    exchange = make_exchange(headers=[("X-Kept-For", "0d"), ("X_Kept_For", "0d")])
    trailers = ((b"X_kept-For", b"0d"), (b"X-Sum", b"1"))
    exchange.flow.request.trailers = Headers(trailers)
    assert bench.plugin.hms_prepare(exchange) is None
    assert sent(exchange, "X-Kept-For") == ["7y"]
    assert sent(exchange, "X_Kept_For") == []
    assert exchange.flow.request.trailers.fields == ((b"X-Sum", b"1"),)


# -- when HMS-GOV is away -----------------------------------------------------------------------


async def test_the_old_version_serves_up_to_max_stale(bench: Bench) -> None:
    await bench.start(ttl=60.0, max_stale=600.0)
    bench.gov.down = True
    await bench.clock.advance(659)
    assert await bench.version() == ["1.3.4"]
    await bench.clock.advance(2)
    exchange = await bench.ask()
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (503, Flag.GOV)
    assert "only one that is too old" in exchange.failure.detail
    assert "connection refused" in exchange.failure.detail
    assert exchange.failure.retry_after is not None
    assert 0 <= exchange.failure.retry_after <= RETRY_MAX


async def test_it_is_asked_again_ever_less_often_until_it_answers(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.start(ttl=60.0)
    bench.gov.down = True
    await bench.clock.advance(55)
    bench.gov.requests.clear()
    for _ in range(300):
        await bench.clock.advance(1)
    assert 300 / RETRY_MAX <= len(bench.gov.requests) <= 5 + 300 / (RETRY_MAX * 0.75)
    bench.gov.down = False
    with caplog.at_level(logging.INFO):
        await bench.clock.advance(RETRY_MAX)
    assert "answers again" in caplog.text
    assert await bench.version() == ["1.3.4"]


async def test_closed_is_the_default_when_there_never_was_a_version(bench: Bench) -> None:
    bench.gov.down = True
    await bench.start()
    exchange = await bench.ask()
    assert exchange.failure is not None
    assert (exchange.failure.status, exchange.failure.flag) == (503, Flag.GOV)
    assert "no policy version yet from HMS-GOV at http://gov.example:9100" in (
        exchange.failure.detail
    )
    assert "on_failure" in exchange.failure.detail
    bench.gov.down = False
    await bench.clock.advance(1)
    assert await bench.version() == ["1.3.4"]


async def test_nobody_waits_for_a_second_question(bench: Bench) -> None:
    """A HMS-GOV that hangs must not add its timeout to every request."""
    bench.gov.gate.clear()
    await bench.start(timeout=5.0)
    await bench.clock.advance(5.1)
    await bench.clock.advance(1.0)
    assert len(bench.gov.requests) == 2
    exchange = make_exchange()
    assert bench.plugin.hms_prepare(exchange) is None
    assert exchange.failure is not None
    assert "no whole answer within 5s" in exchange.failure.detail


async def test_open_lets_requests_go_without_and_counts_them(bench: Bench) -> None:
    bench.gov.down = True
    await bench.start(fail_open=True)
    exchange = await bench.ask(headers=[("X-Policy-Version", "forged")])
    assert exchange.failure is None
    assert sent(exchange, "X-Policy-Version") == []
    assert bench.plugin.unversioned == 1


async def test_open_lets_no_caller_speak_for_governance(bench: Bench) -> None:
    bench.gov.document = {"X-Retention": "7y"}
    await bench.start(fail_open=True, ttl=60.0, max_stale=0.0)
    bench.gov.down = True
    await bench.clock.advance(61)
    exchange = await bench.ask(headers=[("X-Retention", "0d")])
    assert sent(exchange, "X-Retention") == []


async def test_the_first_question_ends_within_the_timeout(bench: Bench) -> None:
    bench.gov.gate.clear()
    await bench.start(timeout=2.0)
    waiting = asyncio.ensure_future(bench.ask())
    await bench.clock.advance(1.9)
    assert not waiting.done()
    await bench.clock.advance(0.2)
    exchange = await waiting
    assert exchange.failure is not None
    assert "no whole answer within 2s" in exchange.failure.detail


@pytest.mark.parametrize(
    ("status", "document", "headers", "reason"),
    [
        (500, {"version": "9"}, {}, "its status is 500"),
        (302, {"version": "9"}, {"Location": "http://evil.example/"}, "its status is 302"),
        (200, {"versoin": "9"}, {}, "neither"),
        (200, {"version": "9\r\nX-Caller-Role: ADMIN"}, {}, "plain ASCII"),
        (200, {"version": "9", "X-Caller-Role": "ADMIN"}, {}, "not governance's to set"),
        (200, {"version": "9", "pad": "x" * MAX_ANSWER}, {}, "larger than"),
    ],
)
async def test_a_bad_answer_changes_nothing(
    bench: Bench, status: int, document: Any, headers: dict[str, str], reason: str
) -> None:
    await bench.start()
    bench.gov.status, bench.gov.document, bench.gov.headers = status, document, headers
    await bench.clock.advance(55)
    assert len(bench.gov.requests) == 2
    assert await bench.version() == ["1.3.4"]
    assert reason in repr(bench.plugin)


async def test_a_packed_answer_is_refused_before_it_is_unpacked(bench: Bench) -> None:
    async def packed(request: httpx.Request) -> httpx.Response:
        assert request.headers["accept-encoding"] == "identity"
        return httpx.Response(200, content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})

    bench.plugin = Governance(clock=bench.clock, transport=httpx.MockTransport(packed))
    await bench.start()
    exchange = await bench.ask()
    assert exchange.failure is not None
    assert "packed" in exchange.failure.detail


async def test_an_unforeseen_error_is_a_failure_like_any_other(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_: httpx.Request) -> httpx.Response:
        raise KeyError("surprise")

    bench.plugin = Governance(clock=bench.clock, transport=httpx.MockTransport(broken))
    await bench.start()
    assert (await bench.ask()).failure is not None
    assert "could not be asked" in caplog.text
    assert len(bench.plugin._tasks) == 1, "it goes on asking"


async def test_a_password_in_the_url_is_not_shown(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.gov.down = True
    await bench.start(url="http://mesh:hunter2@gov.example:9100/")
    exchange = await bench.ask()
    assert exchange.failure is not None
    assert "http://gov.example:9100 " in exchange.failure.detail
    assert "hunter2" not in exchange.failure.detail + caplog.text + repr(bench.plugin)


# -- reconfiguration ----------------------------------------------------------------------------


async def test_the_version_outlives_a_reload(bench: Bench) -> None:
    await bench.start()
    for changes in ({}, {"ttl": 30.0}, {"fail_open": True}):
        bench.plugin.hms_configure(bench.snapshot(**changes))
        exchange = make_exchange()
        assert bench.plugin.hms_prepare(exchange) is None
        assert sent(exchange, "X-Policy-Version") == ["1.3.4"]
    assert len(bench.gov.requests) == 1


async def test_a_shorter_ttl_counts_from_the_last_answer(bench: Bench) -> None:
    await bench.start(ttl=600.0)
    await bench.clock.advance(20)
    bench.plugin.hms_configure(bench.snapshot(ttl=30.0))
    await bench.clock.advance(8)
    assert len(bench.gov.requests) == 2


async def test_another_url_is_asked_at_once(bench: Bench) -> None:
    await bench.start()
    bench.gov.document = {"version": "other"}
    bench.plugin.hms_configure(bench.snapshot(url="http://other.example"))
    assert await bench.version() == ["other"]
    assert str(bench.gov.requests[-1].url) == "http://other.example/policy-header"
    await bench.clock.advance(60)
    assert {request.url.host for request in bench.gov.requests[1:]} == {"other.example"}


async def test_a_refused_candidate_leaves_the_version_and_the_rhythm(bench: Bench) -> None:
    await bench.start(ttl=60.0)
    old = bench.plugin._snapshot
    assert old is not None
    bench.gov.gate.clear()
    bench.plugin.hms_configure(bench.snapshot(url="http://candidate.example"))
    # Before it is refused, requests of the old snapshot go on as ever.
    during = make_exchange(snapshot=old)
    assert bench.plugin.hms_prepare(during) is None
    assert sent(during, "X-Policy-Version") == ["1.3.4"]
    bench.plugin.hms_configure(old)
    after = make_exchange(snapshot=old)
    assert bench.plugin.hms_prepare(after) is None
    assert sent(after, "X-Policy-Version") == ["1.3.4"]
    bench.gov.gate.set()
    await bench.clock.advance(56)
    assert [request.url.host for request in bench.gov.requests][-1] == "gov.example"
    assert len(bench.plugin._tasks) == 1


async def test_governance_can_be_switched_off_and_on(bench: Bench) -> None:
    await bench.start()
    bench.plugin.hms_configure(make_snapshot())
    await bench.clock.advance(0)
    assert await bench.version() == []
    assert len(bench.plugin._tasks) == 0
    bench.plugin.hms_configure(bench.snapshot())
    assert await bench.version() == ["1.3.4"]
    assert len(bench.gov.requests) == 1


async def test_shutdown_releases_whoever_waits(bench: Bench) -> None:
    bench.gov.gate.clear()
    await bench.start()
    waiting = asyncio.ensure_future(bench.ask())
    await asyncio.sleep(0)
    await bench.plugin.hms_shutdown()
    assert (await waiting).failure is not None


# -- over real sockets --------------------------------------------------------------------------


async def serve_once(parts: list[bytes], hold: asyncio.Event | None = None) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        for part in parts:
            writer.write(part)
        if hold is not None:
            await hold.wait()
        writer.close()

    return await asyncio.start_server(serve, "127.0.0.1", 0)


async def over_sockets(server: asyncio.Server, clock: FakeClock, **spec: Any) -> Governance:
    port = server.sockets[0].getsockname()[1]
    plugin = Governance(clock=clock)
    url = f"http://127.0.0.1:{port}"
    plugin.hms_configure(make_snapshot(governance=Spec(url=url, **spec)))
    plugin.hms_startup(MESH)
    return plugin


async def test_a_real_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    head = b"HTTP/1.1 204 No Content\r\nX-Policy-Version: 5.1\r\n\r\n"
    async with await serve_once([head]) as server:
        plugin = await over_sockets(server, FakeClock())
        exchange = make_exchange()
        waiting = plugin.hms_prepare(exchange)
        assert waiting is not None
        await waiting
        assert sent(exchange, "X-Policy-Version") == ["5.1"]
        await plugin.hms_shutdown()


async def test_a_real_server_that_never_ends_its_answer() -> None:
    hold = asyncio.Event()
    head = b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"version": "1'
    clock = FakeClock()
    async with await serve_once([head], hold) as server:
        plugin = await over_sockets(server, clock, timeout=3.0)
        try:
            exchange = make_exchange()
            waiting = plugin.hms_prepare(exchange)
            assert waiting is not None
            task = asyncio.ensure_future(waiting)
            await asyncio.sleep(0)
            await clock.advance(3.1)
            await task
            assert exchange.failure is not None
        finally:
            hold.set()
            await plugin.hms_shutdown()


def test_where_nobody_governs_no_request_asks(bench: Bench) -> None:
    assert bench.plugin.hms_idle_hooks(make_snapshot()) == ("hms_prepare",)
    assert bench.plugin.hms_idle_hooks(bench.snapshot()) == ()


# -- what is told of it -------------------------------------------------------------------------


async def test_status_tells_the_version_and_counts_who_went_without(bench: Bench) -> None:
    mesh = FakeMesh()
    mesh.add_status("governance", bench.plugin._status)
    assert mesh.shown("governance") is None
    bench.gov.down = True
    await bench.start()
    assert (await bench.ask()).failure is not None
    found = mesh.shown("governance")
    assert (found["version"], found["refused"], found["unversioned"]) == (None, 1, 0)
    assert "connection refused" in found["error"]
    bench.gov.down = False
    await bench.clock.advance(2)
    found = mesh.shown("governance")
    assert (found["version"], found["error"]) == ("1.3.4", None)


async def test_headers_that_are_configured_are_set_and_no_others_are_taken(bench: Bench) -> None:
    bench.gov.document = {"version": "1.3.4", "X-Zone": "eu"}
    await bench.start(headers=HeaderNames(governance=(b"X-Zone", b"X-Retention")))
    exchange = await bench.ask(headers=[("X-Other", "mine")])
    assert sent(exchange, "X-Zone") == ["eu"]
    assert sent(exchange, "X-Other") == ["mine"]
    assert bench.plugin._source is not None
    assert not bench.plugin._source.others, "the mesh removes them itself"
    bench.gov.document = {"version": "1.3.5", "X-Other": "us"}
    await bench.clock.advance(60)
    assert await bench.version() == ["1.3.4"]
    assert "X-Other, which is not under `governance.headers`" in (bench.plugin._source.error or "")


async def test_metrics_tell_the_version_and_who_went_without(bench: Bench) -> None:
    mesh = FakeMesh()
    mesh.add_metrics("governance", bench.plugin)
    assert mesh.measured("governance") == {
        ("hms_requests_without_policy_version_total", "open"): 0,
        ("hms_requests_without_policy_version_total", "closed"): 0,
    }
    bench.gov.down = True
    await bench.start()
    await bench.ask()
    assert mesh.measured("governance")["hms_requests_without_policy_version_total", "closed"] == 1
    assert ("hms_policy_version_info", "1.3.4") not in mesh.measured("governance")
    bench.gov.down = False
    await bench.clock.advance(2)
    bench.gov.document = {"version": "1.3.5"}
    await bench.clock.advance(60)
    await bench.clock.advance(5)
    found = mesh.measured("governance")
    assert found["hms_policy_version_info", "1.3.5"] == 1
    assert ("hms_policy_version_info", "1.3.4") not in found
    assert found["hms_policy_version_changes_total",] == 1
    assert found["hms_policy_version_age_seconds",] == 5
