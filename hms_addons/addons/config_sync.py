"""`config_sync`: keeps a sidecar in step with its control plane.

    ControlSource ──▶ mesh.apply ──▶ ack or nack ─┐
    ControlIdentity (renews the SVID) ────────────┼─▶ Reports ──▶ control plane
    Presence (registers the service) ─────────────┘

It renews the certificate from the moment there is one, however long the first configuration is waited
for, and tells of one that cannot be used. Once the sidecar has started, it follows the configuration,
tells what became of each version, and lists this instance of the service as soon as that can take
requests. When the sidecar leaves, the instance is taken back first, and for a moment more requests are
still taken: callers hear of it meanwhile. The last word is a goodbye to the fleet, which would miss it
otherwise; only an orderly end has one.
Whatever the control plane does or fails to do, the sidecar serves on with what it has.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import within
from hms_addons.config.snapshot import Direction
from hms_addons.control_client.failures import ControlError
from hms_addons.control_client.presence import FAREWELL, Presence, Traits, own_host
from hms_addons.control_client.reports import Reports
from hms_addons.hookspecs import hookimpl
from hms_addons.identity.identity_holder import SecretError
from hms_addons.tasks import TaskSet

if TYPE_CHECKING:
    from random import Random

    from hms_addons.config.control_source import ControlSource, Refused
    from hms_addons.config.snapshot import EndpointSpec, Snapshot
    from hms_addons.control_client.client import ControlClient
    from hms_addons.hookspecs import Mesh
    from hms_addons.identity.control_identity import ControlIdentity
    from hms_addons.identity.identity_holder import Identity

logger = logging.getLogger(__name__)

GRACE: Final = 1.0
"""Seconds that requests are still taken after the instance was taken back (SEMANTICS, Lifecycle)."""
APP_LOOK: Final = 0.1
APP_SILENCE: Final = 10.0
"""Seconds after which an app that does not listen is spoken of."""
_ANYWHERE: Final = frozenset({"0.0.0.0", "::"})  # noqa: S104 - compared with, not bound
_LONGEST_REASON: Final = 8 * 1024


class Self(NamedTuple):
    """Who this sidecar is to the control plane.

    `advertise` is the `host:port`, or the host alone, where peers reach it; None finds out.
    """

    sidecar: str
    service: str
    traits: Traits = Traits()
    advertise: str | None = None
    hms_version: str = ""


class ConfigSync:
    """The built-in plugin `config_sync`, registered where there is a control plane.

    Args:
        source: the configuration, begun already.
        client: the control plane.
        identity: the SVID, there already.
        me: who this sidecar is.
        rng: jitter.
    """

    def __init__(
        self,
        source: ControlSource,
        client: ControlClient,
        identity: ControlIdentity,
        me: Self,
        rng: Random,
    ) -> None:
        self._source = source
        self._client = client
        self._identity = identity
        self.me: Final = me
        self._rng = rng
        self._tasks = TaskSet("config_sync")
        self._mesh: Mesh | None = None
        self._host: str | None = None
        self._reports: Reports | None = None
        self._reporting = False
        self._unusable: Refused | None = None
        """What has come so far, while nothing that can be used has."""
        self._presence: Presence | None = None
        self._listing: asyncio.Task[Any] | None = None
        self._farewell: float | None = FAREWELL
        """Seconds left for goodbyes; None while an end would be none that was asked for."""

    def __repr__(self) -> str:
        return f"<ConfigSync {self._source!r}>"

    @hookimpl
    def hms_open(self, mesh: Mesh) -> None:
        """Have `/config` tell of the control plane, also while its first configuration is waited for."""
        self._mesh = mesh
        mesh.add_status("control", self._source.status)

    def begin(self) -> None:
        """There is an SVID: keep it fresh from now on, and tell of what cannot be used."""
        mesh = self._mesh
        assert mesh is not None  # noqa: S101 - opened before
        self._reports = Reports(
            self._client, self.me.sidecar, self._report, self._answered, mesh.clock, self._rng
        )
        self._source.on_change = self._changed
        self._identity.holder.subscribe(self._renewed)
        self._tasks.start(self._identity.run(), "certificate")

    async def give_up(self) -> None:
        """No configuration can be used, and the sidecar ends: tell the fleet, which must know why."""
        assert self._mesh is not None  # noqa: S101 - opened before
        assert self._reports is not None  # noqa: S101 - begun before
        await self._tasks.close()
        self._farewell = None
        try:
            async with within(self._mesh.clock, FAREWELL):
                await self._reports.send()
        except (ControlError, TimeoutError) as error:
            logger.warning("could not tell the control plane of it: %s", str(error) or "no answer")

    @hookimpl
    async def hms_startup(self, mesh: Mesh) -> None:
        """Begin to follow and to report."""
        me = self.me
        self._farewell = None
        self._presence = Presence(
            self._client, me.sidecar, me.traits, self._address, mesh.clock, self._rng
        )
        self._presence.on_change = self._changed
        self._presence.on_heard = self._source.heard
        self._tasks.start(self._source.watch(mesh.apply, mesh.refuse), "configuration")
        self._start_reports()

    @hookimpl
    def hms_ready(self) -> None:
        """List the instance as soon as the app listens."""
        self._changed()
        self._listing = self._tasks.start(self._list(), "registration")

    @hookimpl
    async def hms_drain(self) -> None:
        """Take the instance back, say so, and let callers hear of it."""
        assert self._mesh is not None  # noqa: S101 - nothing drains before it has started
        if self._listing is not None:
            self._listing.cancel()
            await asyncio.wait({self._listing})
        clock = self._mesh.clock
        begun = clock.monotonic()
        left = self._presence is not None and await self._presence.leave()
        self._farewell = FAREWELL - (clock.monotonic() - begun)
        if left:
            await clock.sleep(GRACE)

    @hookimpl
    async def hms_shutdown(self) -> None:
        """End everything."""
        await self.close()

    async def close(self) -> None:
        """End everything; if that is what was asked for, say goodbye. Idempotent."""
        await self._tasks.close()
        if self._reports is not None and self._farewell is not None and self._farewell > 0:
            await self._reports.leave(self._farewell)
        self._source.close()
        await self._client.close()

    # -- registration ---------------------------------------------------------------------------

    async def _list(self) -> None:
        assert self._mesh is not None  # noqa: S101 - set at startup
        assert self._presence is not None  # noqa: S101 - set at startup
        await self._find_host()
        await self._app_listens()
        await self._presence.run()

    async def _find_host(self) -> None:
        """Where peers reach a listener that is bound to every address."""
        assert self._mesh is not None  # noqa: S101 - set at startup
        while self._host is None:
            try:
                self._host = await own_host(self._client.where)
            except OSError as error:
                logger.warning("no address of this machine to register: %s", error)
                await self._mesh.clock.sleep(APP_SILENCE)

    async def _app_listens(self) -> None:
        """Wait until the app takes connections: a caller that comes sooner would get a 503."""
        assert self._mesh is not None  # noqa: S101 - set at startup
        clock = self._mesh.clock
        begun, told = clock.monotonic(), False
        while (app := _app(self._mesh.snapshot)) is not None:
            try:
                _, writer = await asyncio.open_connection(app.host, app.port)
            except OSError as error:
                if not told and clock.monotonic() - begun > APP_SILENCE:
                    told = True
                    logger.warning(
                        "the app does not listen on %s:%d yet (%s); the service is registered "
                        "once it does",
                        app.host,
                        app.port,
                        error.strerror or error,
                    )
                await clock.sleep(APP_LOOK)
            else:
                writer.close()
                return

    def _address(self) -> str | None:
        """Where peers reach the inbound listener now."""
        assert self._mesh is not None  # noqa: S101 - set at startup
        for listener in self._mesh.status()["listeners"]:
            if listener["direction"] != Direction.INBOUND or listener["address"] is None:
                continue
            host, _, port = listener["address"].rpartition(":")
            host = host.strip("[]")
            if host in _ANYWHERE:
                host = self._host or ""
            return _advertised(self.me.advertise, host, port)
        return None

    # -- reports --------------------------------------------------------------------------------

    def _changed(self) -> None:
        mesh, refused = self._mesh, self._source.refused
        if mesh is not None and mesh.snapshot is None and refused is not self._unusable:
            self._unusable = refused
            if refused is not None:
                mesh.refuse(refused.reason)
                self._start_reports()  # a better one may be long in coming
        if self._reports is not None:
            self._reports.changed()
        if self._presence is not None and self._listing is not None:
            self._presence.poke()

    def _start_reports(self) -> None:
        if self._reports is not None and not self._reporting and not self._tasks.closed:
            self._reporting = True
            self._tasks.start(self._reports.run(), "reports")

    def _renewed(self, _identity: Identity) -> None:
        self._changed()
        self._source.heard()

    def _report(self) -> dict[str, Any]:
        assert self._mesh is not None  # noqa: S101 - set at startup
        source, refused = self._source, self._source.refused
        told = source.in_force if refused is None else refused.pushed
        clusters = self._mesh.clusters()
        endpoints = [endpoint for cluster in clusters for endpoint in cluster["endpoints"]]
        current = self._identity.holder.current
        return {
            "service": self.me.service,
            "version": told.version if told is not None else 0,
            "digest": told.digest if told is not None else "",
            "history": told.history if told is not None else "",
            "state": "ack" if refused is None else "nack",
            "reason": "" if refused is None else refused.reason[:_LONGEST_REASON],
            "certificate": None
            if current is None
            else {"not_after": current.svid.not_after, "serial": f"{current.svid.serial:x}"},
            "bundle_sequence": self._identity.bundle_sequence,
            "address": (self._presence.listed if self._presence is not None else None) or "",
            "ready": self._mesh.ready,
            "endpoints": {
                "usable": sum(endpoint["state"] != "open" for endpoint in endpoints),
                "total": len(endpoints),
            },
            "breakers_open": [c["name"] for c in clusters if c["state"] == "open"][:256],
            "hms_version": self.me.hms_version,
        }

    async def _answered(self, sequence: int | None) -> None:
        """The control plane has heard, and tells which trust bundle is in force."""
        self._source.heard()
        if sequence is None or sequence == self._identity.bundle_sequence:
            return
        try:
            await self._identity.take_bundle(await self._client.bundle())
        except (ControlError, SecretError) as error:
            logger.warning("the new trust bundle is not taken: %s", error)


def _app(snapshot: Snapshot | None) -> EndpointSpec | None:
    """The app behind the inbound listener."""
    if snapshot is None:
        return None
    for listener in snapshot.listeners:
        app = snapshot.clusters.get(f"app:{listener.name}")
        if listener.direction is Direction.INBOUND and app is not None:
            return app.endpoints[0]
    return None


def _advertised(told: str | None, host: str, port: str) -> str | None:
    """`host:port` for the registry: as told, or what is bound. None while the host is not known."""
    if told:
        bare = told.rpartition(":")[0] if _has_port(told) else told
        if bare != told:
            return told
        host = told.strip("[]")
    if not host:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _has_port(text: str) -> bool:
    host, colon, port = text.rpartition(":")
    return bool(colon) and port.isdigit() and (":" not in host or host.endswith("]"))
