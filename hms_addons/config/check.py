"""What `hms check` tells: every problem of some files, and what they amount to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.config.installed import SIDECAR, Known
from hms_addons.config.load import load
from hms_addons.config.problems import Problem, Severity
from hms_addons.config.source import read_files

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot

_SINGULAR: Final = {
    "instances": "instance",
    "listeners": "listener",
    "routes": "route",
    "clusters": "cluster",
    "endpoints": "endpoint",
    "secrets": "secret",
    "policies": "policy",
    "errors": "error",
    "warnings": "warning",
}


class CheckResult(NamedTuple):
    """The outcome of a check."""

    files: tuple[str, ...]
    problems: tuple[Problem, ...]
    """Errors and warnings, by file and place."""
    counts: dict[str, int]
    """How many listeners, routes, clusters … there are; empty when there is any error."""
    version: str | None
    """What the snapshot would be called; None when there is any error."""

    @property
    def ok(self) -> bool:
        """Whether a sidecar would take it."""
        return not self.errors

    @property
    def errors(self) -> int:
        """The number of errors."""
        return sum(problem.severity is Severity.ERROR for problem in self.problems)

    @property
    def warnings(self) -> int:
        """The number of warnings."""
        return len(self.problems) - self.errors

    def to_json(self) -> dict[str, Any]:
        """The same as JSON-ready types."""
        return {
            "ok": self.ok,
            "files": list(self.files),
            "version": self.version,
            "errors": self.errors,
            "warnings": self.warnings,
            "counts": self.counts,
            "problems": [problem.to_json() for problem in self.problems],
        }

    def to_text(self) -> str:
        """A line for each problem, then one that sums up."""
        lines = [str(problem) for problem in self.problems]
        numbers = {"errors": self.errors, "warnings": self.warnings}
        found = _summed_up({kind: number for kind, number in numbers.items() if number})
        if self.ok:
            lines.append(f"ok: {_summed_up(self.counts)}" + (f"; {found}" if found else ""))
        else:
            lines.append(f"refused: {found}")
        return "\n".join(lines)


def check_files(
    paths: Sequence[Path],
    *,
    service: str | None = None,
    control: bool = False,
    known: Known = SIDECAR,
) -> CheckResult:
    """Check some files as one configuration, the later over the earlier. Never raises.

    Args:
        paths: the files.
        service: the service the sidecar stands beside, if it will be told so.
        control: a control plane will stand behind it (see `load`).
        known: what else is looked at, if it is for this machine.
    """
    files = tuple(map(str, paths))
    contents, unreadable = read_files(paths)
    loaded = load(
        contents,
        service=service,
        control=control,
        known=known._replace(complete=not unreadable),
    )
    snapshot = loaded.snapshot
    if unreadable or snapshot is None:
        order = {file: position for position, file in enumerate(files)}
        problems = (*unreadable, *loaded.problems)
        problems = tuple(sorted(problems, key=lambda p: order.get(p.file, len(order))))
        return CheckResult(files, problems, {}, None)
    return CheckResult(files, loaded.problems, counts_of(snapshot), snapshot.version)


def counts_of(snapshot: Snapshot) -> dict[str, int]:
    """How many listeners, routes, clusters … a configuration has."""
    written = [route for item in snapshot.listeners for route in item.routes if not route.default]
    return {
        "listeners": len(snapshot.listeners) + len(snapshot.dns),
        "routes": len(written),
        "clusters": len(snapshot.clusters),
        "endpoints": sum(len(c.endpoints) + len(c.dns) for c in snapshot.clusters.values()),
        "secrets": len(snapshot.secrets),
        "policies": len(snapshot.rbac.policies),
    }


def _summed_up(counts: Mapping[str, int]) -> str:
    return ", ".join(
        f"{number} {_SINGULAR[kind] if number == 1 else kind}" for kind, number in counts.items()
    )
