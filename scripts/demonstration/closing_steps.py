"""What the tour ends with: certificates that were replaced meanwhile, the table, and an orderly end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from scripts.demonstration.claim_steps import VERIFIED

if TYPE_CHECKING:
    from scripts.demonstration.lost_package import LostPackage
    from scripts.demonstration.report import Report

LIFETIME: Final = "60s"
"""Of certificates in the demo."""


def certificates(mesh: LostPackage, report: Report) -> None:
    """Every certificate has been replaced, and nobody noticed."""
    report.step(
        "Certificates were replaced meanwhile",
        f"They live {LIFETIME} here; each sidecar renews its own at half its life, without a restart.",
    )
    before = mesh.serials

    def replaced() -> dict[str, str] | None:
        now = {name: serial for name, serial in mesh.serials_now().items() if name in before}
        return now if all(serial != before[name] for name, serial in now.items()) else None

    now = mesh.up.until(replaced, within=90.0, what="every certificate has been replaced")
    report.facts([(name, f"{before[name][:12]}… → {now[name][:12]}…") for name in now])
    report.check(now, "every serial is another than at the start")
    printed = mesh.run_caller(mesh.token())
    report.check(printed == VERIFIED, f"and the seed's caller prints {VERIFIED}", printed)


def table(mesh: LostPackage, report: Report) -> None:
    """All is well, as the tools see it."""
    report.step("All is well again", "As a person sees it from another terminal.")
    done = mesh.hms("top", "--once", str(mesh.file.path))
    report.show(f"$ hms top --once\n{done.text}")
    states = {line.split()[1] for line in done.text.splitlines()[1:]}
    report.check(done.code == 0 and states == {"ready"}, "every instance is ready", str(states))
    done = mesh.hms("status")
    report.show(f"$ hms status\n{done.text}")
    report.check(done.code == 0, "hms status finds nothing wrong: exit code 0", str(done.code))


def end(mesh: LostPackage, report: Report) -> None:
    """Ctrl-C drains in order, and leaves nothing."""
    report.step("Ctrl-C", "hms up drains: who takes calls on 15001 first, the control plane last.")
    after = mesh.up.mark()
    code = mesh.end()
    lines = [line.split()[2] for line in mesh.up.said(" is stopped", after)]
    report.show("stopped: " + ", ".join(lines))
    report.check(code == 0, "exit code 0", f"exit code {code}")
    report.check(lines[-1:] == ["control-plane"], "the control plane was the last", str(lines))
    left = mesh.left_over()
    report.check(not left, "no process is left", str(left))
