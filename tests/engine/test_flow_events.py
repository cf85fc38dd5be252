"""Who hears of which event, by mitmproxy's own rules."""

from __future__ import annotations

import asyncio
import logging
import types
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.exceptions import AddonHalt
from mitmproxy.test import taddons
from mitmproxy.test.tflow import tflow

from hms_addons.engine.flow_events import EVENTS, FlowEvents
from tests.fakes.lane import settle

if TYPE_CHECKING:
    from mitmproxy.http import HTTPFlow


class Recorder:
    """An addon that writes down what it hears, and then may raise."""

    def __init__(self, name: str, log: list[str], error: Exception | None = None) -> None:
        self.name = name
        self.log = log
        self.error = error
        self.addons: list[Any] = []

    def request(self, flow: HTTPFlow) -> None:
        self.log.append(self.name)
        if self.error is not None:
            raise self.error


class AsyncRecorder(Recorder):
    async def request(self, flow: HTTPFlow) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        super().request(flow)


def compiled(*addons: Any, own: Any = None) -> FlowEvents:
    events = FlowEvents(AddonHalt)
    events.compile(addons, own)
    return events


def family(log: list[str]) -> list[Any]:
    """a(b(c), d), e"""
    a, b, c, d, e = (Recorder(name, log) for name in "abcde")
    a.addons = [b, d]
    b.addons = [c]
    return [a, e]


async def test_sub_addons_come_after_their_parent_as_in_mitmproxy() -> None:
    log: list[str] = []
    events = compiled(*family(log))
    await events.fire(events.request, tflow())
    ours, theirs = list(log), list[str]()
    with taddons.context(*family(theirs), loadcore=False) as context:
        await context.master.addons.handle_lifecycle(_request_hook(tflow()))
    assert ours == theirs == ["a", "b", "c", "d", "e"]


def _request_hook(flow: HTTPFlow) -> Any:
    from mitmproxy.proxy.layers.http._hooks import HttpRequestHook  # noqa: PLC0415 - heavy

    return HttpRequestHook(flow)


async def test_the_mesh_itself_is_left_out_but_not_its_neighbours() -> None:
    log: list[str] = []
    mine, other = Recorder("mine", log), Recorder("other", log)
    events = compiled(mine, other, own=mine)
    await events.fire(events.request, tflow())
    assert log == ["other"]
    assert not compiled(mine, own=mine).watched


async def test_plain_and_async_listeners_run_in_order() -> None:
    log: list[str] = []
    events = compiled(Recorder("a", log), AsyncRecorder("b", log), Recorder("c", log))
    await events.fire(events.request, tflow())
    assert log == ["a", "b", "c"]


@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
async def test_an_exception_is_logged_and_passed_over(
    kind: type[Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    events = compiled(kind("a", log, ValueError("boom")), Recorder("b", log))
    await events.fire(events.request, tflow())
    assert log == ["a", "b"]
    [record] = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.ERROR, "Addon error: boom")
    assert record.exc_info is not None


@pytest.mark.parametrize("kind", [Recorder, AsyncRecorder])
async def test_addon_halt_ends_the_event_without_a_word(
    kind: type[Recorder], caplog: pytest.LogCaptureFixture
) -> None:
    log: list[str] = []
    events = compiled(kind("a", log, AddonHalt()), Recorder("b", log))
    await events.fire(events.request, tflow())
    assert log == ["a"]
    assert not caplog.records


def test_a_module_under_an_events_name_is_no_listener() -> None:
    script = types.ModuleType("script")
    script.error = types.ModuleType("error")  # type: ignore[attr-defined]
    script.response = "not callable"  # type: ignore[attr-defined]
    events = compiled(script)
    assert not any(getattr(events, name) for name in EVENTS)
    assert not events.watched


@pytest.mark.parametrize("name", EVENTS)
def test_each_event_is_found_and_flow_events_alone_watch(name: str) -> None:
    addon = types.SimpleNamespace(**{name: print})
    events = compiled(addon)
    assert {event for event in EVENTS if getattr(events, event)} == {name}
    flows = {"requestheaders", "request", "responseheaders", "response", "error"}
    flows |= {"websocket_start", "websocket_message", "websocket_end"}
    assert events.watched == (name in flows)
    assert name in repr(events)
    events.compile(())
    assert not getattr(events, name)
    assert not events.watched


class View:
    """As mitmweb's: told of every change."""

    def __init__(self, error: Exception | None = None) -> None:
        self.updates: list[list[HTTPFlow]] = []
        self.error = error

    def update(self, flows: list[HTTPFlow]) -> None:
        self.updates.append(flows)
        if self.error is not None:
            raise self.error


async def test_views_are_told_after_each_flow_event() -> None:
    flow, view, log = tflow(), View(), list[str]()
    events = compiled(Recorder("a", log), view)
    await events.fire_flow(events.request, flow)
    assert log == ["a"]
    assert view.updates == [[flow]]


async def test_a_view_that_raises_does_not_harm_the_request(
    caplog: pytest.LogCaptureFixture,
) -> None:
    bad, good = View(RuntimeError("the view is broken")), View()
    events = compiled(bad, good)
    await events.fire_flow(events.request, tflow())
    assert len(good.updates) == 1
    assert "the view is broken" in caplog.text


class Interceptor:
    def request(self, flow: HTTPFlow) -> None:
        flow.intercept()


async def test_an_interception_is_waited_out_and_shown() -> None:
    flow, view = tflow(), View()
    events = compiled(Interceptor(), view)
    task = asyncio.create_task(events.fire_flow(events.request, flow))
    await settle()
    assert view.updates == [[flow]]  # before the wait, or nobody would know what to resume
    assert not task.done()
    flow.resume()
    await asyncio.wait_for(task, 1)


async def test_a_kill_before_the_response_ends_with_the_error_event_once() -> None:
    log: list[str] = []
    killer = types.SimpleNamespace(
        request=lambda flow: flow.kill(), error=lambda flow: log.append(flow.error.msg)
    )
    events = compiled(killer)
    flow = tflow()
    await events.fire_flow(events.request, flow)
    assert log == ["Connection killed."]


async def test_what_is_attached_hears_last_until_it_is_detached() -> None:
    log: list[str] = []
    events = compiled(Recorder("first", log))
    detach = events.attach(Recorder("attached", log))
    await events.fire(events.request, tflow())
    assert log == ["first", "attached"]
    events.compile([Recorder("other", log)])
    assert len(events.request) == 2, "it outlives a change of addons"
    detach()
    assert len(events.request) == 1
    assert not FlowEvents().watched


async def test_addons_are_forgotten_and_what_is_attached_is_not() -> None:
    seen: list[str] = []
    events = FlowEvents()
    events.compile([types.SimpleNamespace(request=lambda _flow: seen.append("theirs"))])
    events.options = object()
    detach = events.attach(types.SimpleNamespace(request=lambda _flow: seen.append("attached")))
    await events.fire(events.request, None)
    events.forget()
    await events.fire(events.request, None)
    assert seen == ["theirs", "attached", "attached"]
    assert events.options is None
    assert events.watched
    detach()
    assert not events.watched
