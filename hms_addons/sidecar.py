"""The sidecar: everything that runs, put together, and the transaction that changes it.

A configuration change is one transaction: secrets are loaded, every plugin is asked, new ports are
opened, and only then is anything swapped. Whatever fails on the way, the old snapshot goes on
serving. Requests in flight finish on the snapshot they began with.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.places import located_by_itself
from hms_addons.engine.admin_lane import AdminLane
from hms_addons.engine.drain import drain, ended
from hms_addons.engine.fast_lane import FastLane
from hms_addons.engine.flow_builder import Mode, unconnected_server
from hms_addons.engine.flow_events import FlowEvents
from hms_addons.engine.hook_times import measure
from hms_addons.engine.listener import PortListener
from hms_addons.engine.original_destination import meet
from hms_addons.engine.peer import identify_connection
from hms_addons.engine.ports import Ports
from hms_addons.engine.recorder import Recorder
from hms_addons.engine.server_events import ServerEvents
from hms_addons.errors import ConfigError
from hms_addons.identity.file_secret import SecretFiles
from hms_addons.identity.identity_holder import SecretError
from hms_addons.identity.secret_store import SecretsError, SecretStore
from hms_addons.identity.svid import iso_time
from hms_addons.metrics_registry import MetricsRegistry
from hms_addons.tasks import TaskSet
from hms_addons.upstream.cluster_manager import ClusterManager

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Listener, Snapshot
    from hms_addons.engine.connection_context import ConnectionContext
    from hms_addons.engine.fast_lane import Binding
    from hms_addons.engine.hook_chain import HookChain
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.hookspecs import AdminRequest, WindowHost
    from hms_addons.http_message import Answer, BodyStream
    from hms_addons.identity.identity_holder import IdentityHolder
    from hms_addons.metrics_registry import Collector, Exposition
    from hms_addons.plugins import PluginManager
    from hms_addons.recording_wish import RecordingWish

logger = logging.getLogger(__name__)

DRAIN_GRACE = 30.0
"""Seconds that requests in flight are given when the sidecar leaves."""


class Sidecar:
    """One sidecar's data plane; what plugins know as `Mesh`.

    Args:
        plugins: registered and ready.
        events: mitmproxy's listeners; empty in the slim sidecar.
        clock, rng: time and chance.
        elsewhere: ports that stock mitmproxy modes serve; the fast lane leaves them alone.
        mode: makes mitmproxy's `ProxyMode` for a listener; None outside mitmproxy's server.
        on_drained: called once a drain that `drain()` began has ended.
        provided: the identity that a control plane provides, for secrets that no files provide.
    """

    def __init__(
        self,
        plugins: PluginManager,
        *,
        events: FlowEvents | None = None,
        clock: Clock = SYSTEM_CLOCK,
        rng: random.Random | None = None,
        elsewhere: frozenset[int] = frozenset(),
        mode: Callable[[Listener], Mode] | None = None,
        on_drained: Callable[[], object] = lambda: None,
        provided: IdentityHolder | None = None,
    ) -> None:
        self.plugins = plugins
        self.clock = clock
        self.events = events or FlowEvents()
        self.snapshot: Snapshot | None = None
        self._given: Snapshot | None = None
        self._chain: HookChain | None = None
        """The same as it came, before a trust domain was added."""
        self.rejected: dict[str, Any] | None = None
        """The last change that was refused: `reason` and `at`; None once one is accepted."""
        self.rejections = 0
        """Changes that were refused, since the start."""
        self.draining = False
        self._quitting = False
        self.on_applied: Callable[[], object] = lambda: None
        """Called after each change of the configuration."""
        self.window: WindowHost | None = None
        """Opens a mitmweb in this process; None where that is mitmproxy's own."""
        self._status: dict[str, Callable[[], Any]] = {}
        self._metrics = MetricsRegistry(plugins.errors)
        self._rng = rng or random.Random()  # noqa: S311 - load balancing, not cryptography
        self._mode = mode
        self._on_drained = on_drained
        self._tasks = TaskSet("sidecar")
        self._recorder = Recorder(self.events, clock)
        self._secrets = SecretStore(clock, self._tasks, self._secret_changed, provided)
        balancers = {
            name: balancer
            for group in plugins.collect("hms_load_balancers")
            for name, balancer in group.items()
        }
        self.upstream = ClusterManager(clock, self._rng, self._secrets.current, balancers=balancers)
        self._ports = Ports(self._make_lane, self._secrets.current, clock, elsewhere)
        self._admin: list[tuple[PortListener, AdminLane]] = []
        self._placeholder = unconnected_server()
        self._opened = False
        self._started = False
        self._plugins_started = False
        self.upstream.observer = ServerEvents(self.events, self._tasks, clock)

    def __repr__(self) -> str:
        version = self.snapshot.version if self.snapshot else None
        return (
            f"<Sidecar version={version} listeners={list(self._ports.running)} ready={self.ready}>"
        )

    # -- start and stop -------------------------------------------------------------------------

    async def open(self) -> None:
        """Let plugins open what must answer before there is a configuration; `start` does it else.

        Raises:
            PluginError: a plugin failed to, as its port is taken.
        """
        if not self._opened:
            self._opened = True
            await self.plugins.open(self)

    async def start(self, snapshot: Snapshot) -> None:
        """Apply the first snapshot, start the plugins, accept requests.

        In this order: an occupied port is an error before anything else has begun, and no request
        meets a plugin that has not started. A plugin that fails ends the sidecar again: see `stop`.

        Raises:
            ConfigError: the snapshot cannot be used.
            ListenError: a port cannot be listened on.
            PluginError: a plugin failed to start.
        """
        if snapshot is not self._given:  # else it has been tried out by `apply`
            await self.apply(snapshot)
        try:
            await self.open()
            self._plugins_started = True  # even if one fails: those before it are to be shut down
            await self.plugins.startup(self)
        except BaseException:
            await self.stop()
            raise
        if not self.draining:  # a plugin may have asked for that
            self._ports.accept()
            self._started = True
            await self.plugins.announce(self.clock)

    async def stop(self, grace: float = 0.0) -> None:
        """End everything: let requests finish for `grace` seconds, then let go of all. Idempotent."""
        if grace and not self.draining:
            self.draining = True
            await self._say_farewell()
        self.draining = True
        lanes = self._ports.close()
        grace = 0.0 if self._quitting else grace
        cut = await drain([lane.connections for lane in lanes], self.clock, grace)
        if cut:
            logger.warning("%d connections were cut off after %g s of grace", cut, grace)
        await ended(lanes)
        self._started = False
        if self._plugins_started:
            self._plugins_started = False
            await self.plugins.shutdown(self.clock)
        self._recorder.close()
        for listener, lane in self._admin:
            listener.close()
            await drain([lane.connections], self.clock, 0.5)
        await self.upstream.close()
        await self._tasks.close()
        self._ports.clear()

    def drain(self) -> None:
        """See `hookspecs.Mesh`: readiness off, no new connections, finish, then `on_drained`."""
        if not self.draining:
            self.draining = True
            self._tasks.start(self._drain(), "drain")

    def quit(self) -> None:
        """See `hookspecs.Mesh`: `on_drained` at once; whoever is told so stops the sidecar."""
        self.draining = self._quitting = True
        logger.info("told to quit: what is in flight is cut off")
        self._on_drained()

    async def _say_farewell(self) -> None:
        if self._plugins_started:
            await self.plugins.farewell(self.clock)

    async def _drain(self) -> None:
        await self._say_farewell()
        logger.info("draining: no new requests are taken; %g s for those in flight", DRAIN_GRACE)
        cut = await drain([it.connections for it in self._ports.close()], self.clock, DRAIN_GRACE)
        logger.info("drained%s", f"; {cut} connections were cut off" if cut else "")
        self._on_drained()

    # -- configuration --------------------------------------------------------------------------

    async def apply(self, snapshot: Snapshot) -> None:
        """Make `snapshot` the configuration in force, or leave everything as it is.

        Raises:
            ConfigError: a secret cannot be loaded, a plugin refused, or a port is not to be had.
        """
        self.apply_now(snapshot)

    def apply_now(self, snapshot: Snapshot) -> None:
        """The same, for who cannot wait: nothing in it does."""
        try:
            self._apply(snapshot)
        except Exception as error:
            self.refuse(str(error))
            raise
        self.rejected = None
        self.on_applied()

    def refuse(self, reason: str) -> None:
        """A change could not be used: say so in the log, on `/config` and in `status()`."""
        self.rejections += 1
        self.rejected = {"reason": reason, "at": iso_time(self.clock.wall())}
        if self.snapshot is not None:
            logger.error("the new configuration is refused, the old one goes on:\n%s", reason)

    def _apply(self, snapshot: Snapshot) -> None:
        wanted = {
            name: SecretFiles(Path(secret.certificate), Path(secret.key), Path(secret.bundle))
            for name, secret in snapshot.secrets.items()
        }
        try:
            staged = self._secrets.stage(wanted, snapshot.trust_domain, snapshot.asked_secrets)
        except SecretsError as error:
            told = [located_by_itself(snapshot, m, f"secrets.{name}") for name, m in error.problems]
            raise ConfigError("\n".join(told)) from error
        except SecretError as error:
            raise ConfigError(str(error)) from error
        if not snapshot.listeners and self.snapshot is not None and self.snapshot.listeners:
            # An emptied or half-written file, most likely; not a wish to stop serving.
            message = "the new configuration has no listeners; to stop the sidecar, drain it"
            raise ConfigError(message)
        given, identities = snapshot, {name: entry.holder.current for name, entry in staged.items()}
        unknown = self.upstream.unknown_balancers(snapshot)
        if unknown:
            raise ConfigError("\n".join(unknown))
        snapshot = _with_trust_domain(snapshot, identities)
        self.plugins.configure(snapshot, self.snapshot)
        try:
            chain = self.plugins.compile_chain(self._rng, self.clock, snapshot)
            ports = self._ports.stage(snapshot, identities, chain)
        except BaseException:
            if self.snapshot is not None:
                self.plugins.restore(self.snapshot)
            raise
        # The point of no return: nothing from here on can fail or wait.
        self.snapshot, self._given, self._chain = snapshot, given, chain
        changed = self._secrets.commit(staged)
        self.upstream.apply(snapshot)
        self.upstream.pick_endpoint = chain.pick_endpoint if chain.picks_endpoints else None
        self._ports.swap(snapshot, ports, changed)
        for name in changed:
            self.upstream.secret_changed(name)
        logger.info("configuration %s from %s is in force", snapshot.version, snapshot.source)

    def _make_lane(self, binding: Binding) -> FastLane:
        return FastLane(
            binding,
            self.upstream,
            self.events,
            self.clock,
            self._tasks,
            self._identify,
            self._placeholder,
        )

    def _identify(self, connection: Http1Server, listener: Listener) -> ConnectionContext | None:
        identity = self._secrets.current(listener.secret) if listener.secret else None
        mode = self._mode(listener) if self._mode is not None else None
        context = identify_connection(
            connection, listener, identity, mode, self.clock.wall(), watched=self.events.watched
        )
        if context is not None and listener.intercept is not None:
            meet(context, connection.transport.get_extra_info("socket"))
        return context

    def _secret_changed(self, name: str) -> None:
        self._ports.secret_changed(name)
        self.upstream.secret_changed(name)

    # -- what plugins and the lanes ask of it ---------------------------------------------------

    @property
    def ready(self) -> bool:
        """See `hookspecs.Mesh`."""
        return self.not_ready is None

    @property
    def not_ready(self) -> str | None:
        """See `hookspecs.Mesh`."""
        if self.draining:
            return "the sidecar is draining"
        if self.snapshot is None and self.rejected is not None:
            return "waiting for a first configuration that can be used: /config has what is wrong"
        if self.snapshot is None:
            return "waiting for the first configuration"
        if not self._started:
            return "the sidecar is starting"
        expired = ", ".join(self._secrets.expired(self.snapshot.asked_secrets))
        return f"the certificate of {expired} has expired: see /certs" if expired else None

    @property
    def bindings(self) -> dict[str, Binding]:
        """The lanes' bindings in force, by listener name."""
        return {name: port.lane.binding for name, port in self._ports.running.items()}

    @property
    def lanes(self) -> dict[str, FastLane]:
        """The running lanes, by listener name."""
        return {name: port.lane for name, port in self._ports.running.items()}

    def port_of(self, name: str) -> PortListener | None:
        """The open port of the listener `name`, or None."""
        port = self._ports.running.get(name)
        return port.port if port is not None and port.port.address is not None else None

    def status(self) -> dict[str, Any]:
        """See `hookspecs.Mesh`."""
        snapshot = self.snapshot
        return {
            "ready": self.ready,
            "draining": self.draining,
            "version": snapshot.version if snapshot else None,
            "source": snapshot.source if snapshot else None,
            "service": snapshot.service if snapshot else None,
            "rejected": self.rejected,
            "rejections_total": self.rejections,
            **{name: show() for name, show in self._status.items()},
            "listeners": self._ports.describe(),
            "plugins": [
                {"name": name, "source": self.plugins.sources[name]} for name in self.plugins.names
            ],
            "plugin_errors": [
                {"plugin": plugin, "hook": hook, "count": count}
                for (plugin, hook), count in self.plugins.errors.items()
            ],
        }

    def add_status(self, name: str, show: Callable[[], Any]) -> None:
        """See `hookspecs.Mesh`."""
        self._status[name] = show

    def add_metrics(self, name: str, collector: Collector) -> None:
        """See `hookspecs.Mesh`."""
        self._metrics.add(name, collector)

    async def metrics(self, accept: str = "") -> Exposition:
        """See `hookspecs.Mesh`."""
        return await self._metrics.render(accept)

    @property
    def serving(self) -> bool:
        """Requests are taken, also in the first moments of a drain."""
        return self._started and self._ports.accepting

    def clusters(self) -> list[dict[str, Any]]:
        """See `hookspecs.Mesh`."""
        return self.upstream.describe()

    async def time_hooks(self, seconds: float) -> list[dict[str, Any]]:
        """See `hookspecs.Mesh`."""
        if self._chain is None:
            message = "there is no configuration yet"
            raise ConfigError(message)
        return await measure(self._chain, self.clock, seconds)

    async def record(self, wish: RecordingWish) -> BodyStream:
        """See `hookspecs.Mesh`."""
        return await self._recorder.begin(wish)

    def recording(self) -> dict[str, Any]:
        """See `hookspecs.Mesh`."""
        return self._recorder.state()

    async def open_window(self) -> str:
        """See `hookspecs.Mesh`."""
        if self.window is None:
            message = (
                "this sidecar runs inside mitmproxy: started as mitmweb it has a window, whose address "
                "it has told at its start"
            )
            raise ConfigError(message)
        return await self.window.open()

    async def close_window(self) -> bool:
        """See `hookspecs.Mesh`."""
        return self.window is not None and await self.window.close()

    def certificates(self) -> list[dict[str, Any]]:
        """See `hookspecs.Mesh`."""
        return self._secrets.describe()

    def explain(
        self, request_line: str, headers: Mapping[str, str] | Iterable[tuple[str, str]]
    ) -> dict[str, Any]:
        """See `hookspecs.Mesh`."""
        from hms_addons.config.explain import explain  # noqa: PLC0415 - seldom asked

        if self.snapshot is None:
            message = "there is no configuration yet"
            raise ConfigError(message)
        return explain(self.snapshot, request_line, headers)

    async def serve(
        self, host: str, port: int, handler: Callable[[AdminRequest], Awaitable[Answer]]
    ) -> tuple[str, int]:
        """See `hookspecs.Mesh`."""
        lane = AdminLane(handler)
        listener = PortListener("admin", lane, self.clock)
        listener.open(host, port)
        self._admin.append((listener, lane))
        assert listener.address is not None  # noqa: S101 - it has just been opened
        return listener.address


def _with_trust_domain(snapshot: Snapshot, identities: Mapping[str, Any]) -> Snapshot:
    """`snapshot`, with the trust domain of its SVIDs where it names none.

    Policies compare callers with whole SPIFFE IDs, so they need one.
    """
    found = {identity.trust_domain for identity in identities.values() if identity is not None}
    if snapshot.trust_domain is not None or len(found) != 1:
        return snapshot
    return replace(snapshot, trust_domain=found.pop())
