from __future__ import annotations

from scripts.demonstration.replica import Replica


def test_a_replica_that_does_not_run_has_no_app() -> None:
    replica = Replica("auth-svc", "auth-1", 9, 9, 9, ["--config", "auth-1.yaml"])
    assert replica.app_pid() is None
    assert replica.command[:4] == ["hms", "sidecar", "--config", "auth-1.yaml"]
    assert "scripts.lost_package.auth_svc" in replica.command
