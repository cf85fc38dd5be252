"""`dns_names`: listeners of kind: dns, which lead the mesh's names to this sidecar.

    app ──auth-svc.svc?──▶ dns listener: the sidecar's address
        ──example.com?───▶      〃      ──▶ the system's resolvers, unchanged

Its ports are opened when a configuration is accepted, and answer once the sidecar starts. Nothing is loaded and
nothing runs where there is no such listener.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.errors import ConfigError
from hms_addons.hookspecs import hookimpl
from hms_addons.listening import ListenError, shown_address
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.dns.server import DnsServer
    from hms_addons.hookspecs import Mesh

_NAME = "dns"


class DnsNames:
    """The built-in plugin `dns_names`.

    Args:
        clock: time.

    Attributes:
        elsewhere: ports that somebody else answers on, as mitmproxy's own dns mode.
        counts: how queries ended, by outcome.
    """

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self.elsewhere: frozenset[int] = frozenset()
        self.counts: Counter[str] = Counter()
        self._servers: dict[tuple[str, int], DnsServer] = {}
        self._tasks: TaskSet | None = None
        self._mesh: Mesh | None = None
        self._told = False

    def __repr__(self) -> str:
        return f"<DnsNames {list(self._servers.values())}>"

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Open, keep and give up ports as `snapshot` has them.

        Raises:
            ConfigError: one is not to be had; all is as before.
        """
        if not snapshot.dns and not self._servers:
            return
        from hms_addons.dns.server import DnsServer  # noqa: PLC0415 - few have a use for it

        wanted = {
            (listener.host, listener.port): listener
            for listener in snapshot.dns
            if listener.port not in self.elsewhere or listener.port == 0
        }
        opened: dict[tuple[str, int], DnsServer] = {}
        try:
            for address, listener in wanted.items():
                if address not in self._servers:
                    server = DnsServer(listener, self._clock, self.counts)
                    server.bind()
                    opened[address] = server
        except ListenError as error:
            for server in opened.values():
                server.stop()
            raise ConfigError(str(error)) from error
        for address, server in list(self._servers.items()):
            if address in wanted:
                server.configure(wanted[address])
            else:
                server.stop()
                del self._servers[address]
                if self._tasks is not None:
                    self._tasks.start(server.close(), "close")
        self._servers |= opened
        if self._tasks is not None:
            for server in opened.values():
                server.start()
            self._tell()

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Answer from now on."""
        self._tasks = TaskSet(_NAME)
        self._mesh = mesh
        for server in self._servers.values():
            server.start()
        self._tell()

    def _tell(self) -> None:
        """Have status and metrics tell of it, from when there is something to tell."""
        if self._servers and self._mesh is not None and not self._told:
            self._told = True
            self._mesh.add_status(_NAME, self._status)
            self._mesh.add_metrics("dns_names", self)

    @hookimpl
    async def hms_shutdown(self) -> None:
        """Give up all ports."""
        for server in self._servers.values():
            await server.close()
        self._servers.clear()
        if self._tasks is not None:
            await self._tasks.close()
            self._tasks = None

    def _status(self) -> dict[str, Any]:
        return {
            "listeners": [
                shown_address(*one.address) for one in self._servers.values() if one.address
            ],
            "waiting": sum(server.waiting for server in self._servers.values()),
            "queries": dict(self.counts),
        }

    def collect(self) -> Iterator[Any]:
        """See `metrics_registry.Collector`."""
        if not self._servers and not self.counts:
            return
        from prometheus_client.core import CounterMetricFamily  # noqa: PLC0415 - see the registry

        family = CounterMetricFamily(
            "hms_dns_queries",
            "Queries to dns listeners: answered, unknown, forwarded, failed, refused, malformed, looped, overflow.",
            labels=("outcome",),
        )
        for outcome, number in self.counts.items():
            family.add_metric((outcome,), number)
        yield family
