"""The mesh inside mitmproxy: `mitmdump -s hms_addons/mesh.py`, and mitmweb and mitmproxy likewise.

One addon. It reads the configuration that `hms_config` names (bare: `configs/routes.yaml`), puts its
listeners into mitmproxy's modes, and serves them by the fast lane; stock modes such as `reverse:`
are served by the native lane, with the same chain. Options, each by `--set`:

    hms_config=routes.yaml,local.yaml   configuration files, merged in order
    hms_service=claims-svc              the service this sidecar stands beside
    hms_admin=127.0.0.1:15000           the admin port; `off` for none
    hms_disable=stamp                   installed plugins to leave out, by name
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

_HERE = Path(__file__).resolve().parent
# mitmproxy puts a script's folder first on the path; here that is the package itself, whose modules
# would then be importable under bare names. Its parent is what is needed.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != _HERE]
# First, so that the checkout whose mesh.py was named is the one that runs.
sys.path.insert(0, str(_HERE.parent))

from mitmproxy import ctx  # noqa: E402 - the path comes first
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode  # noqa: E402

from hms_addons.bootstrap import build_plugins, parse_admin  # noqa: E402
from hms_addons.clock import SYSTEM_CLOCK  # noqa: E402
from hms_addons.config.source import FileSource  # noqa: E402
from hms_addons.engine.mode import (  # noqa: E402
    MeshInstance,
    MeshMode,
    follow_addons,
    make_flow_events,
)
from hms_addons.engine.native_lane import NativeLane  # noqa: E402
from hms_addons.engine.native_trailers import take_trailers  # noqa: E402
from hms_addons.errors import Failure, Fault, MeshError  # noqa: E402
from hms_addons.sidecar import DRAIN_GRACE, Sidecar  # noqa: E402
from hms_addons.tasks import TaskSet  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.addonmanager import Loader

    from hms_addons.config.snapshot import Listener, Snapshot

logger = logging.getLogger("hms_addons.mesh")

DEFAULT_CONFIG = "configs/routes.yaml"

_WEB_COLUMNS = ["tls", "icon", "path", "method", "status", "size", "time", "comment"]
"""mitmweb's own columns, and the one that tells what the mesh did."""


class Mesh:
    """The mitmproxy addon that runs a sidecar. Its own flow events come by `NativeLane`."""

    name = "hms-mesh"

    def __init__(self) -> None:
        self._sidecar: Sidecar | None = None
        self._native: NativeLane | None = None
        self._tasks = TaskSet("mesh")
        self._task: asyncio.Task[None] | None = None
        self._unfollow: Callable[[], None] = lambda: None
        self._forget_trailers: Callable[[], None] = lambda: None
        self._stock_modes: list[str] = []

    def load(self, loader: Loader) -> None:
        """mitmproxy event: declare the options."""
        loader.add_option("hms_config", str, "", "Mesh configuration files, comma-separated.")
        loader.add_option("hms_service", str, "", "The service this sidecar stands beside.")
        loader.add_option(
            "hms_admin", str, "127.0.0.1:15000", "Address of the mesh's admin port, or 'off'."
        )
        loader.add_option("hms_disable", str, "", "Mesh plugins to leave out, comma-separated.")
        for library in ("httpx", "httpcore"):
            # mitmproxy sets the root logger to debug; these would tell of every byte.
            logging.getLogger(library).setLevel(logging.WARNING)
        if not ctx.options.has_changed("mode"):
            _forgo_default_mode()
        if "web_columns" in ctx.options and not ctx.options.has_changed("web_columns"):
            ctx.options.update(web_columns=_WEB_COLUMNS)

    def configure(self, updated: set[str]) -> None:
        """mitmproxy event: options have changed; the mesh's own count when it starts."""
        changed = sorted(name for name in updated if name.startswith("hms_"))
        if self._task is not None and changed:
            logger.warning("%s: used from the next start on", ", ".join(changed))
        if "mode" in updated and self._task is not None and ctx.options.mode != self._modes():
            # Somebody has switched a stock mode on or off; mitmweb's page knows those alone.
            self._stock_modes = _stock_modes()
            asyncio.get_running_loop().call_soon(self._show_modes)

    def running(self) -> None:
        """mitmproxy event: start the sidecar."""
        if self._task is None:
            self._task = self._tasks.start(self._run(), "run")

    def done(self) -> asyncio.Task[None] | None:
        """mitmproxy event: finish what is in flight, then stop.

        A plain function that returns a task: mitmproxy awaits it at its own end, and does not when
        it reloads the script.
        """
        if self._task is None:
            return None
        return self._tasks.start(self._stop(), "stop")

    async def _run(self) -> None:
        try:
            await self._start()
        except (MeshError, OSError) as error:
            logger.error("the mesh did not start:\n%s", error)  # noqa: TRY400 - no traceback: it is the user's file
            await self._stop_parts()
            ctx.master.shutdown()
            # mitmproxy's own way to end with a failure while it starts (addons/errorcheck.py); from
            # the loop, as out of a task it would come with a traceback.
            asyncio.get_running_loop().call_soon(sys.exit, 1)

    async def _start(self) -> None:
        self._stock_modes = _stock_modes()
        source = FileSource(
            _config_files(),
            SYSTEM_CLOCK,
            service=ctx.options.hms_service or None,
            extra=self._reverse_listeners(),
        )
        snapshot = source.load()
        events = make_flow_events()
        rng = Random()  # noqa: S311 - load balancing, not cryptography
        plugins = build_plugins(
            parse_admin(ctx.options.hms_admin), rng, _split(ctx.options.hms_disable)
        )
        for addons in plugins.collect("hms_mitmproxy_addons"):
            ctx.master.addons.add(*addons)
        _refuse_unknown_options()
        sidecar = self._sidecar = Sidecar(
            plugins,
            rng=rng,
            events=events,
            elsewhere=frozenset(port for port, _ in self._stock_ports()),
            mode=_mode_of,
            on_drained=ctx.master.shutdown,
        )
        self._native = NativeLane(
            ctx.master.addons,
            lambda: sidecar.bindings,
            lambda: sidecar.chain,
            sidecar.upstream,
            SYSTEM_CLOCK,
            lambda: _why_not(sidecar),
        )
        self._forget_trailers = take_trailers()
        self._unfollow = follow_addons(ctx.master.addons, events, self._native)
        ctx.master.addons.add(self._native)
        MeshInstance.find = staticmethod(sidecar.port_of)
        await sidecar.start(snapshot)
        self._show_modes()
        await source.watch(self._changed, sidecar.refuse)

    async def _changed(self, snapshot: Snapshot) -> None:
        """A new version of the files: apply it, or say why not and go on with the old one."""
        if self._sidecar is not None:
            await self._sidecar.apply(snapshot)
            self._show_modes()

    def _modes(self) -> list[str]:
        """mitmproxy's list of modes as it should be: the stock ones asked for, the open listeners."""
        sidecar = self._sidecar
        if sidecar is None or sidecar.snapshot is None:
            return self._stock_modes
        opened = filter(lambda listener: sidecar.port_of(listener.name), sidecar.snapshot.listeners)
        return [*self._stock_modes, *(_mode_of(listener).full_spec for listener in opened)]

    def _show_modes(self) -> None:
        ctx.options.update(
            mode=self._modes(),
            connection_strategy="lazy",  # the native lane answers; nothing is to be connected to
            keep_host_header=True,  # else `reverse:` hides which service was asked for
        )

    def _stock_ports(self) -> list[tuple[int, ProxyMode]]:
        modes = [ProxyMode.parse(spec) for spec in self._stock_modes]
        return [(mode.listen_port(ctx.options.listen_port) or 0, mode) for mode in modes]

    def _reverse_listeners(self) -> dict[str, Any]:
        """Listeners for `--mode reverse:`: its target is the app behind an inbound listener.

        Used where the configuration has no listener of its own on that port.
        """
        listeners = [
            {
                "name": f"reverse-{port}",
                "port": port,
                "direction": "inbound",
                "app": f"{mode.scheme}://{mode.address[0]}:{mode.address[1]}",
            }
            for port, mode in self._stock_ports()
            if isinstance(mode, ReverseMode)
        ]
        return {"listeners": listeners} if listeners else {}

    async def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
        await self._stop_parts(DRAIN_GRACE)

    async def _stop_parts(self, grace: float = 0.0) -> None:
        self._unfollow()
        self._forget_trailers()
        MeshInstance.find = staticmethod(lambda _name: None)
        if self._native is not None and self._native in ctx.master.addons:
            ctx.master.addons.remove(self._native)
        self._native = None
        if self._sidecar is not None:
            await self._sidecar.stop(grace)
            self._sidecar = None


