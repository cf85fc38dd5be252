"""Warnings about traffic shaping: limits by what no request can have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.snapshot import TlsMode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import Config, ListenerModel
    from hms_addons.config.schema_shaping import RateLimitModel


def lint_limits(config: Config, report: Report) -> None:
    """Warn of limits whose key no request has, so that all requests share one bucket."""
    tokens = bool(config.rbac.providers) or not (report.whole and report.known("rbac", "providers"))
    for at, listener in enumerate(config.listeners):
        path: Path = ("listeners", at)
        peers = not report.known(*path, "tls") or listener.tls not in {None, TlsMode.NONE}
        _limits(listener.rate_limit, (*path, "rate_limit"), listener, report, (tokens, peers))
        for index, route in enumerate(listener.routes):
            here = (*path, "routes", index, "action", "rate_limit")
            _limits(route.action.rate_limit, here, listener, report, (tokens, peers))


def _limits(
    limits: Sequence[RateLimitModel] | None,
    path: Path,
    listener: ListenerModel,
    report: Report,
    known: tuple[bool, bool],
) -> None:
    tokens, peers = known
    for index, limit in enumerate(limits or ()):
        why = None
        if limit.by in {"role", "subject"} and not tokens:
            why = "there are no providers to verify tokens (`rbac.providers`)"
        elif limit.by == "caller" and not peers:
            why = f"no caller shows a certificate to the listener {listener.name}"
        if why is not None:
            message = f"by {limit.by}, but {why}: all requests share one bucket"
            report.warning((*path, index, "by"), message)
