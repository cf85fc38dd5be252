"""The tours: their steps in order, each with real requests; a step that fails does not end them."""

from __future__ import annotations

import http.client
from typing import TYPE_CHECKING

from scripts.demonstration import (
    enrolment_steps,
    failure_steps,
    first_steps,
    load_steps,
    outage_steps,
    policy_steps,
    push_steps,
    reload_steps,
    traffic_steps,
)
from scripts.demonstration.children import DemoError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from scripts.demonstration.lost_package_mesh import LostPackageMesh
    from scripts.demonstration.managed_mesh import ManagedMesh
    from scripts.demonstration.report import Report

type Step[M] = Callable[[M, Report], None]

FROM_FILES: tuple[Step[LostPackageMesh], ...] = (
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
    reload_steps.rate_limit,
    reload_steps.broken_change,
    traffic_steps.mirror,
    traffic_steps.failover,
    traffic_steps.fallback,
)


BY_CONTROL_PLANE: tuple[Step[ManagedMesh], ...] = (
    enrolment_steps.control_plane,
    enrolment_steps.enrol,
    enrolment_steps.first_push,
    enrolment_steps.all_well,
    load_steps.load_begins,
    push_steps.canary,
    push_steps.refused_push,
    push_steps.nack,
    load_steps.certificates,
    outage_steps.control_plane_dies,
    outage_steps.dying,
    outage_steps.joining,
    outage_steps.leaving,
)


def run[M](mesh: M, report: Report, steps: Sequence[Step[M]]) -> None:
    """Take every step."""
    for step in steps:
        try:
            step(mesh, report)
        except (DemoError, OSError, http.client.HTTPException, ValueError, KeyError) as error:
            # What a sidecar that misbehaves can do to a caller: no answer, no HTTP, other JSON.
            seen = str(error) if isinstance(error, DemoError) else repr(error)
            report.check(ok=False, expectation="the step can be taken to its end", seen=seen)
