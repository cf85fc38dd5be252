"""Who listens to which mitmproxy event, compiled so that nobody listening costs nothing.

mitmproxy walks all its addons for every event of every flow; with its default set that is 45% of
a stock request. Here the walk is done once, when addons change, and each event is left with a flat
tuple of the functions that want it. Within the walk the rules are mitmproxy's own: addons in
order, sub-addons after their parent, plain or async functions, an addon's exception logged and
passed over, `AddonHalt` ending the event.
"""

from __future__ import annotations

import inspect
import logging
import types
from typing import TYPE_CHECKING, Any, Final

from hms_addons.engine.flow_builder import was_killed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, MutableMapping

    from mitmproxy.flow import Flow
    from mitmproxy.http import HTTPFlow

logger = logging.getLogger(__name__)

type Listeners = tuple[Callable[..., Any], ...]
"""Functions to call, in order."""


class _Attached:
    """An addon that was attached.

    Attributes:
        leave: takes it out of mitmproxy's chain; None while it is not in there.
    """

    def __init__(self, addon: Any) -> None:
        self.addon = addon
        self.leave: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"<_Attached {self.addon!r}>"


class FlowEvents:
    """The listeners of each event the fast lane fires.

    Attributes:
        watched: somebody listens to flows, so flows are annotated and responses built.
        live_connections: by a client connection's id, who takes what mitmproxy's `inject.…` commands
            send into it (`await server_event(event)`); mitmproxy's own mapping, where there is one.
        host: adds an addon to mitmproxy's own chain, where there is one, and returns what takes it out;
            set by `host_by`.
        shows_websockets: false if mitmproxy's option `websocket` says so.
    """

    client_connected: Listeners
    client_disconnected: Listeners
    server_connect: Listeners
    server_connected: Listeners
    server_connect_error: Listeners
    server_disconnected: Listeners
    requestheaders: Listeners
    request: Listeners
    responseheaders: Listeners
    response: Listeners
    error: Listeners
    websocket_start: Listeners
    websocket_message: Listeners
    websocket_end: Listeners
    update: Listeners

    def __init__(self, halt: type[Exception] | None = None) -> None:
        self._halt = halt
        self.watched = False
        self.live_connections: MutableMapping[Any, Any] = {}
        self.options: Any = None
        self.host: Callable[[Any], Callable[[], None]] | None = None
        self._given: tuple[Iterable[Any], Any] = ((), None)
        self._attached: list[_Attached] = []
        self.compile(())

    def __repr__(self) -> str:
        counts = {name: len(getattr(self, name)) for name in EVENTS if getattr(self, name)}
        return f"<FlowEvents {counts}>"

    @property
    def shows_websockets(self) -> bool:
        """See above."""
        return self.options is None or bool(self.options.websocket)

    def compile(self, addons: Iterable[Any], own: Any = None) -> None:
        """Rebuild every tuple from mitmproxy's addon chain, leaving out `own` (the mesh itself)."""
        self._given = (addons, own)
        found: dict[str, list[Callable[..., Any]]] = {name: [] for name in EVENTS}
        attached = (one.addon for one in self._attached if one.leave is None)
        for addon in (*_traverse(addons), *attached):
            if addon is own:
                continue
            for name, listeners in found.items():
                function = getattr(addon, name, None)
                # A module may have been imported under an event's name (`from mitmproxy import log`).
                if callable(function) and not isinstance(function, types.ModuleType):
                    listeners.append(function)
        for name, listeners in found.items():
            setattr(self, name, tuple(listeners))
        self.watched = any(found[name] for name in _OF_FLOWS)

    def attach(self, addon: Any) -> Callable[[], None]:
        """Have `addon` hear of flows from now on, in both lanes; what comes back ends that.

        It goes on hearing of them when a window opens or closes meanwhile.
        """
        one = _Attached(addon)
        self._attached.append(one)
        self._place(one)

        def detach() -> None:
            self._attached.remove(one)
            if one.leave is not None:
                one.leave()
            self.compile(*self._given)

        return detach

    def host_by(self, host: Callable[[Any], Callable[[], None]] | None) -> None:
        """Have `host` take what is attached, from now on; None: they are called after all others."""
        self.host = host
        for one in self._attached:
            if one.leave is not None:
                one.leave()
                one.leave = None
            self._place(one)

    def _place(self, one: _Attached) -> None:
        if self.host is not None:
            one.leave = self.host(one.addon)
        self.compile(*self._given)

    def stop_at(self, halt: type[Exception]) -> None:
        """An addon that raises `halt` ends an event: those after it are not told."""
        self._halt = halt

    def forget(self) -> None:
        """Nobody's addons listen any more but those that are attached."""
        self.options, self.live_connections = None, {}
        self.compile(())

    async def fire(self, listeners: Listeners, data: Any) -> None:
        """Call `listeners` with `data` (a connection, a connection hook's data, or flows)."""
        for listener in listeners:
            try:
                result = listener(data)
                if result is not None and inspect.isawaitable(result):
                    await result
            except Exception as error:
                if self._halt is not None and isinstance(error, self._halt):
                    return
                logger.exception("Addon error: %s", error)  # noqa: TRY401 - mitmproxy says it so

    async def fire_flow(self, listeners: Listeners, flow: HTTPFlow) -> None:
        """Call `listeners` with a flow, tell views that it changed, wait while it is intercepted.

        As in mitmproxy, a flow that is killed before its response ends with the event `error`.
        """
        last = bool(listeners) and any(
            listeners is one for one in (self.response, self.error, self.websocket_end)
        )
        await self.fire(listeners, flow)
        if self.update:
            await self.fire(self.update, [flow])
        if flow.intercepted:
            await resumed(flow)
        if not last and self.error and was_killed(flow):
            await self.fire_flow(self.error, flow)


_HELD: Final[dict[int, Flow]] = {}
"""Those that wait in `resumed`, in this process: a view may have forgotten them."""


def resume_all() -> None:
    """Have all go on that wait in `resumed`: whoever held them has gone."""
    for flow in tuple(_HELD.values()):
        if flow.intercepted:
            flow.resume()


async def resumed(flow: Flow) -> None:
    """Wait until an intercepted flow is resumed, or killed: for that mitmproxy wakes nobody."""
    kill: Callable[[], None] = flow.kill

    def wake_and_kill() -> None:
        if flow.killable:
            flow.resume()
        kill()

    flow.__dict__["kill"] = wake_and_kill
    _HELD[id(flow)] = flow
    try:
        await flow.wait_for_resume()
    finally:
        _HELD.pop(id(flow), None)
        del flow.__dict__["kill"]
        flow.intercepted = False  # also when the client would not wait


EVENTS = tuple(FlowEvents.__annotations__)
"""The mitmproxy events that the fast lane fires."""


_OF_FLOWS = tuple(name for name in EVENTS if not name.startswith(("client_", "server_", "update")))
"""Those that are given a flow."""


def _traverse(addons: Iterable[Any]) -> Iterator[Any]:
    for addon in addons:
        yield addon
        yield from _traverse(getattr(addon, "addons", ()))
