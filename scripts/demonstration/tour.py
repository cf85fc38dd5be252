"""The tour: its steps in order, each with real requests; a step that fails does not end it."""

from __future__ import annotations

import http.client
import subprocess
from typing import TYPE_CHECKING

from hms_addons.errors import MeshError
from scripts.demonstration import (
    claim_steps,
    closing_steps,
    edit_steps,
    failure_steps,
    policy_steps,
)
from scripts.demonstration.up import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.demonstration.lost_package import LostPackage
    from scripts.demonstration.report import Report

type Step = Callable[[LostPackage, Report], None]

STEPS: tuple[Step, ...] = (
    claim_steps.a_claim,
    claim_steps.seed_caller,
    claim_steps.spread,
    failure_steps.governance_stops,
    policy_steps.forged_headers,
    policy_steps.bad_token,
    policy_steps.roles,
    policy_steps.round_the_mesh,
    policy_steps.rate_limit,
    edit_steps.canary,
    edit_steps.typo,
    edit_steps.refused_by_one,
    failure_steps.governance_returns,
    edit_steps.mirror,
    failure_steps.replica_dies,
    edit_steps.one_fewer,
    failure_steps.failover_and_fallback,
    failure_steps.all_dead,
    failure_steps.control_plane_dies,
    closing_steps.certificates,
    closing_steps.table,
)


def run(mesh: LostPackage, report: Report, steps: Sequence[Step]) -> None:
    """Take every step."""
    for step in steps:
        try:
            step(mesh, report)
        except (
            DemoError,
            MeshError,
            OSError,
            http.client.HTTPException,
            subprocess.TimeoutExpired,
            LookupError,
            ValueError,
        ) as error:
            # What a mesh that misbehaves can do to a caller: no answer, no HTTP, other JSON.
            seen = str(error) if isinstance(error, DemoError | MeshError) else repr(error)
            report.check(ok=False, expectation="the step can be taken to its end", seen=seen)
