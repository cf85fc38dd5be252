"""A mitmweb inside a slim sidecar that runs: `hms open`, and `POST /window` on the admin port.

Nothing is started anew: mitmweb's page, its addons and the window's parts are put beside the listeners
that serve already, and watch from the next request on. No connection is touched, when it opens or closes; a
request that somebody holds goes on when it closes. What mitmweb needs is imported then, which costs some
50 MB and a second or two of this process, once.

Whoever has the page may read and change requests, but does not run code here: mitmproxy's script loader and
its browser starter are left out, and modes and addresses are the configuration's, so the page cannot change
them. Files it can write, as this process's user, which nobody else can read: they hold whole bodies.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Any, Final

import tornado.httpserver
import tornado.netutil
from mitmproxy import addons as stock
from mitmproxy.addons import browser, dns_resolver, onboarding, proxyauth, script, tlsconfig
from mitmproxy.exceptions import OptionsError
from mitmproxy.master import Master
from mitmproxy.options import Options
from mitmproxy.proxy.mode_specs import ProxyMode
from mitmproxy.tools.web import app
from mitmproxy.tools.web.master import WebMaster

from hms_addons.engine.flow_events import resume_all
from hms_addons.engine.mode import MeshInstance, follow_addons
from hms_addons.engine.native_lane import NativeLane
from hms_addons.errors import MeshError
from hms_addons.window import window

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from hms_addons.config.snapshot import Listener
    from hms_addons.sidecar import Sidecar

logger = logging.getLogger(__name__)

HOST: Final = "127.0.0.1"
COLUMNS: Final = ["tls", "icon", "path", "method", "status", "size", "time", "comment"]
"""mitmweb's own columns, and the one that tells what the mesh did."""
_LEFT_OUT: Final = (
    tlsconfig.TlsConfig,  # makes a CA of its own, which takes a while; the mesh has its certificates
    onboarding.Onboarding,
    proxyauth.ProxyAuth,
    dns_resolver.DnsResolver,
    script.ScriptLoader,  # it runs code
    browser.Browser,  # it starts programs
)
"""mitmproxy's addons that are for its own proxy, or do more than show and change flows."""
_FIXED: Final = ("mode", "server", "listen_host", "listen_port")
"""mitmproxy's options that would open ports: here the configuration does that."""


class _WebMaster(WebMaster):
    """mitmweb without its proxy, whose web server ends with it."""

    def __init__(self, options: Options) -> None:
        all_of_them: Callable[[], list[Any]] = stock.default_addons
        stock.default_addons = lambda: [  # mitmproxy has no other way to leave some out
            addon for addon in all_of_them() if not isinstance(addon, _LEFT_OUT)
        ]
        try:
            super().__init__(options, with_termlog=False)
        finally:
            stock.default_addons = all_of_them
        logging.getLogger("tornado.access").setLevel(logging.WARNING)
        check: Any = self.addons.get("errorcheck")
        check.finish()  # it ends the process when an error is logged while mitmproxy starts
        self.addons.remove(check)
        self.server: Any = None
        self.sockets: list[socket.socket] = []

    def listen(self) -> None:
        """Take a free port, and accept nothing yet.

        Raises:
            MeshError: there is none.
        """
        try:
            self.sockets = tornado.netutil.bind_sockets(0, HOST)
        except OSError as error:
            message = f"there is no port for the window: {error.strerror or error}"
            raise MeshError(message) from error
        self.options.update(web_port=self.sockets[0].getsockname()[1])

    async def running(self) -> None:
        self.server = tornado.httpserver.HTTPServer(self.app)
        self.server.add_sockets(self.sockets)
        await Master.running(self)

    async def done(self) -> None:
        if self.server is not None:
            self.server.stop()
        for bound in self.sockets:
            bound.close()
        for connection in tuple(app.ClientConnection.connections):
            connection.close()
        if self.server is not None:
            await self.server.close_all_connections()
        await Master.done(self)


class _Settings:
    """The addon that declares the window's options, and tells of their changes."""

    name = "hms-window-options"

    def __init__(self, options: Options) -> None:
        self.changed: Callable[[], None] = lambda: None
        self._options = options
        self._fixed = {name: getattr(options, name) for name in _FIXED}

    def load(self, loader: Any) -> None:
        """mitmproxy event: declare the options."""
        window.add_options(loader)

    def configure(self, updated: set[str]) -> None:
        """mitmproxy event: options have changed."""
        for name in updated.intersection(_FIXED):
            if getattr(self._options, name) != self._fixed[name]:
                message = (
                    f"{name}: the mesh's configuration says where this sidecar listens; change that"
                )
                raise OptionsError(message)
        if not window.LIVE.isdisjoint(updated):
            try:
                self.changed()
            except MeshError as error:
                raise OptionsError(str(error)) from None

    def show(self, modes: list[str]) -> None:
        """Have the page show `modes`, and no others."""
        self._fixed["mode"] = modes
        self._options.update(mode=modes)


