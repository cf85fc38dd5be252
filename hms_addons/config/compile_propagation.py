"""Whether an outbound listener's calls carry on the identity of the request that they are made for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from hms_addons.config.problems import Path, Report
    from hms_addons.config.schema import Config, ListenerModel

_LOOPBACK: Final = re.compile(r"127(?:\.[0-9]{1,3}){3}|::1|localhost")


def is_loopback(host: str | None) -> bool:
    """Whether an address to bind is one that only this machine reaches; None, a default, is not."""
    return host is not None and _LOOPBACK.fullmatch(host) is not None


def compile_propagation(
    model: ListenerModel, path: Path, config: Config, report: Report, *, control: bool
) -> bool:
    """The listener's `propagate_identity`; `report` is told where it could do harm or nothing.

    With `control` a control plane adds what is not here, providers as well.
    """
    if not model.propagate_identity:
        return False
    here: Path = (*path, "propagate_identity")
    if model.host is not None and not is_loopback(model.host):
        # Whoever reaches the port could call in the name of those whose requests are in flight.
        message = "only on a loopback address, where none but the app reaches it"
        if report.known(*path, "host"):
            report.error(here, message, "host: 127.0.0.1")
    there = config.rbac.providers or not report.known("rbac", "providers")
    if not there and report.whole and not control:
        message = "there are no rbac.providers: no token is verified that could be carried on"
        report.error(here, message)
    return True
