"""The mesh inside mitmproxy: `mitmdump -s hms_addons/mesh.py`, and mitmweb and mitmproxy likewise.

One addon. It reads the configuration that `hms_config` names (bare: `configs/routes.yaml`), puts its
listeners into mitmproxy's modes, and serves them by the fast lane; stock modes such as `reverse:`
are served by the native lane, with the same chain. Options, each by `--set`:

    hms_config=routes.yaml,local.yaml   configuration files, merged in order
    hms_service=claims-svc              the service this sidecar stands beside
    hms_admin=127.0.0.1:15000           the admin port; `off` for none
    hms_disable=stamp                   installed plugins to leave out, by name

With a control plane, as `hms sidecar --control …` (the files then go over what it says):

    hms_control=https://127.0.0.1:15010 its address, or several with commas
    hms_ca_pin=sha256:…                 fingerprint of its CA, for the first contact
    hms_token_file=token                a join token, for the first contact; or hms_token
    hms_state=folder                    what the sidecar keeps; default .hms/<service>
    hms_app hms_inbound hms_outbound    addresses of the standard listeners, or `off`
    hms_advertise hms_version hms_weight hms_priority  what the registry is told of this instance
    hms_zone=a                          where it is; with or without a control plane

What mitmweb and mitmproxy keep and show; these may be changed while they run:

    hms_flow_ring=2000                  flows that are kept; 0 for all
    hms_flow_body_limit=64KiB           what is kept of each body once its flow is over; 0 for all
    hms_flow_bytes=32MiB                what is kept of all bodies together; 0 for all
    hms_redact=true                     hide secrets in what is shown and saved; what is sent has them
    hms_redact_names=x-pin,pin          headers and query parameters that are secrets, too
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
from mitmproxy.exceptions import OptionsError  # noqa: E402
from mitmproxy.proxy.mode_specs import ProxyMode, ReverseMode  # noqa: E402

from hms_addons.bootstrap import build_plugins, parse_admin  # noqa: E402
from hms_addons.clock import SYSTEM_CLOCK  # noqa: E402
from hms_addons.config.source import FileSource  # noqa: E402
from hms_addons.config.standard_listeners import StandardListeners  # noqa: E402
from hms_addons.control_client.presence import Traits  # noqa: E402
from hms_addons.engine.mode import (  # noqa: E402
    MeshInstance,
    MeshMode,
    follow_addons,
    make_flow_events,
)
from hms_addons.engine.native_dns import NativeDns  # noqa: E402
from hms_addons.engine.native_lane import NativeLane  # noqa: E402
from hms_addons.engine.native_trailers import take_trailers  # noqa: E402
from hms_addons.errors import Failure, Fault, MeshError  # noqa: E402
from hms_addons.sidecar import DRAIN_GRACE, Sidecar  # noqa: E402
from hms_addons.tasks import TaskSet  # noqa: E402
from hms_addons.window import window  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.addonmanager import Loader

    from hms_addons.config.snapshot import Listener, Snapshot
    from hms_addons.joining import Joining

logger = logging.getLogger("hms_addons.mesh")

_CONTROL_OPTIONS = {
    "hms_control": "Address of the mesh's control plane, comma-separated if there are several.",
    "hms_ca_pin": "Fingerprint of the control plane's CA, sha256:…, for the first contact.",
    "hms_token": "A join token, for the first contact; better hms_token_file.",
    "hms_token_file": "A file that holds the join token.",
    "hms_state": "Folder for the certificate and the last good configuration.",
    "hms_app": "The app's address, or 'off'.",
    "hms_inbound": "Where peers call, as host:port, or 'off'.",
    "hms_outbound": "Where the app calls, as host:port, or 'off'.",
    "hms_advertise": "Where peers reach this sidecar, if it cannot be found out.",
    "hms_version": "The app's version, as v2.",
    "hms_weight": "This instance's share, relative to the others'.",
    "hms_priority": "0: this instance is used first; 1: when too few of those are left; and so on.",
    "hms_zone": "Where this sidecar is: endpoints of the same zone come first.",
}

MAX_WEIGHT = 1_000_000
MAX_PRIORITY = 100

DEFAULT_CONFIG = "configs/routes.yaml"

_WEB_COLUMNS = ["tls", "icon", "path", "method", "status", "size", "time", "comment"]
"""mitmweb's own columns, and the one that tells what the mesh did."""


