"""Our sidecar's files for each job, and the command that runs one.

Every name of our own configuration language that the benchmark uses is in this module.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scripts.benchmark import credentials as creds
from scripts.benchmark.job import PATH, Job, Task

if TYPE_CHECKING:
    from scripts.benchmark.credentials import Credentials, KeyPair

Document = dict[str, Any]

_TIMEOUT = "60s"
_SECRET = "mesh_certs"  # noqa: S105 - the name of a secret, not its value


def command(config: Path, admin_port: int) -> list[str]:
    """The command line of one sidecar: `hms` beside the running Python, as pip installed it."""
    program = str(Path(sys.executable).with_name("hms"))
    return [program, "sidecar", "--config", str(config), "--admin", f"127.0.0.1:{admin_port}"]


def hop(port: int, job: Job, governance: str, credentials: Credentials) -> Document:
    """One sidecar on `port` that carries a plain or a policy job to the upstream."""
    policy = job.task is Task.POLICY
    cluster: Document = {"name": "auth-svc", "endpoints": [f"127.0.0.1:{job.upstream_port}"]}
    document = _outbound(port, job, cluster)
    if policy:
        cluster["outlier_detection"] = {"consecutive_5xx": 5, "base_ejection_time": "30s"}
        cluster["circuit_breakers"] = {"max_connections": 1024, "max_requests": 1024}
        for route in document["listeners"][0]["routes"]:
            route["action"]["retries"] = 2
        document["governance"] = {"url": governance, "ttl": "60s"}
        document["rbac"] = _rbac(credentials)
    return document


def pair(ports: tuple[int, int], job: Job, credentials: Credentials) -> tuple[Document, Document]:
    """Two sidecars, outbound on `ports[0]`, inbound on `ports[1]`, with mutual TLS between them."""
    cluster = {
        "name": "auth-svc",
        "endpoints": [f"127.0.0.1:{ports[1]}"],
        "tls_context": {"sds": _SECRET},
    }
    outbound = _outbound(ports[0], job, cluster)
    outbound["secrets"] = _secrets(credentials, credentials.caller)
    inbound = {
        "trust_domain": creds.TRUST_DOMAIN,
        "listeners": [
            {
                "name": "peers",
                "host": "127.0.0.1",
                "port": ports[1],
                "direction": "inbound",
                "tls": "strict",
                "app": f"http://127.0.0.1:{job.upstream_port}",
            }
        ],
        "secrets": _secrets(credentials, credentials.callee),
    }
    return outbound, inbound


def _outbound(port: int, job: Job, cluster: Document) -> Document:
    """The app-facing side: one listener whose routes all lead to `cluster`."""
    action = {"cluster": cluster["name"], "timeout": _TIMEOUT}
    return {
        "trust_domain": creds.TRUST_DOMAIN,
        "listeners": [
            {
                "name": "outbound",
                "port": port,
                "direction": "outbound",
                "routes": [
                    {"match": {"prefix": prefix}, "action": dict(action)} for prefix in job.prefixes
                ],
            }
        ],
        "clusters": [cluster],
    }


def _secrets(credentials: Credentials, own: KeyPair) -> Document:
    """The sidecar's own SVID and the bundle it trusts, as files."""
    return {
        _SECRET: {
            "certificate": str(own.certificate),
            "key": str(own.key),
            "bundle": str(credentials.bundle),
        }
    }


def _rbac(credentials: Credentials) -> Document:
    """Who issues tokens, and the one policy that admits them."""
    return {
        "providers": [
            {
                "name": "idp",
                "issuer": creds.ISSUER,
                "audiences": [creds.AUDIENCE],
                "algorithms": ["RS256"],
                "public_key_file": str(credentials.token_public_key),
                "role_claim": "role",
            }
        ],
        "policies": [
            {
                "name": "managers",
                "action": "ALLOW",
                "roles": [creds.ROLE],
                "methods": ["GET"],
                "paths": [f"{PATH}*"],
            }
        ],
    }