def _why_not(sidecar: Sidecar) -> Failure | None:
    """Why the native lane takes no requests; mitmproxy opens its ports before the mesh is ready."""
    if sidecar.ready:
        return None
    if sidecar.draining:
        return Failure.of(Fault.DRAINING, "this sidecar is leaving; use another", close=True)
    return Failure.of(
        Fault.NO_HEALTHY_UPSTREAM, "this sidecar is starting; try again", retry_after=1.0
    )


def _stock_modes() -> list[str]:
    return [spec for spec in ctx.options.mode if not isinstance(ProxyMode.parse(spec), MeshMode)]


def _forgo_default_mode() -> None:
    """Keep mitmproxy from opening its default, an open proxy on port 8080 of every address.

    Nobody has asked for it, and the app may want that port. Scripts are loaded while mitmproxy
    begins to open it (`Master.run`), so that is called off.
    """
    for task in asyncio.all_tasks():
        if task.get_name().startswith("setup_servers"):
            task.cancel()
            ctx.master.addons.get("proxyserver").servers._instances.clear()  # noqa: SLF001 - see above
    ctx.options.update(mode=[])


def _refuse_unknown_options() -> None:
    """A misspelt `--set hms_…`, of which mitmproxy says nothing."""
    for name in ctx.options.deferred:
        if name.startswith("hms_"):
            known = [option for option in ctx.options.keys() if option.startswith("hms_")]  # noqa: SIM118 - no dict
            message = f"there is no option {name}; the mesh's are {', '.join(sorted(known))}"
            raise MeshError(message)


def _mode_of(listener: Listener) -> ProxyMode:
    return ProxyMode.parse(f"mesh:{listener.name}@{listener.host}:{listener.port}")


def _config_files() -> list[Path]:
    """The files of `hms_config`; bare, `configs/routes.yaml` here or in the project's folder."""
    names = _split(ctx.options.hms_config)
    if names:
        return [Path(name).expanduser() for name in names]
    here = Path(DEFAULT_CONFIG)
    return [here if here.exists() else _HERE.parent / DEFAULT_CONFIG]


def _split(value: str) -> list[str]:
    return [part.strip() for part in value.split(",") if part.strip()]


addons = [Mesh()]
