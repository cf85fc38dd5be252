"""The demo's configuration files: one overlay over the seed's `routes.yaml`, one file a replica.

Plain data in, YAML out; nothing here touches a process.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from scripts.demonstration.tokens import AUDIENCE, ISSUER, ROLE

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

type Section = dict[str, Any]

TRUST_DOMAIN = "mpsa.mil"
CALLER = f"spiffe://{TRUST_DOMAIN}/svc/claims-svc"
LISTENER = "inbound_http"
"""The app-facing listener of the seed's file, and its port."""
LISTENER_PORT = 15001
SECRET = "mesh_certs"  # noqa: S105 - the name that the seed's file asks for
EJECTION_SECONDS = 2
"""First ejection of an endpoint; 30 s by default, which is longer than anyone watches a demo."""


@dataclass(frozen=True, slots=True)
class Shared:
    """What the files of all sidecars have in common.

    Args:
        governance_port: of HMS-GOV, on 127.0.0.1.
        token_key: the issuer's public key (PEM).
        certificates: folder of the SVIDs: `<service>.pem`, `<service>.key`, `bundle.pem`.
    """

    governance_port: int
    token_key: Path
    certificates: Path

    def sections(self, service: str) -> Section:
        """Identity, policy version and tokens, for the sidecar of `service`."""
        return {
            "trust_domain": TRUST_DOMAIN,
            "service": service,
            "secrets": {
                SECRET: {
                    "certificate": str(self.certificates / f"{service}.pem"),
                    "key": str(self.certificates / f"{service}.key"),
                    "bundle": str(self.certificates / "bundle.pem"),
                }
            },
            "governance": {"url": f"http://127.0.0.1:{self.governance_port}", "ttl": "60s"},
            "rbac": {
                "providers": [
                    {
                        "name": "mpsa-idp",
                        "issuer": ISSUER,
                        "audiences": [AUDIENCE],
                        "algorithms": ["RS256"],
                        "public_key_file": str(self.token_key),
                    }
                ]
            },
        }


def replica_file(
    shared: Shared, service: str, *, port: int, app_port: int, allow: Section | None = None
) -> Section:
    """The configuration of an inbound sidecar: mutual TLS outside, the app inside.

    Args:
        shared: what all have in common.
        service: whose replica it is.
        port: where peers call.
        app_port: where the app listens.
        allow: what an ALLOW policy asks of callers; None allows every service of the mesh.
    """
    sections = shared.sections(service)
    if allow is not None:
        policy = {"name": f"{service}-callers", "action": "ALLOW", "services": [service], **allow}
        sections["rbac"]["policies"] = [policy]
    return {
        **sections,
        "listeners": [
            {
                "name": "peers",
                "host": "127.0.0.1",
                "port": port,
                "direction": "inbound",
                "tls": "strict",
                "app": f"http://127.0.0.1:{app_port}",
            }
        ],
    }


VERIFY_ONLY: Section = {
    "methods": ["GET"],
    "paths": ["/verify-id"],
    "callers": [CALLER],
    "roles": [ROLE],
}
"""Who may call Auth-SVC: Claims-SVC, for a program manager, to verify an identity."""


class Overlay:
    """The file beside the seed's for Claims-SVC's sidecar; it grows as the tour goes on.

    Args:
        shared: what all sidecars have in common.
        replicas: ports of Auth-SVC's sidecars.
        routes: of the seed's listener, as its file has them: an overlay's routes replace them whole.
    """

    def __init__(self, shared: Shared, replicas: Sequence[int], routes: Sequence[Section]) -> None:
        self._content: Section = {
            **shared.sections("claims-svc"),
            "clusters": [
                {
                    "name": "auth-svc",
                    "endpoints": [_endpoint(port) for port in replicas],
                    "outlier_detection": {
                        "consecutive_gateway_failure": 2,
                        "base_ejection_time": f"{EJECTION_SECONDS}s",
                        "max_ejection_time": f"{EJECTION_SECONDS + 1}s",
                    },
                }
            ],
        }
        self._routes = [copy.deepcopy(dict(route)) for route in routes]

    def text(self, note: str = "") -> str:
        """As YAML, with `note` at its head."""
        head = "# Claims-SVC's overlay: what this machine adds to the seed's routes.yaml.\n"
        if note:
            head += f"# {note}\n"
        return head + to_yaml(self._content)

    def add_payments(self, port: int) -> Section:
        """Add the route to Payments-SVC, and the cluster that it leads to. Returns the route."""
        route = {
            "match": {"prefix": "/reimburse", "methods": ["POST"]},
            "action": {"cluster": "payments-svc", "timeout": "2s"},
        }
        self._routes.append(route)
        self._content["listeners"] = [{"name": LISTENER, "routes": self._routes}]
        self._add_cluster("payments-svc", port)
        return route

    def limit_payments(self, limit: Section | None) -> Section:
        """Give the route to Payments-SVC a rate limit, or none. Returns the route's action."""
        action: Section = self._routes[-1]["action"]
        action.pop("rate_limit", None)
        if limit is not None:
            action["rate_limit"] = limit
        return action

    def shape_payments(self, standby: int, following: int) -> Section:
        """Give the route to Payments-SVC a mirror, a standby and a fallback.

        Args:
            standby: port of the sidecar that takes over.
            following: port of the next version, which is called in plain text.

        Returns:
            What has changed, for people.
        """
        action = {
            "retries": 1,
            "mirror": {"cluster": "payments-next", "percent": 100},
            "fallback": {"response": {"status": 202, "body": '{"queued": true}'}},
        }
        self._routes[-1]["action"] |= action
        self._content["clusters"][-1] |= {
            "outlier_detection": {
                "consecutive_gateway_failure": 1,
                "base_ejection_time": f"{EJECTION_SECONDS}s",
            },
            "failover": "payments-standby",
        }
        service = {"service": "payments-svc"}
        self._add_cluster("payments-standby", standby, **service)
        self._content["clusters"].append(
            {"name": "payments-next", **service, "endpoints": [_endpoint(following)]}
        )
        return {"action": action, "clusters": self._content["clusters"][-3:]}

    def move_listener(self, port: int) -> None:
        """Have the app-facing listener on another port."""
        self._content["listeners"] = [
            {"name": LISTENER, "port": port, "routes": self._routes},
        ]

    def broken_text(self) -> str:
        """What a slip of the pen makes of it: a misspelt key in the last cluster."""
        content = copy.deepcopy(self._content)
        content["clusters"][-1]["conect_timeout"] = "1s"
        return to_yaml(content)

    def _add_cluster(self, name: str, port: int, **more: str) -> None:
        cluster = {"name": name, "tls_context": {"sds": SECRET}, "endpoints": [_endpoint(port)]}
        self._content["clusters"].append(cluster | more)


def to_yaml(content: object) -> str:
    """As a person would write it: in order, short things on one line."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100, default_flow_style=None)


class _Dumper(yaml.SafeDumper):
    """Writes a thing that occurs twice out in full, without anchors."""

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _endpoint(port: int) -> str:
    return f"127.0.0.1:{port}"
