"""What mitmweb's pages hear of changed flows, and when."""

from __future__ import annotations

import json
import queue
from typing import TYPE_CHECKING, Any

import pytest
from mitmproxy.tools.web import app

from hms_addons.window.browser_updates import (
    _BACKLOG,
    _YOUNG,
    ADD,
    MOST,
    PAUSE,
    REMOVE,
    UPDATE,
    BrowserUpdates,
)
from tests.fakes.clock import FakeClock
from tests.fakes.flows import make_flow
from tests.fakes.web_master import FakeWebMaster

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


class Page:
    """A page's connection: reads nothing until it is told to."""

    def __init__(self) -> None:
        self._send_queue: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self.closed: list[int] = []
        self.filters: dict[str, Any] = {}

    def send(self, message: bytes) -> None:
        self._send_queue.put(message)

    def close(self, code: int, reason: str) -> None:
        assert reason
        self.closed.append(code)

    _json_dumps = staticmethod(app.ClientConnection._json_dumps)
    _broadcast_flow = app.ClientConnection._broadcast_flow

    def read(self) -> list[tuple[str, str]]:
        """Type and flow of each message that has come."""
        found = []
        while not self._send_queue.empty():
            message = json.loads(self._send_queue.get())
            payload = message.get("payload")
            found.append(
                (message["type"], payload["flow"]["id"] if isinstance(payload, dict) else payload)
            )
        return found


class Web:
    """mitmweb, but for its server."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.master = FakeWebMaster()
        self.view = self.master.view
        self.page = Page()
        app.ClientConnection.connections.add(self.page)  # type: ignore[arg-type] # the part of it that is used
        self.updates = BrowserUpdates(self.master, app, self.clock)
        self.updates.take_over()

    def next(self) -> list[tuple[str, str]]:
        self.clock.tick(PAUSE)
        return self.page.read()

    def old(self) -> None:
        """Let the page have been there for a while."""
        self.view.add([make_flow()])
        self.clock.tick(_YOUNG)
        self.next()


@pytest.fixture
async def web() -> AsyncIterator[Web]:
    made = Web()
    yield made
    made.updates.give_back()
    app.ClientConnection.connections.clear()
    made.master.close()


async def test_a_page_hears_of_a_flow_once_a_round(web: Web) -> None:
    web.old()
    flow = make_flow()
    web.view.add([flow])
    for _ in range(5):
        web.view.update([flow])
    assert web.page.read() == []
    assert web.next() == [(ADD, flow.id)]
    web.view.update([flow])
    web.view.update([flow])
    assert web.next() == [(UPDATE, flow.id)]
    assert web.next() == []
    assert web.clock.pending == 0


async def test_what_has_come_and_gone_is_never_heard_of(web: Web) -> None:
    web.old()
    flow = make_flow()
    web.view.add([flow])
    web.view.remove([flow])
    assert web.next() == []


async def test_a_young_page_may_have_it_in_its_list(web: Web) -> None:
    flow, gone = make_flow(), make_flow()
    web.view.add([flow, gone])
    web.view.remove([gone])
    assert web.next() == [(ADD, flow.id), (UPDATE, flow.id), (REMOVE, gone.id)]


async def test_a_young_page_is_never_told_of_an_update_alone(web: Web) -> None:
    flow = make_flow()
    web.view.add([flow])
    web.next()
    web.view.update([flow])
    assert web.next() == [(ADD, flow.id), (UPDATE, flow.id)]


async def test_what_goes_is_told_and_what_comes_back_is_an_update(web: Web) -> None:
    web.old()
    flow = make_flow()
    web.view.add([flow])
    web.next()
    web.view.remove([flow])
    assert web.next() == [(REMOVE, flow.id)]
    web.view.add([flow])
    web.next()
    web.view.remove([flow])
    web.view.add([flow])
    assert web.next() == [(UPDATE, flow.id)]


async def test_a_page_that_does_not_read_is_not_sent_more(web: Web) -> None:
    web.old()
    web.view.add([make_flow() for _ in range(MOST + 10)])
    web.clock.tick(PAUSE)
    for _ in range(5):
        web.clock.tick(PAUSE)
    assert len(web.page.read()) == MOST
    assert len(web.next()) == 10


async def test_a_page_that_never_reads_holds_no_more_than_the_view(web: Web) -> None:
    web.old()
    web.view.add([make_flow() for _ in range(10)])
    web.clock.tick(PAUSE)  # sent, and unread from now on
    for _ in range(50):
        flow = make_flow()
        web.view.add([flow])
        web.view.remove([flow])
    [page] = web.updates._pages.values()
    assert page.news == {}


async def test_a_page_with_too_much_unread_is_let_go_once(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(_BACKLOG + 1):
        web.page.send(b"{}")
    web.view.add([make_flow()])
    web.clock.tick(PAUSE)
    web.clock.tick(PAUSE)
    assert web.page.closed == [1013]
    assert caplog.text.count("does not read") == 1


async def test_a_refreshed_view_is_read_anew(web: Web) -> None:
    web.old()
    web.view.add([make_flow()])
    web.view.clear()
    assert [kind for kind, _ in web.page.read()] == ["flows/reset"]
    assert web.next() == []


async def test_without_pages_nothing_is_done(web: Web) -> None:
    app.ClientConnection.connections.clear()
    web.view.add([make_flow()])
    assert web.clock.pending == 0
    assert repr(web.updates) == "<BrowserUpdates pages=0>"


async def test_given_back_mitmweb_tells_it_itself(web: Web) -> None:
    web.updates.give_back()
    flow = make_flow()
    web.view.add([flow])
    assert web.page.read() == [(ADD, flow.id)]
    web.updates.take_over()
