"""Constant load while the configuration changes and certificates are replaced, and the look back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scripts.demonstration.children import DemoError, until
from scripts.demonstration.managed_mesh import SHORT_LIFETIME
from scripts.demonstration.pulse import PAUSE

if TYPE_CHECKING:
    from scripts.demonstration.managed_mesh import ManagedMesh
    from scripts.demonstration.report import Report

RENEWAL_SECONDS = 30.0
"""A whole life of a certificate; half of one should do."""


def load_begins(mesh: ManagedMesh, report: Report) -> None:
    """From here on a client calls all the time."""
    report.step(
        "Constant load",
        f"From here on a client calls up to {1 / PAUSE:.0f} times a second, through all that follows.",
    )
    mesh.serials_before = mesh.serials()
    mesh.begin_load()
    report.show(f"certificates live {SHORT_LIFETIME} here (24 h by default); their serials now:")
    report.facts(list(mesh.serials_before.items()))


def certificates(mesh: ManagedMesh, report: Report) -> None:
    """Every certificate has been replaced, and nobody noticed."""
    report.step(
        "Certificates replaced under load",
        "Each sidecar renews its own at half its life, with the one that it has; no token, no restart.",
    )
    before = mesh.serials_before
    if not before:
        raise DemoError("the load has not begun")

    def replaced() -> dict[str, str] | None:
        now = mesh.serials()
        return now if all(now[name] != before[name] for name in before) else None

    now = until(
        replaced,
        within=RENEWAL_SECONDS,
        what="every certificate should be replaced",
        needs=[mesh.running_claims],
    )
    report.facts([(name, f"{before[name][:12]}… → {now[name][:12]}…") for name in before])
    report.check(ok=True, expectation="every serial at /certs is another")
    pulse = mesh.end_load()
    report.check(
        pulse.calls and not pulse.failures,
        f"{pulse.calls} calls since, through three pushes and all renewals: none failed",
        "\n".join([f"{len(pulse.failures)} failed", *pulse.failures[:5]]),
    )
