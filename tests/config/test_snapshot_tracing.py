from __future__ import annotations

from hms_addons.config.snapshot_tracing import DEFAULT_SAMPLE, Tracing


def test_one_in_ten_is_recorded_unless_something_else_is_said() -> None:
    spec = Tracing(url="http://127.0.0.1:4318/v1/traces")
    assert (spec.sample, spec.timeout) == (DEFAULT_SAMPLE, 10.0) == (0.1, 10.0)
    assert spec == Tracing(url="http://127.0.0.1:4318/v1/traces")
