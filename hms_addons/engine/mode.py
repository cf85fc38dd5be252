"""The `mesh` proxy mode: how mitmproxy knows the fast lane's listeners.

`mesh:NAME@host:port` stands in mitmproxy's list of modes (and in mitmweb's) for the configuration's
listener NAME. Registered by subclassing, as mitmproxy's own modes are. The port itself is opened by
the sidecar, as part of its configuration transaction; the instance here adopts it.
"""

from __future__ import annotations

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


class MeshInstance(ServerInstance[MeshMode]):
    """Adopts the sidecar's open listener for mitmproxy's list of servers."""

    find: ClassVar[Callable[[str], PortListener | None]] = staticmethod(lambda _name: None)
    """The sidecar's open listener by name; set by the mesh addon while it runs."""

    _listener: PortListener | None = None

    @property
    def is_running(self) -> bool:
        """See `ServerInstance`."""
        return self._listener is not None and self._listener.address is not None

    @property
    def listen_addrs(self) -> tuple[Address, ...]:
        """See `ServerInstance`."""
        address = self._listener.address if self._listener is not None else None
        return (address,) if address is not None else ()

    async def _start(self) -> None:
        self._listener = type(self).find(self.mode.data)
        if self._listener is None:
            message = (
                f"no listener '{self.mode.data}' is open: mesh modes follow the listeners of the "
                "configuration (-s hms_addons/mesh.py --set hms_config=…)"
            )
            raise OSError(message)

    async def _stop(self) -> None:
        # The sidecar opens and closes its listeners; this was only their place in the list.
        self._listener = None

    def make_top_layer(self, context: Context) -> NoReturn:  # noqa: ARG002 - its signature
        """Never called: connections go to the fast lane, not through mitmproxy's layers."""
        message = "the mesh mode has no mitmproxy layer"
        raise AssertionError(message)


def follow_addons(manager: AddonManager, events: FlowEvents, own: object) -> Callable[[], None]:
    """Keep `events` compiled from `manager`'s addons, whatever is loaded, reloaded or removed.

    mitmproxy has no signal for it, so the three methods that change its chain are wrapped, on this
    one instance.

    Args:
        manager: mitmproxy's addon manager.
        events: recompiled after every change.
        own: the mesh's addon, which is no listener of its own events.

    Returns:
        A function that ends it.
    """

    def recompile() -> None:
        events.compile(manager.chain, own)

    def wrap(name: str) -> None:
        original = getattr(manager, name)

        def changed(*args: object) -> object:
            result = original(*args)
            recompile()
            return result

        setattr(manager, name, changed)

    names = ("add", "register", "remove")
    for name in names:
        wrap(name)
    recompile()

    def stop() -> None:
        for name in names:
            manager.__dict__.pop(name, None)

    return stop


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
