"""`hms sidecar`: one sidecar as a process of its own, with the addons it needs and no more.

It follows its files, answers signals, and may run the app it stands beside: the app is started once
the sidecar is ready, and the process ends with the app's status. It inherits the environment, but for
the mesh's tokens.

SIGTERM and SIGINT drain: readiness goes off, no connection is accepted any more, what is in flight
is finished (at most 30 s, and the app is needed for that), then the signal is passed on to the app.
A second one is passed on at once. SIGHUP, SIGUSR1 and SIGUSR2 go straight to the app.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
import os
import re
import signal
import sys
from random import Random
from typing import TYPE_CHECKING, Any

from hms_addons.bootstrap import build_plugins
from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.source import FileSource
from hms_addons.engine.flow_events import FlowEvents
from hms_addons.errors import MeshError, NotAllowedError
from hms_addons.event_loop import loop_factory
from hms_addons.listening import shown_address
from hms_addons.sidecar import Sidecar
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence
    from pathlib import Path

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.joining import ControlOptions, Joining
    from hms_addons.plugins import PluginManager
    from hms_addons.window.hosted import HostedWindow

logger = logging.getLogger(__name__)

APP_GRACE = 30.0
"""Seconds the app is given after its signal, before it is killed."""

NOT_STARTED = 1
"""Exit code of a sidecar that could not start."""

_SECRET = re.compile(r"HMS_([A-Z0-9_]*_)?TOKEN(_FILE)?")

_PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


class SidecarProcess:
    """Runs a `Sidecar` from files until it is told to stop.

    Args:
        files: configuration files, merged in order.
        service: the service it stands beside, over what the files say.
        zone: where it is, over what the configuration says.
        control: the control plane, if there is one; `files` then go over what it says.
        admin: address of the admin port, None for none.
        disabled: installed plugins to leave out.
        command: the app to run, or empty.
        window: a mitmweb may be opened in it, by whoever reaches the admin port.
    """

    def __init__(  # noqa: PLR0913 - each is an option of the command
        self,
        files: Sequence[Path],
        *,
        service: str | None = None,
        zone: str = "",
        control: ControlOptions | None = None,
        admin: tuple[str, int] | None = None,
        disabled: Sequence[str] = (),
        command: Sequence[str] = (),
        window: bool = False,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._source = FileSource(files, clock, service=service)
        self._files = files
        self._control = control
        self._zone = zone
        self._clock = clock
        self._rng = Random()  # noqa: S311 - load balancing, not cryptography
        self._admin = admin
        self._disabled = disabled
        self._command = tuple(command)
        self._window = window
        self._stopping = asyncio.Event()
        self._tasks = TaskSet("process")
        self._app: asyncio.subprocess.Process | None = None
        self._sidecar: Sidecar | None = None

    async def run(self) -> int:
        """Serve until stopped. Returns the exit code: the app's, else 0."""
        if self._control is None:
            return await self._run_from(self._source.load(), None)
        # Here, so that a sidecar of files need not load what talks to a control plane.
        from hms_addons.joining import Joining  # noqa: PLC0415 - see above

        joining = Joining(self._control, self._clock, self._rng, files=self._files)
        try:
            return await self._run_from(None, joining)
        finally:
            await joining.close()

    async def _run_from(self, snapshot: Snapshot | None, joining: Joining | None) -> int:
        """Serve by files' `snapshot`, or by the control plane."""
        sync = joining.plugin if joining is not None else None
        plugins = build_plugins(self._admin, self._rng, self._disabled, sync)
        events = _flow_events(plugins)
        sidecar = self._sidecar = Sidecar(
            plugins,
            rng=self._rng,
            events=events,
            on_drained=self._stopping.set,
            provided=joining.holder if joining is not None else None,
        )
        sidecar.upstream.told_zone = self._zone
        sidecar.window = _LateWindow(sidecar, allowed=self._window)
        try:
            if joining is not None:
                self._handle_signals()
                if not await self._joined(joining, sidecar):
                    return 0
            elif snapshot is not None:
                await sidecar.start(snapshot)
                self._tasks.start(self._watch(sidecar), "config watcher")
                self._handle_signals()
            _settle_memory()
            for name, lane in sidecar.lanes.items():
                port = sidecar.port_of(name)
                if port is not None and port.address is not None:
                    logger.info("ready: %s on %s", name, shown_address(*port.address))
                logger.debug("%r", lane)
            return await self._serve()
        finally:
            await self._tasks.close()
            await sidecar.close_window()
            await sidecar.stop()

    async def _joined(self, joining: Joining, sidecar: Sidecar) -> bool:
        """Start by the control plane, however long it takes; False if told to stop meanwhile."""
        stopping = self._tasks.start(self._stopping.wait(), "stop early")
        starting = self._tasks.start(_started(joining, sidecar), "start")
        await asyncio.wait({stopping, starting}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        if not starting.done():
            logger.info("told to stop before the start")
            starting.cancel()
            await asyncio.wait({starting})
            return False
        if (error := await starting) is not None:
            raise error
        return True

    async def _watch(self, sidecar: Sidecar) -> None:
        await self._source.watch(self._changed, sidecar.refuse)

    async def _changed(self, snapshot: Snapshot) -> None:
        if self._sidecar is not None:
            await self._sidecar.apply(snapshot)

    async def _serve(self) -> int:
        stopping = self._tasks.start(self._stopping.wait(), "stop")
        if not self._command:
            await stopping
            return 0
        try:
            # A session of its own: Ctrl-C reaches it by way of the drain. (uvloop takes no
            # `process_group`.)
            self._app = await asyncio.create_subprocess_exec(
                *self._command, start_new_session=True, env=app_environment(os.environ)
            )
        except OSError as error:
            message = f"cannot run {self._command[0]!r}: {error.strerror or error}"
            raise MeshError(message) from error
        exited = self._tasks.start(self._app.wait(), "app")
        await asyncio.wait({stopping, exited}, return_when=asyncio.FIRST_COMPLETED)
        if not exited.done():
            self._signal_app(signal.SIGTERM)
            await asyncio.wait({exited}, timeout=APP_GRACE)
            if not exited.done():
                logger.warning("the app did not end within %g s of SIGTERM: killing it", APP_GRACE)
                self._signal_app(signal.SIGKILL)
        elif self._sidecar is not None and not self._stopping.is_set():
            logger.info("the app has ended with %s", self._app.returncode)
            self._sidecar.drain()
            await stopping
        status: int = await exited
        # As a shell reports it: 128 + the signal that ended it.
        return status if status >= 0 else 128 - status

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        for number in _PASSED_ON:
            loop.add_signal_handler(number, self._signal_app, number)

    def _stop(self, number: signal.Signals) -> None:
        if self._sidecar is None or self._sidecar.draining or not self._sidecar.serving:
            self._signal_app(number)
            self._stopping.set()
            return
        logger.info("%s: draining", number.name)
        self._sidecar.drain()

    def _signal_app(self, number: signal.Signals) -> None:
        if self._app is not None and self._app.returncode is None:
            self._app.send_signal(number)


class _LateWindow:
    """The window, whose mitmweb is imported when somebody wants it: most sidecars never do.

    Args:
        sidecar: in whose process it is.
        allowed: who has it reads whole requests, changes them, and writes files as this process's user.
    """

    def __init__(self, sidecar: Sidecar, *, allowed: bool) -> None:
        self._sidecar = sidecar
        self._allowed = allowed
        self._window: HostedWindow | None = None
        self._turn = asyncio.Lock()

    async def open(self) -> str:
        """See `hookspecs.WindowHost`."""
        if not self._allowed:
            message = (
                "this sidecar has no window, as whoever reaches its admin port could read and change "
                "whole requests: start it with `hms sidecar --window` (HMS_WINDOW=1), as `hms up` does"
            )
            raise NotAllowedError(message)
        async with self._turn:
            if self._window is None:
                # In a thread: it takes a second or two, and requests do not wait.
                hosted = await asyncio.to_thread(
                    importlib.import_module, "hms_addons.window.hosted"
                )
                self._window = hosted.HostedWindow(self._sidecar)
            window: HostedWindow = self._window
            return await window.open()

    async def close(self) -> bool:
        """See `hookspecs.WindowHost`."""
        async with self._turn:
            return self._window is not None and await self._window.close()


def app_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What the app may know: all but `HMS_TOKEN`, `HMS_ADMIN_TOKEN`, `HMS_TOKEN_FILE` and their like.

    They let their bearer into the mesh, or change it; an app needs neither, and many an error page
    shows the environment.
    """
    return {name: value for name, value in environment.items() if not _SECRET.fullmatch(name)}


async def _started(joining: Joining, sidecar: Sidecar) -> MeshError | None:
    """Start it; what is wrong is told by whoever waits, not by the task."""
    try:
        await joining.start(sidecar)
    except MeshError as error:
        return error
    return None


def _flow_events(plugins: PluginManager) -> FlowEvents:
    """The listeners of plugins' own mitmproxy addons; mitmproxy's master only if there are any.

    Its import alone takes 33 MB.
    """
    addons = [addon for group in plugins.collect("hms_mitmproxy_addons") for addon in group]
    if not addons:
        return FlowEvents()
    from hms_addons.engine.mode import host_addons  # noqa: PLC0415 - see above

    return host_addons(addons)


def _settle_memory() -> None:
    """What the start has made stays: take it out of the collector's sight, and collect seldom.

    An exchange makes no reference cycles, so there is little for the collector to find; left at its
    defaults it costs several percent of the requests.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)


def run(main: Callable[[], Coroutine[Any, Any, int]], *, loop: str) -> int:
    """Run `main` on the event loop named `loop`: `uvloop` (where it is installed) or `asyncio`."""
    with asyncio.Runner(loop_factory=loop_factory(loop)) as runner:
        try:
            return runner.run(main())
        except MeshError as error:
            sys.stderr.write(f"hms: {error}\n")
            return NOT_STARTED
