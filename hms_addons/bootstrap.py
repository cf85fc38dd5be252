"""Puts a sidecar's plugins together: the built-ins in their order, then what is installed."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

from hms_addons.config.installed import Installed, has_otel
from hms_addons.errors import MeshError
from hms_addons.hookspecs import ENTRY_POINT_GROUP

if TYPE_CHECKING:
    from collections.abc import Sequence
    from random import Random

    from hms_addons.addons.config_sync import ConfigSync
    from hms_addons.plugins import PluginManager

BUILT_IN: Final = (
    "mtls",
    "identity_propagation",
    "rbac",
    "routing",
    "rewrites",
    "rate_limit",
    "governance",
    "header_rules",
    "interception",
    "dns_names",
    "fault_injection",
    "own_answers",
    "fallback",
    "resilience",
    "session_affinity",
    "audit_log",
    "access_log",
    "tracing",
    "metrics",
    "admin",
    "config_sync",
)
"""The plugins that `build_plugins` registers itself, in that order."""
DEFAULT_ADMIN = "127.0.0.1:15000"


def parse_admin(value: str) -> tuple[str, int] | None:
    """`host:port` of the admin port; None for `off`.

    Raises:
        MeshError: it is neither.
    """
    if value == "off":
        return None
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - the last port
        message = f"'{value}' is no admin address: give host:port, as {DEFAULT_ADMIN}, or off"
        raise MeshError(message)
    return host.strip("[]") or "127.0.0.1", int(port)


def build_plugins(
    admin: tuple[str, int] | None,
    rng: Random,
    disabled: Sequence[str] = (),
    config_sync: ConfigSync | None = None,
) -> PluginManager:
    """The plugins of a sidecar, registered in the order in which their hooks run.

    Args:
        admin: address of the admin port; None for none.
        rng: for load balancing.
        disabled: installed plugins to leave out.
        config_sync: what follows the control plane, where there is one.

    Raises:
        PluginError: an installed plugin cannot be loaded.
    """
    # Here, as commands that run no sidecar need this file's words only and are to start fast.
    from hms_addons.addons.access_log import AccessLog  # noqa: PLC0415 - see above
    from hms_addons.addons.admin import Admin  # noqa: PLC0415 - see above
    from hms_addons.addons.audit_log import AuditLog  # noqa: PLC0415 - see above
    from hms_addons.addons.dns_names import DnsNames  # noqa: PLC0415 - see above
    from hms_addons.addons.fallback import Fallback  # noqa: PLC0415 - see above
    from hms_addons.addons.fault_injection import FaultInjection  # noqa: PLC0415 - see above
    from hms_addons.addons.governance import Governance  # noqa: PLC0415 - see above
    from hms_addons.addons.header_rules import HeaderRules  # noqa: PLC0415 - see above
    from hms_addons.addons.identity_propagation import IdentityPropagation  # noqa: PLC0415 - see above
    from hms_addons.addons.interception import Interception  # noqa: PLC0415 - see above
    from hms_addons.addons.metrics import Metrics  # noqa: PLC0415 - see above
    from hms_addons.addons.mtls import Mtls  # noqa: PLC0415 - see above
    from hms_addons.addons.own_answers import OwnAnswers  # noqa: PLC0415 - see above
    from hms_addons.addons.rate_limit import RateLimit  # noqa: PLC0415 - see above
    from hms_addons.addons.rbac import Rbac  # noqa: PLC0415 - see above
    from hms_addons.addons.resilience import Resilience  # noqa: PLC0415 - see above
    from hms_addons.addons.rewrites import Rewrites  # noqa: PLC0415 - see above
    from hms_addons.addons.routing import Routing  # noqa: PLC0415 - see above
    from hms_addons.addons.session_affinity import SessionAffinity  # noqa: PLC0415 - see above
    from hms_addons.addons.tracing import Tracing  # noqa: PLC0415 - see above
    from hms_addons.plugins import PluginManager  # noqa: PLC0415 - see above

    plugins = PluginManager()
    plugins.register(Mtls(), "mtls")
    # Before rbac, which verifies what it attaches.
    plugins.register(IdentityPropagation(), "identity_propagation")
    plugins.register(Rbac(), "rbac")
    plugins.register(Routing(rng), "routing")
    plugins.register(Rewrites(), "rewrites")
    plugins.register(RateLimit(), "rate_limit")
    plugins.register(Governance(), "governance")
    plugins.register(HeaderRules(), "header_rules")
    plugins.register(Interception(), "interception")
    plugins.register(DnsNames(), "dns_names")
    plugins.register(FaultInjection(rng), "fault_injection")
    plugins.register(OwnAnswers(), "own_answers")
    resilience = Resilience()
    plugins.register(
        Fallback(resilience.hms_forward, resilience.elsewhere, plugins.fallback_of), "fallback"
    )
    plugins.register(resilience, "resilience")
    plugins.register(SessionAffinity(), "session_affinity")
    plugins.register(AuditLog(), "audit_log")
    plugins.register(AccessLog(rng=rng), "access_log")
    me = None if config_sync is None else config_sync.me
    plugins.register(
        Tracing(
            rng=rng,
            instance=None if me is None else me.sidecar,
            version=None if me is None else me.traits.version,
        ),
        "tracing",
    )
    if admin is not None:  # else there is nobody to tell
        plugins.register(Metrics(), "metrics")
        plugins.register(Admin(*admin), "admin")
    if config_sync is not None:
        plugins.register(config_sync, "config_sync")
    plugins.load_entry_points(disabled)
    return plugins


def installed_plugins(disabled: Sequence[str] = ()) -> Installed:
    """The plugins that a sidecar of this machine would have, but for those it is to leave out."""

    def balancers() -> frozenset[str]:
        from hms_addons.plugins import PluginManager  # noqa: PLC0415 - seldom needed

        plugins = PluginManager()
        plugins.load_entry_points(disabled)
        return frozenset(name for found in plugins.collect("hms_load_balancers") for name in found)

    names = {entry_point.name for entry_point in entry_points(group=ENTRY_POINT_GROUP)}
    return Installed(frozenset({*BUILT_IN, *names, *disabled}), balancers, has_otel())
