"""Warnings about tokens: where their keys come from, and whose they are carried on to."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from hms_addons.config.part import ANY

if TYPE_CHECKING:
    from hms_addons.config.problems import Path as KeyPath
    from hms_addons.config.problems import Report
    from hms_addons.config.schema import Config


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
