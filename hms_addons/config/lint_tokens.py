"""Warnings about tokens: where their keys come from, and whose they are carried on to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hms_addons.config.part import ANY
from hms_addons.identity.key_set import KeySetError, key_set_of_jwks, key_set_of_pem
from hms_addons.identity.key_source import read_key_file

if TYPE_CHECKING:
    from hms_addons.config.problems import Path as KeyPath
    from hms_addons.config.problems import Report
    from hms_addons.config.schema import Config
    from hms_addons.config.snapshot import Snapshot


def lint_tokens(config: Config, report: Report, *, control: bool) -> None:
    """Add a warning to `report` for what was hardly meant. With `control` a control plane adds listeners."""
    for index, provider in enumerate(config.rbac.providers):
        uri = provider.jwks_uri or ""
        host = urlsplit(uri).hostname or ""
        if uri.startswith("http:") and host not in {"localhost", "::1"} and host[:4] != "127.":
            path: KeyPath = ("rbac", "providers", index, "jwks_uri")
            message = (
                "plain http: whoever is on the way can put keys of his own in, and sign with them"
            )
            report.warning(path, message, f"https:{uri.removeprefix('http:')}")
    inbound = any(listener.direction == "inbound" for listener in config.listeners)
    known = report.whole and report.known("listeners", ANY, "direction")
    for index, listener in enumerate(config.listeners):
        if listener.propagate_identity and not inbound and known and not control:
            message = "has no effect: there is no inbound listener, whose requests it could go by"
            report.warning(("listeners", index, "propagate_identity"), message)


def lint_key_files(snapshot: Snapshot, report: Report) -> None:
    """Warn of files that are there and hold no usable keys; they may yet be replaced, so it is no error."""
    for index, provider in enumerate(snapshot.rbac.providers):
        for key, parse in (("jwks_file", key_set_of_jwks), ("public_key_file", key_set_of_pem)):
            named: str | None = getattr(provider, key)
            # A pipe would be waited for.
            if named is None or not Path(named).is_file():
                continue
            path: KeyPath = ("rbac", "providers", index, key)
            try:
                parse(read_key_file(Path(named)))
            except OSError as error:
                report.warning(path, f"{named} cannot be read: {error.strerror or error}")
            except KeySetError as error:
                message = (
                    f"{named}: {error}; until it is replaced every token of the issuer is refused"
                )
                report.warning(path, message)
