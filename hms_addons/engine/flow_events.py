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
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mitmproxy.http import HTTPFlow

logger = logging.getLogger(__name__)

type Listeners = tuple[Callable[..., Any], ...]


class FlowEvents:
    """The listeners of each event the fast lane fires.

    Attributes:
        watched: somebody listens to flows, so flows are annotated and responses built.
    """

    __slots__ = (
        "_halt",
        "client_connected",
        "client_disconnected",
        "error",
        "request",
        "requestheaders",
        "response",
        "responseheaders",
        "server_connect",
        "server_connect_error",
        "server_connected",
        "server_disconnected",
        "update",
        "watched",
    )

    def __init__(self, halt: type[Exception] | None = None) -> None:
        self._halt = halt
        self.compile(())

    def __repr__(self) -> str:
        counts = {name: len(getattr(self, name)) for name in EVENTS if getattr(self, name)}
        return f"<FlowEvents {counts}>"

    def compile(self, addons: Iterable[Any], own: Any = None) -> None:
        """Rebuild every tuple from mitmproxy's addon chain, leaving out `own` (the mesh itself)."""
        found: dict[str, list[Callable[..., Any]]] = {name: [] for name in EVENTS}
        for addon in _traverse(addons):
            if addon is own:
                continue
            for name, listeners in found.items():
                function = getattr(addon, name, None)
                # A module may have been imported under an event's name (`from mitmproxy import log`).
                if callable(function) and not isinstance(function, types.ModuleType):
                    listeners.append(function)
        for name, listeners in found.items():
            setattr(self, name, tuple(listeners))
        self.watched = any(
            found[name]
            for name in ("requestheaders", "request", "responseheaders", "response", "error")
        )

    async def fire(self, listeners: Listeners, data: Any) -> None:
        """Call `listeners` with `data` (a connection, or a connection hook's data)."""
        for listener in listeners:
            try:
                result = listener(data)
                if result is not None and inspect.isawaitable(result):
                    await result
            except Exception as error:  # noqa: BLE001 - an addon's fault must not end the flow
                if self._halt is not None and isinstance(error, self._halt):
                    return
                logger.error("Addon error: %s", error, exc_info=error)

    async def fire_flow(self, listeners: Listeners, flow: HTTPFlow) -> None:
        """Call `listeners` with a flow, tell views that it changed, wait while it is intercepted."""
        await self.fire(listeners, flow)
        for listener in self.update:
            result = listener([flow])
            if result is not None and inspect.isawaitable(result):
                await result
        if flow.intercepted:
            await flow.wait_for_resume()


EVENTS = tuple(name for name in FlowEvents.__slots__ if name not in {"_halt", "watched"})


def _traverse(addons: Iterable[Any]) -> Iterator[Any]:
    for addon in addons:
        yield addon
        yield from _traverse(getattr(addon, "addons", ()))
