"""Tells mitmweb's pages of changed flows, as fast as each can read.

mitmweb sends a page every change of every flow at once, and queues without bound what the page has not read: a
mesh at work makes thousands a second, more than a browser draws, and the queue eats the machine. Here
it is noted which flows have changed, and a page is told of their state, a few times a second, and only when it
has read what it was sent before. A flow that has come and gone meanwhile it never hears of.
"""

from __future__ import annotations

import logging
import weakref
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from mitmproxy.addons.view import View
    from mitmproxy.flow import Flow

    from hms_addons.clock import Clock, Timer

logger = logging.getLogger(__name__)

PAUSE: Final = 0.1
"""Seconds between two rounds of news."""
MOST: Final = 200
"""Flows in one round."""
_YOUNG: Final = 10.0
"""Seconds for which a page may still be reading the whole list."""
_BACKLOG: Final = 5_000
"""Messages that a page may leave unread, log lines above all; then it is let go."""

ADD: Final = "flows/add"
UPDATE: Final = "flows/update"
REMOVE: Final = "flows/remove"


class _Page:
    """What one page has yet to be told."""

    __slots__ = ("news", "since")

    def __init__(self, since: float) -> None:
        self.news: dict[str, str] = {}
        self.since = since

    def note(self, flow_id: str, what: str, now: float) -> None:
        before = self.news.get(flow_id)
        if what == REMOVE:
            self.news.pop(flow_id, None)
            # Of one that it never heard of there is nothing to tell, unless the list has had it.
            if before != ADD or now - self.since < _YOUNG:
                self.news[flow_id] = REMOVE
        elif what == ADD:
            self.news[flow_id] = UPDATE if before == REMOVE else ADD
        elif before is None:
            self.news[flow_id] = UPDATE


class BrowserUpdates:
    """Takes the place of mitmweb's own, from `take_over` to `give_back`.

    Args:
        master: mitmweb's.
        app: the module `mitmproxy.tools.web.app`.
        clock: time.
    """

    def __init__(self, master: Any, app: Any, clock: Clock) -> None:
        self._master = master
        self._app = app
        self._view: View = master.view
        self._clock = clock
        self._pages: dict[Any, _Page] = {}
        self._let_go: weakref.WeakSet[Any] = weakref.WeakSet()
        self._timer: Timer | None = None

    def __repr__(self) -> str:
        return f"<BrowserUpdates pages={len(self._pages)}>"

    def take_over(self) -> None:
        """From now on pages hear of flows from here."""
        view, master = self._view, self._master
        view.sig_view_add.disconnect(master._sig_view_add)  # noqa: SLF001 - there is no other way
        view.sig_view_update.disconnect(master._sig_view_update)  # noqa: SLF001 - as above
        view.sig_view_remove.disconnect(master._sig_view_remove)  # noqa: SLF001 - as above
        view.sig_view_refresh.disconnect(master._sig_view_refresh)  # noqa: SLF001 - as above
        view.sig_view_add.connect(self._added)
        view.sig_view_update.connect(self._updated)
        view.sig_view_remove.connect(self._removed)
        view.sig_view_refresh.connect(self._refreshed)

    def give_back(self) -> None:
        """Leave it to mitmweb again."""
        view, master = self._view, self._master
        view.sig_view_add.disconnect(self._added)
        view.sig_view_update.disconnect(self._updated)
        view.sig_view_remove.disconnect(self._removed)
        view.sig_view_refresh.disconnect(self._refreshed)
        view.sig_view_add.connect(master._sig_view_add)  # noqa: SLF001 - as above
        view.sig_view_update.connect(master._sig_view_update)  # noqa: SLF001 - as above
        view.sig_view_remove.connect(master._sig_view_remove)  # noqa: SLF001 - as above
        view.sig_view_refresh.connect(master._sig_view_refresh)  # noqa: SLF001 - as above
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- what happens ---------------------------------------------------------------------------

    def _added(self, flow: Flow) -> None:
        self._note(flow.id, ADD)

    def _updated(self, flow: Flow) -> None:
        self._note(flow.id, UPDATE)

    def _removed(self, flow: Flow, index: int) -> None:
        del index
        self._note(flow.id, REMOVE)

    def _refreshed(self) -> None:
        """All is otherwise: pages read the whole list again."""
        now = self._clock.monotonic()
        for page in self._pages.values():
            page.news.clear()
            page.since = now
        self._app.ClientConnection.broadcast_flow_reset()

    def _note(self, flow_id: str, what: str) -> None:
        connections = self._app.ClientConnection.connections
        if len(connections) != len(self._pages) or connections != self._pages.keys():
            self._look_for_pages(connections)
        now = self._clock.monotonic()
        for page in self._pages.values():
            page.note(flow_id, what, now)
        if self._timer is None and self._pages:
            self._timer = self._clock.call_later(PAUSE, self._tell)

    def _look_for_pages(self, connections: set[Any]) -> None:
        now = self._clock.monotonic()
        self._pages = {one: self._pages.get(one) or _Page(now) for one in connections}

    # -- what is told ---------------------------------------------------------------------------

    def _tell(self) -> None:
        self._timer = None
        self._look_for_pages(self._app.ClientConnection.connections)
        made: dict[str, Any] = {}
        for connection, page in list(self._pages.items()):
            unread = connection._send_queue.qsize()  # noqa: SLF001 - there is no other way
            if unread > _BACKLOG:
                if connection not in self._let_go:
                    self._let_go.add(connection)
                    logger.warning("a mitmweb page does not read what it is sent, and is let go")
                    connection.close(1013, "too slow")
            elif not unread:
                self._tell_page(connection, page, made)
        if any(page.news for page in self._pages.values()):
            self._timer = self._clock.call_later(PAUSE, self._tell)

    def _tell_page(self, connection: Any, page: _Page, made: dict[str, Any]) -> None:
        young = self._clock.monotonic() - page.since < _YOUNG
        for flow_id in list(islice(page.news, MOST)):
            what = page.news.pop(flow_id)
            if what == REMOVE:
                message = {"type": REMOVE, "payload": flow_id}
                connection.send(connection._json_dumps(message))  # noqa: SLF001 - as above
                continue
            flow = self._view.get_by_id(flow_id)
            if flow is None:
                continue
            if flow_id not in made:
                made[flow_id] = self._app.flow_to_json(flow)
            news: tuple[str, ...] = (what,)
            if young:
                # Its list may have the flow as it was earlier: an add is then ignored. Or not have it: to an
                # update alone the page makes an entry that it never takes away again.
                news = (ADD, UPDATE)
            for one in news:
                connection._broadcast_flow(one, flow, made[flow_id])  # noqa: SLF001 - as above
