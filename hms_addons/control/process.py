"""`hms control`: the control plane as a process.

The settings are checked first, then the port is taken, then the store is opened, then the CA is read or made: whoever cannot serve
changes nothing. SIGTERM and SIGINT end it: long polls are answered at once, what is in flight is
finished, and the exit code is 0. A second one ends it the hard way.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import sys
from random import Random
from typing import TYPE_CHECKING, Final

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.control.app import build_app
from hms_addons.control.assembly import assembled
from hms_addons.control.server import ControlServer
from hms_addons.control.store.protocol import StoreError
from hms_addons.identity.rotator import refresh_delay
from hms_addons.listening import listen
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    import socket

    from hms_addons.clock import Clock
    from hms_addons.control.assembly import Settings
    from hms_addons.control.plane import ControlPlane

logger = logging.getLogger(__name__)

NOT_SERVING: Final = 1
"""Exit code of a control plane whose server ended by itself."""
FORGET_INTERVAL: Final = 3600.0
"""Seconds between looks for join tokens that need not be remembered any more."""


class ControlProcess:
    """Serves until it is told to stop.

    Args:
        settings: how.
        clock: time, injected.
    """

    def __init__(self, settings: Settings, clock: Clock = SYSTEM_CLOCK) -> None:
        self._settings = settings
        self._clock = clock
        self._stopping = asyncio.Event()
        self._tasks = TaskSet("control plane")
        self._renew = asyncio.Event()
        self._server: ControlServer | None = None

    def __repr__(self) -> str:
        return f"<ControlProcess {self._settings.host}:{self._settings.port}>"

    async def run(self) -> int:
        """Serve. Returns the exit code.

        Raises:
            MeshError: it cannot; the message says why and what to do.
        """
        settings = self._settings
        settings.check()
        with contextlib.closing(listen("control plane", settings.host, settings.port)) as listening:
            async with assembled(settings, self._clock, self._stopping) as plane:
                token = await self._admin_token(plane)
                server = self._server = ControlServer(build_app(plane), self._clock)
                plane.metrics.observe(
                    "hms_control_connections",
                    "Open connections.",
                    lambda: server.open_connections,
                )
                try:
                    return await self._serve(plane, server, listening, token)
                finally:
                    await self._tasks.close()

    async def _admin_token(self, plane: ControlPlane) -> str | None:
        token = await plane.admins.load()
        if token is None and self._settings.reset_admin_token:
            token = await plane.admins.reset()
        return token

    async def _serve(
        self,
        plane: ControlPlane,
        server: ControlServer,
        listening: socket.socket,
        token: str | None,
    ) -> int:
        unsubscribe = plane.authority.subscribe(self._renew.set)
        self._present(plane, server)
        serving = self._tasks.start(server.run_on(listening), "server")
        self._tasks.start(self._keep_certificate(plane, server), "own certificate")
        self._tasks.start(plane.authority.run(), "CA")
        self._tasks.start(self._forget_tokens(plane), "old tokens")
        self._handle_signals()
        ready = self._tasks.start(server.ready.wait(), "ready")
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if server.ready.is_set():
            self._announce(plane, listening.getsockname()[1], token)
            if token is not None:
                await self._mark_shown(plane)
        await asyncio.wait({serving})
        unsubscribe()
        return 0 if self._stopping.is_set() else NOT_SERVING

    # -- its certificate ------------------------------------------------------------------------

    def _present(self, plane: ControlPlane, server: ControlServer) -> float:
        """Put a fresh certificate to use; seconds until the next one is due."""
        svid = plane.authority.issue_control(self._settings.all_names)
        server.use(svid, plane.authority.bundle)
        return refresh_delay(svid, self._clock.wall(), Random(0))  # noqa: S311 - one process, no herd

    async def _keep_certificate(self, plane: ControlPlane, server: ControlServer) -> None:
        delay = 60.0
        while True:
            timer = self._clock.call_later(delay, self._renew.set)
            try:
                await self._renew.wait()
            finally:
                timer.cancel()
            self._renew.clear()
            try:
                delay = self._present(plane, server)
            except Exception:
                logger.exception("the control plane's own certificate could not be renewed")
                delay = 30.0

    async def _forget_tokens(self, plane: ControlPlane) -> None:
        while True:
            try:
                await plane.tokens.forget_old()
            except Exception:
                logger.exception("old join tokens could not be forgotten")
            await self._clock.sleep(FORGET_INTERVAL)

    # -- its end --------------------------------------------------------------------------------

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)

    def _stop(self, number: signal.Signals) -> None:
        assert self._server is not None  # noqa: S101 - handled from then on
        if self._stopping.is_set():
            self._server.force_exit = True
            return
        logger.info("%s: stopping", number.name)
        self._server.stop()
        self._stopping.set()

    # -- what is said ---------------------------------------------------------------------------

    async def _mark_shown(self, plane: ControlPlane) -> None:
        try:
            await plane.admins.mark_shown()
        except StoreError as error:
            logger.error(  # noqa: TRY400 - says all
                "the store does not know that the admin token was shown, so the next start will "
                "void it and show another: %s",
                error,
            )

    def _announce(self, plane: ControlPlane, port: int, token: str | None) -> None:
        """The lines that an operator copies into a shell; the token this once."""
        host = self._settings.host
        if self._settings.listens_everywhere:
            host = self._settings.names[0] if self._settings.names else "localhost"
        shown = f"[{host}]" if ":" in host else host
        lines = [
            f"# control plane of {plane.authority.trust_domain}, ready; data in {self._settings.data}",
            f"export HMS_CONTROL=https://{shown}:{port}",
            f"export HMS_CA_PIN={plane.authority.pin}",
        ]
        if token is not None:
            lines.append(f"export HMS_ADMIN_TOKEN={token}    # shown this once")
        else:
            lines.append("# the admin token was shown at the first start (--reset-admin-token)")
        sys.stdout.write("\n".join(lines) + "\n")
        sys.stdout.flush()
