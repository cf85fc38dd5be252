"""Puts a control plane together from a data folder, and takes it apart again."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from hms_addons.control.auth import AdminTokens, Authenticator
from hms_addons.control.ca.authority import CaError, check_svid_lifetime
from hms_addons.control.ca.mesh_authority import MeshAuthority
from hms_addons.control.ca.template import host_name
from hms_addons.control.configs import ConfigService
from hms_addons.control.enrolment import Enrolment
from hms_addons.control.fleet import Fleet
from hms_addons.control.followed_files import FollowedFiles
from hms_addons.control.lineage import Lineage
from hms_addons.control.metrics import ControlMetrics
from hms_addons.control.mirror import Mirror
from hms_addons.control.plane import ControlPlane
from hms_addons.control.readiness import Readiness
from hms_addons.control.registry import Registry
from hms_addons.control.snapshots import Snapshots
from hms_addons.control.store.sqlite import SqliteStore
from hms_addons.control.tokens import JoinTokens
from hms_addons.errors import MeshError
from hms_addons.identity.spiffe_id import SpiffeIdError, validate_trust_domain

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from hms_addons.clock import Clock

STORE_FILE: Final = "control.db"
"""In the data folder."""


class SettingsError(MeshError):
    """A setting cannot be; the message says which, and nothing was touched."""


@dataclass(frozen=True, slots=True)
class Settings:
    """How a control plane is to run; see `hms control --help`."""

    data: Path
    host: str = "127.0.0.1"
    port: int = 15010
    trust_domain: str = "mpsa.mil"
    config: Path | None = None
    svid_lifetime: float = 24 * 3600.0
    names: Sequence[str] = ()
    reset_admin_token: bool = False

    @property
    def listens_everywhere(self) -> bool:
        """It listens on all of this machine's addresses."""
        return self.host in {"", "0.0.0.0", "::"}  # noqa: S104 - compared

    @property
    def all_names(self) -> tuple[str, ...]:
        """What the control plane's certificate is for, beside its SPIFFE ID."""
        listened = () if self.listens_everywhere else (self.host,)
        return tuple(dict.fromkeys(("localhost", "127.0.0.1", "::1", *listened, *self.names)))

    def check(self) -> None:
        """Find what cannot be before anything is made of it.

        Raises:
            SettingsError: there is such a thing.
        """
        try:
            validate_trust_domain(self.trust_domain)
        except SpiffeIdError as error:
            raise SettingsError(f"--trust-domain {self.trust_domain!r}: {error}") from None
        try:
            check_svid_lifetime(self.svid_lifetime)
        except CaError as error:
            raise SettingsError(str(error)) from None
        for option, names in (("--name", self.names), ("--listen", self.all_names)):
            for name in names:
                try:
                    host_name(name)
                except ValueError as error:
                    raise SettingsError(f"{option}: {error}") from None


@asynccontextmanager
async def assembled(
    settings: Settings, clock: Clock, stopping: asyncio.Event
) -> AsyncIterator[ControlPlane]:
    """A control plane whose state is in `settings.data`; everything is closed at the end.

    Raises:
        SettingsError: a setting cannot be.
        MeshError: the folder, the store or the CA cannot be used; nothing has changed.
    """
    settings.check()
    async with AsyncExitStack() as stack:
        store = await SqliteStore.open(settings.data / STORE_FILE, clock)
        stack.push_async_callback(store.close)
        authority = MeshAuthority(store, clock, settings.trust_domain, settings.svid_lifetime)
        await authority.load_or_create()
        admins, tokens = AdminTokens(store, clock), JoinTokens(store, clock)
        lineage, mirror = Lineage(store), Mirror(store)
        await lineage.open()
        configs = ConfigService(store, mirror, clock, settings.trust_domain)
        registry = Registry(store, mirror)
        snapshots = Snapshots(mirror, configs, registry, lineage, clock, settings.trust_domain)
        fleet = Fleet(store, mirror, snapshots, configs, lineage, clock)
        plane = ControlPlane(
            clock=clock,
            store=store,
            admins=admins,
            authenticator=Authenticator(admins, clock),
            authority=authority,
            tokens=tokens,
            enrolment=Enrolment(authority, tokens),
            configs=configs,
            registry=registry,
            snapshots=snapshots,
            fleet=fleet,
            metrics=ControlMetrics(),
            readiness=Readiness(store),
            stopping=stopping,
        )
        _observe(plane)
        stack.push_async_callback(mirror.close)
        await mirror.start()
        stack.push_async_callback(fleet.close)
        await fleet.start()
        if settings.config is not None:
            followed = FollowedFiles(configs, settings.config, clock)
            stack.push_async_callback(followed.close)
            await followed.start()
        stack.push_async_callback(snapshots.close)
        await snapshots.start()
        yield plane


def _observe(plane: ControlPlane) -> None:
    """What is read when somebody asks for the metrics."""
    metrics, configs = plane.metrics, plane.configs

    def version() -> float:
        return configs.current.version if configs.current else 0

    def sidecars() -> float:
        return len(plane.fleet.status()["sidecars"])

    metrics.observe(
        "hms_control_store_revision", "Of the last write.", lambda: plane.store.revision
    )
    metrics.observe("hms_control_config_version", "In force; 0: nothing was pushed.", version)
    metrics.observe("hms_control_sidecars", "That report, or are gone.", sidecars)
