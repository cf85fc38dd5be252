"""What is pushed to the control plane beside the seed's `routes.yaml`: one overlay for the whole mesh.

Plain data in, YAML out, like `mesh_files`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scripts.demonstration.mesh_files import CALLER, LISTENER, SECRET, to_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from scripts.demonstration.mesh_files import Section

CANARY = "auth-svc-v2"
CANARY_PERCENT = 10
REPORTS = "reports"
"""A second listener of Claims-SVC's sidecar."""


@dataclass(frozen=True, slots=True)
class MeshOverlay:
    """The overlay; each change of it is another one.

    Args:
        governance_port: of HMS-GOV.
        routes: of the seed's listener: an overlay's routes replace them whole.
        canary_percent: the share of Auth-SVC's calls that its version v2 gets.
        reports_port: of a second listener of Claims-SVC's sidecar; None for none.
    """

    governance_port: int
    routes: Sequence[Section]
    canary_percent: int = 0
    reports_port: int | None = None

    def with_canary(self, percent: int = CANARY_PERCENT) -> MeshOverlay:
        """The same with a share for version v2."""
        return replace(self, canary_percent=percent)

    def with_reports(self, port: int) -> MeshOverlay:
        """The same with a second listener for Claims-SVC."""
        return replace(self, reports_port=port)

    def canary(self) -> Section:
        """The cluster of version v2; its endpoints are the registry's."""
        return {
            "name": CANARY,
            "trafficPolicy": f"weight={self.canary_percent}",
            "tls_context": {"sds": SECRET},
        }

    def reports(self) -> Section:
        """The second listener."""
        return {
            "name": REPORTS,
            "host": "127.0.0.1",
            "port": self.reports_port,
            "services": ["claims-svc"],
            "routes": list(self.routes),
        }

    def text(self) -> str:
        """As YAML."""
        refund = {
            "match": {"prefix": "/reimburse", "methods": ["POST"]},
            "action": {"cluster": "payments-svc", "timeout": "2s"},
        }
        app_facing = {
            "name": LISTENER,
            "services": ["claims-svc"],
            "routes": [*self.routes, refund],
        }
        listeners = [app_facing] + ([] if self.reports_port is None else [self.reports()])
        content = {
            "listeners": listeners,
            "clusters": [{"name": "payments-svc", "tls_context": {"sds": SECRET}}, self.canary()],
            "governance": {"url": f"http://127.0.0.1:{self.governance_port}", "ttl": "60s"},
            "rbac": {
                "policies": [
                    {
                        "name": f"{service}-callers",
                        "action": "ALLOW",
                        "services": [service],
                        "callers": [CALLER],
                    }
                    for service in ("auth-svc", "payments-svc")
                ]
            },
        }
        head = (
            "# What this mesh adds to the seed's routes.yaml: no address, no key, no certificate.\n"
        )
        return head + to_yaml(content)

    def broken_text(self) -> str:
        """What a slip of the pen makes of it: a misspelt key."""
        return self.text().replace("trafficPolicy:", "trafficPolcy:")
