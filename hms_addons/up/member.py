"""One instance of a running mesh: its ports, its command, how it is."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from hms_addons.up.control_plane import hms
from hms_addons.up.file_watch import FileWatch
from hms_addons.up.keeper import Keeper, State
from hms_addons.up.machine import accepts
from hms_addons.up.stats import Row, Sample, row

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hms_addons.up.admin_port import AdminPorts
    from hms_addons.up.control_plane import ControlPlane
    from hms_addons.up.machine import FreePorts
    from hms_addons.up.plan import Instance

MISSED: Final = 3
"""Looks in a row until what was ready is unhealthy: a busy machine is slow now and then."""
_SETTLED: Final = (State.READY, State.WAITING, State.STOPPED)


class Member:
    """An instance that runs, or is about to.

    Args:
        instance: what is asked for.
        ports: where those come from that nothing is asked of.
    """

    keeper: Keeper
    """Set by whoever keeps it running."""

    def __init__(self, instance: Instance, ports: FreePorts) -> None:
        self.instance = instance
        self.port = self.inbound = self.outbound = self.admin = 0
        self._choose(ports)
        self._samples: tuple[Sample | None, Sample | None] = (None, None)
        self.files = FileWatch(instance.folder, instance.watch)
        """What its app watches."""
        self._missed = 0
        """Looks in a row at which it was not well."""

    def __repr__(self) -> str:
        return f"<Member {self.instance.name} app={self.port} outbound={self.outbound}>"

    # -- ports ----------------------------------------------------------------------------------

    def _choose(self, ports: FreePorts) -> None:
        one = self.instance
        self.port = one.port or ports.take()
        if one.alone:
            return
        self.inbound, self.admin = ports.take(), ports.take()
        asked = one.outbound is not None and one.asked
        self.outbound = one.outbound if asked and one.outbound else ports.take(one.outbound)

    def _own(self) -> list[int]:
        """Those that it was free to choose."""
        one = self.instance
        own = [] if one.port is not None else [self.port]
        if one.alone:
            return own
        return [*own, self.inbound, self.admin, *([] if one.asked else [self.outbound])]

    def new_ports(self, ports: FreePorts) -> None:
        """Before each start: others in place of those that a stranger has taken meanwhile."""
        if any(accepts(port) for port in self._own()):
            self.give_back(ports)
            self._choose(ports)

    def give_back(self, ports: FreePorts) -> None:
        """They are free again."""
        ports.give_back(self._own())

    @property
    def url(self) -> str:
        """Where its app calls the mesh; empty if it has no sidecar."""
        return f"http://127.0.0.1:{self.outbound}" if self.outbound else ""

    @property
    def address(self) -> str:
        """Where its app listens, if it does."""
        return f"http://127.0.0.1:{self.port}" if self.instance.listens else ""

    # -- its start ------------------------------------------------------------------------------

    def command(self, plane: ControlPlane, folder: Path, log_level: str) -> list[str]:
        """What starts the sidecar, which starts the app; or the app, if it has none."""
        one = self.instance
        if one.alone:
            return one.words(self.port, self.url)
        words = ["--control", plane.url, "--ca-pin", plane.pin, "--service", one.service]
        words += ["--state", str(folder), "--app", f"http://127.0.0.1:{self.port}"]
        words += ["--inbound", f"127.0.0.1:{self.inbound}"]
        words += ["--outbound", f"127.0.0.1:{self.outbound}"]
        words += ["--admin", f"127.0.0.1:{self.admin}", "--window", "--weight", str(one.weight)]
        words += ["--version", one.version] if one.version else []
        words += ["--metadata", f"instance={one.name}", "--log-level", log_level]
        return hms("sidecar", *words, "--", *one.words(self.port, self.url))

    def environment(self, base: Mapping[str, str], token: str) -> dict[str, str]:
        """The variables of sidecar and app; the sidecar keeps the token from its app."""
        one = self.instance
        found = {**base, **one.variables(self.port, self.url)}
        found |= {"PORT": str(self.port), "HMS_INSTANCE": one.name}
        found |= {"HMS_URL": self.url} if self.url else {}
        return found | ({"HMS_TOKEN": token} if token else {})

    # -- how it is ------------------------------------------------------------------------------

    def go_on(self, instance: Instance) -> None:
        """What needs no restart is otherwise now."""
        watches = (instance.folder, instance.watch) != (self.instance.folder, self.instance.watch)
        self.instance = instance
        if watches:
            self.files = FileWatch(instance.folder, instance.watch)

    def forget(self) -> None:
        """It starts anew."""
        self._samples = (None, None)
        self.files = FileWatch(self.instance.folder, self.instance.watch)

    async def look(self, ports: AdminPorts) -> None:
        """See how it is, and say so if that has changed."""
        keeper = self.keeper
        process = keeper.child
        if process is None or keeper.state not in {State.STARTING, State.READY, State.UNHEALTHY}:
            return
        well = self.instance.alone or await ports.ok(self.admin, "/ready")
        well = well and await self._app_well(ports)
        # Meanwhile it may have ended, or been stopped.
        if keeper.child is not process or keeper.state in {State.STOPPING, State.STOPPED}:
            return
        self._missed = 0 if well else self._missed + 1
        if well:
            keeper.set(State.READY)
        elif keeper.state is State.READY and self._missed >= MISSED:
            what = self.instance.health or "its port"
            keeper.set(State.UNHEALTHY, f"is unhealthy: {what} does not answer")

    async def _app_well(self, ports: AdminPorts) -> bool:
        if self.instance.health is not None:
            return await ports.ok(self.port, self.instance.health)
        return not self.instance.listens or await asyncio.to_thread(accepts, self.port)

    async def settled(self) -> None:
        """Wait until it is ready, or has failed."""
        await self.keeper.until(_SETTLED)

    async def measure(self, ports: AdminPorts) -> None:
        """Take a sample of its counters."""
        asked = self.keeper.child is not None and not self.instance.alone
        new = await ports.sample(self.admin) if asked else None
        self._samples = (self._samples[1], new)

    def row(self, now: float) -> Row:
        """Its row in the table."""
        return row(self.instance.name, self.keeper.state, self.address, *self._samples, now)

    def document(self) -> dict[str, Any]:
        """What other commands may know of it."""
        one = self.instance
        return {
            "name": one.name,
            "service": one.service,
            "group": one.group,
            "version": one.version,
            "state": str(self.keeper.state),
            "app": self.address,
            "url": self.url,
            "admin": self.admin,
        }
