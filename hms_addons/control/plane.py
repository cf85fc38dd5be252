"""Everything that one control plane is made of, for the handlers of its API."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from hms_addons.clock import Clock
    from hms_addons.control.auth import AdminTokens, Authenticator
    from hms_addons.control.ca.mesh_authority import MeshAuthority
    from hms_addons.control.configs import ConfigService
    from hms_addons.control.enrolment import Enrolment
    from hms_addons.control.fleet import Fleet
    from hms_addons.control.metrics import ControlMetrics
    from hms_addons.control.readiness import Readiness
    from hms_addons.control.registry import Registry
    from hms_addons.control.snapshots import Snapshots
    from hms_addons.control.store.protocol import Store
    from hms_addons.control.tokens import JoinTokens


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The parts, each made and opened by `control.assembly`."""

    clock: Clock
    store: Store
    admins: AdminTokens
    authenticator: Authenticator
    authority: MeshAuthority
    tokens: JoinTokens
    enrolment: Enrolment
    configs: ConfigService
    registry: Registry
    snapshots: Snapshots
    fleet: Fleet
    metrics: ControlMetrics
    readiness: Readiness
    stopping: asyncio.Event = field(repr=False)
    """Set when the process ends: whoever waits is answered."""
