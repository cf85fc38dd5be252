"""A sidecar as the window's commands see it: real clusters and a real snapshot, no ports."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING, Any

from hms_addons.errors import ConfigError
from hms_addons.upstream.cluster_manager import ClusterManager
from tests.fakes.clock import FakeClock
from tests.fakes.configs import snapshot_of

if TYPE_CHECKING:
    from hms_addons.config.snapshot import Snapshot

CONFIG = """
listeners:
  - name: out
    port: 15001
    routes: [{ name: verify, match: { prefix: /verify-id }, action: { cluster: auth-svc } }]
clusters:
  - { name: auth-svc, endpoints: ["127.0.0.1:9001", "127.0.0.1:9002"] }
  - { name: auth-svc-v2, trafficPolicy: weight=10, endpoints: ["127.0.0.1:9003"] }
"""


class HandSidecar:
    """`bad` refuses configurations; `applied` is called as the real one's `on_applied` is."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.upstream = ClusterManager(self.clock, Random(1), lambda _name: None)
        self.snapshot: Snapshot | None = None
        self.bad = False
        self.on_applied: Any = lambda: None
        self.apply_now(snapshot_of(CONFIG))

    def apply_now(self, snapshot: Snapshot) -> None:
        if self.bad:
            raise ConfigError("a plugin refused it")
        self.snapshot = snapshot
        self.upstream.apply(snapshot)
        self.on_applied()

    def clusters(self) -> list[dict[str, Any]]:
        return self.upstream.describe()