class Mesh:
    """The mitmproxy addon that runs a sidecar. Its own flow events come by `NativeLane`."""

    name = "hms-mesh"

    def __init__(self) -> None:
        self._sidecar: Sidecar | None = None
        self._native: NativeLane | None = None
        self._joining: Joining | None = None
        self._window: window.Window | None = None
        self._tasks = TaskSet("mesh")
        self._task: asyncio.Task[None] | None = None
        self._unfollow: Callable[[], None] = lambda: None
        self._forget_trailers: Callable[[], None] = lambda: None
        self._stock_modes: list[str] = []
        # An event of this addon's own: scripts hear of a query before mitmproxy's resolver does, and
        # addons that are added later do not.
        self.dns_request = NativeDns(self._snapshot).dns_request

    def load(self, loader: Loader) -> None:
        """mitmproxy event: declare the options."""
        loader.add_option("hms_config", str, "", "Mesh configuration files, comma-separated.")
        loader.add_option("hms_service", str, "", "The service this sidecar stands beside.")
        loader.add_option(
            "hms_admin", str, "127.0.0.1:15000", "Address of the mesh's admin port, or 'off'."
        )
        loader.add_option("hms_disable", str, "", "Mesh plugins to leave out, comma-separated.")
        for name, about in _CONTROL_OPTIONS.items():
            loader.add_option(name, str, "", about)
        window.add_options(loader)
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
        if self._window is not None and not window.LIVE.isdisjoint(changed):
            try:
                self._window.changed()
            except MeshError as error:
                raise OptionsError(str(error)) from None
        changed = [name for name in changed if name not in window.LIVE]
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
        _refuse_unknown_options()
        rng = Random()  # noqa: S311 - load balancing, not cryptography
        source, snapshot = None, None
        joining = self._joining = _make_joining(rng, self._reverse_listeners())
        if joining is None:
            source = FileSource(
                _config_files(),
                SYSTEM_CLOCK,
                service=ctx.options.hms_service or None,
                extra=self._reverse_listeners(),
            )
            snapshot = source.load()
        events = make_flow_events()
        plugins = build_plugins(
            parse_admin(ctx.options.hms_admin),
            rng,
            _split(ctx.options.hms_disable),
            joining.plugin if joining is not None else None,
        )
        plugins.get("dns_names").elsewhere = frozenset(port for port, _ in self._stock_ports())
        for addons in plugins.collect("hms_mitmproxy_addons"):
            ctx.master.addons.add(*addons)
        sidecar = self._sidecar = Sidecar(
            plugins,
            rng=rng,
            events=events,
            elsewhere=frozenset(port for port, _ in self._stock_ports()),
            mode=_mode_of,
            on_drained=ctx.master.shutdown,
            provided=joining.holder if joining is not None else None,
        )
        sidecar.upstream.told_zone = ctx.options.hms_zone
        self._native = NativeLane(
            ctx.master.addons,
            lambda: sidecar.bindings,
            sidecar.upstream,
            SYSTEM_CLOCK,
            lambda: _why_not(sidecar),
        )
        self._window = window.Window(sidecar)
        self._window.open(ctx.master)
        self._forget_trailers = take_trailers()
        self._unfollow = follow_addons(ctx.master.addons, events, self._native)
        ctx.master.addons.add(self._native)
        MeshInstance.find = staticmethod(sidecar.port_of)
        if joining is not None:
            await joining.start(sidecar)
        elif snapshot is not None:
            await sidecar.start(snapshot)
        self._show_modes()
        sidecar.on_applied = self._applied
        if source is not None:
            await source.watch(self._changed, sidecar.refuse)

    async def _changed(self, snapshot: Snapshot) -> None:
        """A new version of the files: apply it, or say why not and go on with the old one."""
        if self._sidecar is not None:
            await self._sidecar.apply(snapshot)

    def _snapshot(self) -> Snapshot | None:
        return None if self._sidecar is None else self._sidecar.snapshot

    def _applied(self) -> None:
        self._show_modes()
        if self._window is not None:
            self._window.applied()

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
        if self._window is not None:
            self._window.close()
            self._window = None
        if self._sidecar is not None:
            await self._sidecar.stop(grace)
            self._sidecar = None
        if self._joining is not None:
            await self._joining.close()
            self._joining = None


def _make_joining(rng: Random, extra: dict[str, Any]) -> Joining | None:
    """What ties the sidecar to a control plane, if `hms_control` names one.

    Raises:
        MeshError: an option is wrong.
    """
    options = ctx.options
    if not options.hms_control:
        return None
    from hms_addons.joining import ControlOptions, Joining  # noqa: PLC0415 - see SidecarProcess

    traits = Traits(
        options.hms_version,
        _number("hms_weight", 1, MAX_WEIGHT, 1),
        options.hms_zone,
        priority=_number("hms_priority", 0, MAX_PRIORITY, 0),
    )
    control = ControlOptions(
        urls=_split(options.hms_control),
        service=options.hms_service,
        token=options.hms_token or None,
        token_file=Path(options.hms_token_file).expanduser() if options.hms_token_file else None,
        ca_pin=options.hms_ca_pin,
        state=Path(options.hms_state).expanduser() if options.hms_state else None,
        listeners=StandardListeners(
            options.hms_app or None, options.hms_inbound or None, options.hms_outbound or None
        ),
        advertise=options.hms_advertise or None,
        traits=traits,
    )
    files = [Path(name).expanduser() for name in _split(options.hms_config)]
    return Joining(control, SYSTEM_CLOCK, rng, files=files, extra=extra or None)


def _number(name: str, least: int, most: int, default: int) -> int:
    """The value of an option that is a whole number.

    Raises:
        MeshError: it is none, or out of bounds.
    """
    value = getattr(ctx.options, name) or str(default)
    if not value.isascii() or not value.isdigit() or not least <= int(value) <= most:
        message = f"{name}={value}: give a whole number, {least} to {most}"
        raise MeshError(message)
    return int(value)


def _why_not(sidecar: Sidecar) -> Failure | None:
    """Why the native lane takes no requests; mitmproxy opens its ports before the mesh is ready."""
    if sidecar.serving:
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