class HostedWindow:
    """One sidecar's, opened and closed as often as wanted; the one waits for the other.

    Args:
        sidecar: in whose process it is.
    """

    def __init__(self, sidecar: Sidecar) -> None:
        self._sidecar = sidecar
        self._master: _WebMaster | None = None
        self._settings: _Settings | None = None
        self._native: NativeLane | None = None
        self._window = window.Window(sidecar)
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._unfollow: Callable[[], None] = lambda: None
        self._umask: int | None = None
        self._turn = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<HostedWindow {'open' if self._master else 'closed'}>"

    @property
    def url(self) -> str | None:
        """Where it is, with the token that lets a browser in; None while it is closed."""
        return None if self._master is None else self._master.web_url

    async def open(self) -> str:
        """Open it, unless it is. Returns its address.

        Raises:
            MeshError: there are mitmproxy addons here already, by a plugin; or there is no port.
        """
        async with self._turn:
            return await self._opened()

    async def _opened(self) -> str:
        if self._master is not None:
            return self._master.web_url
        sidecar = self._sidecar
        if sidecar.events.host is not None:
            message = (
                "a plugin of this sidecar has mitmproxy addons of its own: run it as "
                "`mitmweb -s hms_addons/mesh.py` to have a window"
            )
            raise MeshError(message)
        try:
            return await self._open()
        except BaseException:
            await self._close()
            raise

    async def _open(self) -> str:
        sidecar = self._sidecar
        self._folder = tempfile.TemporaryDirectory(prefix="hms-window-")
        options = Options(confdir=self._folder.name, mode=[])
        master = self._master = _WebMaster(options)
        self._umask = os.umask(0o077)  # of the process: mitmproxy opens its files in many places
        settings = self._settings = _Settings(options)
        master.addons.add(settings)
        # Asked first: what it refuses, no other has done.
        master.addons.chain.remove(settings)
        master.addons.chain.insert(0, settings)
        options.update(
            web_open_browser=False,
            web_columns=COLUMNS,
            connection_strategy="lazy",
            keep_host_header=True,
        )
        master.listen()
        self._window.open(master)
        settings.changed = self._window.changed
        self._native = NativeLane(
            master.addons, lambda: sidecar.bindings, sidecar.upstream, sidecar.clock
        )
        self._unfollow = follow_addons(master.addons, sidecar.events, self._native)
        master.addons.add(self._native)
        MeshInstance.find = staticmethod(sidecar.port_of)
        await master.running()
        self._show_modes()
        sidecar.on_applied = self._applied
        logger.warning("the window is open: mitmweb watches this sidecar")
        return master.web_url

    async def close(self) -> bool:
        """Close it; false if it was not open. What somebody holds goes on."""
        async with self._turn:
            return await self._close()

    async def _close(self) -> bool:
        master = self._master
        if master is None:
            return False
        self._master = None
        self._sidecar.on_applied = self._window.applied  # a share that was moved may still be there
        for flow in list(master.view._store.values()):  # noqa: SLF001 - all, shown or not
            if flow.intercepted:
                flow.resume()
        resume_all()  # also those that the view was cleared of
        self._unfollow()
        self._sidecar.events.forget()
        self._window.close()
        if self._native is not None:
            master.addons.remove(self._native)
        if self._settings is not None:
            self._settings.show([])
        MeshInstance.find = staticmethod(lambda _name: None)
        await master.done()
        if self._umask is not None:
            os.umask(self._umask)
            self._umask = None
        master.view.clear()
        self._native = self._settings = None
        if self._folder is not None:
            self._folder.cleanup()
            self._folder = None
        del master
        gc.collect()
        logger.warning("the window is closed")
        return True

    def _applied(self) -> None:
        self._show_modes()
        self._window.applied()

    def _show_modes(self) -> None:
        sidecar, settings = self._sidecar, self._settings
        if sidecar.snapshot is not None and settings is not None:
            opened = [one for one in sidecar.snapshot.listeners if sidecar.port_of(one.name)]
            settings.show([_mode_of(listener) for listener in opened])


def _mode_of(listener: Listener) -> str:
    return ProxyMode.parse(f"mesh:{listener.name}@{listener.host}:{listener.port}").full_spec
