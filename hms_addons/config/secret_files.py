"""Whether the certificates and keys that a configuration names can be used, as a sidecar will find."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.identity.file_secret import FileSecret, SecretFiles
from hms_addons.identity.identity_holder import IdentityHolder, SecretError

if TYPE_CHECKING:
    from hms_addons.clock import Clock
    from hms_addons.config.problems import Path as KeyPath
    from hms_addons.config.problems import Report
    from hms_addons.config.snapshot import Secret, Snapshot

_KEYS = ("certificate", "key", "bundle")


def check_secret_files(snapshot: Snapshot, report: Report, clock: Clock = SYSTEM_CLOCK) -> None:
    """Add an error to `report` for each file that is missing, and each secret that is not good.

    A sidecar loads all of them before it serves, so one that is bad keeps it from starting.
    """
    for name, secret in snapshot.secrets.items():
        path: KeyPath = ("secrets", name)
        if not report.known(*path):
            continue
        problems = {key: why for key in _KEYS if (why := _unreadable(getattr(secret, key)))}
        for key, why in problems.items():
            report.error((*path, key), f"{getattr(secret, key)}: {why}")
        domain_known = report.known("trust_domain")
        if not problems and (why := _bad(secret, snapshot, clock, domain_known=domain_known)):
            report.error(path, why, at_key=True)


def _unreadable(name: str) -> str | None:
    try:
        with Path(name).open("rb"):
            return None
    except OSError as error:
        return (error.strerror or str(error)).lower()


def _bad(secret: Secret, snapshot: Snapshot, clock: Clock, *, domain_known: bool) -> str | None:
    files = SecretFiles(Path(secret.certificate), Path(secret.key), Path(secret.bundle))
    domain = snapshot.trust_domain if domain_known else None
    try:
        FileSecret(files, IdentityHolder(secret.name), clock, domain).read()
    except SecretError as error:
        return str(error)
    return None
