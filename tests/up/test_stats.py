from __future__ import annotations

import math

import pytest

from hms_addons.up.stats import Row, Sample, row, sample

TEXT = """\
# TYPE hms_requests counter
hms_requests_total{{direction="inbound",code="200"}} {good}
hms_requests_total{{direction="outbound",code="503"}} {bad}
# TYPE hms_request_duration_seconds histogram
hms_request_duration_seconds_bucket{{direction="inbound",le="0.1"}} {fast}
hms_request_duration_seconds_bucket{{direction="inbound",le="1.0"}} {slow}
hms_request_duration_seconds_bucket{{direction="inbound",le="+Inf"}} {all}
# TYPE hms_breaker_open gauge
hms_breaker_open{{cluster="auth"}} 1
hms_breaker_open{{cluster="pay"}} 0
# TYPE hms_config_sync_state gauge
hms_config_sync_state{{state="in sync"}} 1
# TYPE hms_certificate_expiry_timestamp_seconds gauge
hms_certificate_expiry_timestamp_seconds{{secret="a"}} 7200
hms_certificate_expiry_timestamp_seconds{{secret="b"}} 9000
"""


def at(moment: float, good: int, bad: int, fast: int, slow: int) -> Sample:
    text = TEXT.format(good=good, bad=bad, fast=fast, slow=slow, all=good + bad)
    return sample(text, moment)


def test_a_row_is_what_happened_between_two_samples() -> None:
    found = row("a-1", "ready", "", at(10, 100, 0, 100, 100), at(12, 106, 2, 104, 108), 0)
    assert found == Row("a-1", "ready", 4.0, 0.25, 1.0, ("auth",), "2 h", "in sync", "")


@pytest.mark.parametrize(
    ("fast", "slow", "p99"), [(100, 100, 0.1), (98, 100, 1.0), (0, 0, math.inf)]
)
def test_the_99th_percentile_is_a_buckets_bound(fast: int, slow: int, p99: float) -> None:
    assert row("a", "", "", at(0, 0, 0, 0, 0), at(1, 100, 0, fast, slow), 0).p99 == p99


def test_without_requests_there_is_no_percentile_and_no_error() -> None:
    found = row("a", "", "", at(0, 5, 5, 5, 5), at(1, 5, 5, 5, 5), 0)
    assert (found.rate, found.errors, found.p99) == (0.0, 0.0, None)


def test_a_sidecar_that_was_started_again_has_no_negative_rate() -> None:
    assert row("a", "", "", at(0, 50, 0, 0, 0), at(1, 5, 0, 0, 0), 0).rate is None
    assert row("a", "", "", None, at(1, 5, 0, 0, 0), 0).rate is None
    assert row("a", "waiting", "x", at(0, 1, 0, 0, 0), None, 0) == Row("a", "waiting", address="x")


def test_an_expired_certificate_is_told() -> None:
    assert row("a", "", "", None, at(0, 0, 0, 0, 0), 14400).certificate == "expired 2 h ago"
