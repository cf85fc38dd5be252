"""The tour: its steps in order, each with real requests; a step that fails does not end it."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from scripts.demonstration import failure_steps, first_steps, policy_steps, reload_steps
from scripts.demonstration.children import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable

    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.report import Report

type Step = Callable[[LostPackageMesh, Report], None]

STEPS: tuple[Step, ...] = (
    first_steps.seed_caller,
    first_steps.spread,
    first_steps.headers,
    policy_steps.forged_headers,
    policy_steps.expired_token,
    policy_steps.role_not_allowed,
    policy_steps.no_certificate,
    failure_steps.one_replica_killed,
    failure_steps.all_replicas_dead,
    failure_steps.recovery,
    reload_steps.new_route,
    reload_steps.broken_change,
    reload_steps.canary,
)


def run(mesh: LostPackageMesh, report: Report, steps: tuple[Step, ...] = STEPS) -> None:
    """Take every step."""
    for step in steps:
        try:
            step(mesh, report)
        except (DemoError, OSError, http.client.HTTPException, ValueError, KeyError) as error:
            # What a sidecar that misbehaves can do to a caller: no answer, no HTTP, other JSON.
            seen = str(error) if isinstance(error, DemoError) else repr(error)
            report.check(ok=False, expectation="the step can be taken to its end", seen=seen)
