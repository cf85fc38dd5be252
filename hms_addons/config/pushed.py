"""What only an operator's push can get wrong: a whole mesh's configuration, which no sidecar wrote.

It is read by the control plane and used on other machines, so a path in it must mean the same there.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from hms_addons.line_log import STDOUT

if TYPE_CHECKING:
    from hms_addons.config.problems import Report
    from hms_addons.config.schema import Config


def check_pushed(config: Config, report: Report) -> None:
    """Add to `report` what a control plane cannot hand out as it is."""
    for index, provider in enumerate(config.rbac.providers):
        for key in ("public_key_file", "jwks_file", "jwks_ca_file"):
            named = getattr(provider, key)
            if named is not None and not PurePosixPath(named).is_absolute():
                message = (
                    f"{named!r} is relative, but read on the sidecars' machines: write an absolute "
                    "path, and put the file there on each"
                )
                report.error(("rbac", "providers", index, key), message)
    if config.zone is not None:
        message = "left out of what sidecars get: each is told where it is, with --zone"
        report.warning(("zone",), message, at_key=True)
    for log, section in (
        (config.rbac.audit_log, ("rbac", "audit_log")),
        (config.access_log, ("access_log",)),
    ):
        path = STDOUT if log is None else log.path or STDOUT
        if path != STDOUT and not PurePosixPath(path).is_absolute():
            message = f"{path!r} is relative, but written on the sidecars' machines: give an absolute path"
            report.error((*section, "path"), message)
    if config.service is not None:
        message = "left out of what sidecars get: each is told the service it stands beside"
        report.warning(("service",), message, at_key=True)
