from __future__ import annotations

from hms_addons.control.metrics import ControlMetrics


def test_what_was_counted_is_told_in_prometheus_format() -> None:
    metrics = ControlMetrics()
    metrics.svids.labels("join token").inc()
    metrics.pushes_refused.inc()
    text = metrics.text().decode()
    assert 'hms_control_svids_signed_total{credential="join token"} 1.0' in text
    assert "hms_control_config_rejected_total 1.0" in text
    assert repr(metrics) == "<ControlMetrics>"


def test_a_gauge_is_read_when_somebody_asks() -> None:
    metrics = ControlMetrics()
    revision = 3
    metrics.observe("hms_control_store_revision", "Of the store.", lambda: revision)
    assert "hms_control_store_revision 3.0" in metrics.text().decode()
    revision = 4
    assert "hms_control_store_revision 4.0" in metrics.text().decode()


def test_each_control_plane_counts_for_itself() -> None:
    one, other = ControlMetrics(), ControlMetrics()
    one.watchers.inc()
    assert "hms_control_watchers 1.0" in one.text().decode()
    assert "hms_control_watchers 0.0" in other.text().decode()
