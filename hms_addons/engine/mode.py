"""The `mesh` proxy mode: how mitmproxy knows the fast lane's listeners.

`mesh:NAME@host:port` stands in mitmproxy's list of modes (and in mitmweb's) for the configuration's
listener NAME. Registered by subclassing, as mitmproxy's own modes are. The port itself is opened by
the sidecar, as part of its configuration transaction; the instance here adopts it.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, ClassVar, Literal, NoReturn

from mitmproxy.addonmanager import AddonManager  # noqa: TC002 - documents what is wrapped
from mitmproxy.exceptions import AddonHalt
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.mode_servers import ServerInstance
from mitmproxy.proxy.mode_specs import ProxyMode

from hms_addons.engine.flow_events import FlowEvents

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mitmproxy.connection import Address
    from mitmproxy.proxy.context import Context

    from hms_addons.engine.listener import PortListener


class MeshMode(ProxyMode):
    """A listener of the mesh's fast lane."""

    transport_protocol: ClassVar[Literal["tcp", "udp", "both"]] = "tcp"

    def __post_init__(self) -> None:
        if not self.data:
            message = "name the listener, as in mesh:inbound_http@127.0.0.1:15001"
            raise ValueError(message)

    @property
    def description(self) -> str:
        """See `ProxyMode`."""
        return f"HMS mesh listener '{self.data}'"

    @property
    def default_port(self) -> int:
        """See `ProxyMode`."""
        return 15001

    def get_state(self) -> str:
        """See `ProxyMode`: in saved flows, a mode that mitmproxy without the mesh can read too."""
        return f"regular@{self.custom_listen_host or ''}:{self.custom_listen_port or 0}"

    def set_state(self, state: str) -> None:
        """See `ProxyMode`: a flow that is reverted keeps its mode."""
        if state != self.get_state():
            super().set_state(state)  # type: ignore[no-untyped-call] # mitmproxy's


class MeshInstance(ServerInstance[MeshMode]):
    """Adopts the sidecar's open listener for mitmproxy's list of servers."""

    find: ClassVar[Callable[[str], PortListener | None]] = staticmethod(lambda _name: None)
    """The sidecar's open listener by name; set by the mesh addon while it runs."""

    _adopts = False

    @property
    def is_running(self) -> bool:
        """See `ServerInstance`."""
        return bool(self.listen_addrs)

    @property
    def listen_addrs(self) -> tuple[Address, ...]:
        """See `ServerInstance`."""
        # Asked anew: a mesh that is loaded again opens its listeners again.
        listener = type(self).find(self.mode.data) if self._adopts else None
        return (listener.address,) if listener is not None and listener.address else ()

    async def _start(self) -> None:
        self._adopts = True
        if not self.is_running:
            self._adopts = False
            message = (
                f"no listener '{self.mode.data}' is open: mesh modes follow the listeners of the "
                "configuration (-s hms_addons/mesh.py --set hms_config=…)"
            )
            raise OSError(message)

    async def _stop(self) -> None:
        # The sidecar opens and closes its listeners; this was only their place in the list.
        self._adopts = False

    def make_top_layer(self, context: Context) -> NoReturn:  # noqa: ARG002 - its signature
        """Never called: connections go to the fast lane, not through mitmproxy's layers."""
        message = "the mesh mode has no mitmproxy layer"
        raise AssertionError(message)


def follow_addons(manager: AddonManager, events: FlowEvents, own: object) -> Callable[[], None]:
    """Keep `events` compiled from `manager`'s addons, whatever is loaded, reloaded or removed.

    mitmproxy has no signal for it, so the three methods that change its chain are wrapped, on this
    one instance. A script that is loaded again joins its loader only after `register` has returned,
    so the chain is looked at once more in the loop's next turn.

    Left out is mitmproxy's own `proxyserver`, which refuses connections to its own ports as loops:
    an outbound listener may well be led to an inbound one beside it.

    Args:
        manager: mitmproxy's addon manager.
        events: recompiled after every change.
        own: the mesh's addon, which is no listener of its own events.

    Returns:
        A function that ends it.
    """
    loop = asyncio.get_running_loop()
    following = True
    events.options = manager.master.options
    events.stop_at(AddonHalt)

    def recompile() -> None:
        if not following:
            return
        guard = manager.get("proxyserver")
        if guard is not None:
            events.live_connections = guard.connections
        events.compile([addon for addon in manager.chain if addon is not guard], own)

    def wrap(name: str) -> None:
        original = getattr(manager, name)

        def changed(*args: object) -> object:
            result = original(*args)
            recompile()
            loop.call_soon(recompile)
            return result

        setattr(manager, name, changed)

    names = ("add", "register", "remove")
    for name in names:
        wrap(name)
    recompile()

    events.host_by(_host(manager, own, recompile))

    def stop() -> None:
        nonlocal following
        events.host_by(None)
        following = False
        for name in names:
            manager.__dict__.pop(name, None)

    return stop


def _host(
    manager: AddonManager, own: object, recompile: Callable[[], None]
) -> Callable[[object], Callable[[], None]]:
    """What adds an addon to `manager`'s chain, and returns what takes it out."""

    def attach(addon: object) -> Callable[[], None]:
        manager.add(addon)
        if own in manager.chain:
            # Before the native lane, which lets plugins change the answer: the fast lane does so after
            # all addons, and both are to show the same.
            manager.chain.remove(addon)
            manager.chain.insert(manager.chain.index(own), addon)
            recompile()

        def detach() -> None:
            if addon in manager.chain:
                manager.remove(addon)

        return detach

    return attach


def host_addons(addons: Sequence[object]) -> FlowEvents:
    """Run mitmproxy `addons` without mitmproxy's proxy: in a bare master, with their events.

    Must be called on the event loop. The master lives as long as the `FlowEvents` do.
    """
    master = Master(Options())
    events = make_flow_events()
    follow_addons(master.addons, events, None)
    master.addons.add(*addons)
    return events


def make_flow_events() -> FlowEvents:
    """An empty `FlowEvents` that knows mitmproxy's `AddonHalt`."""
    return FlowEvents(AddonHalt)
