"""Warnings about outlier detection and health checks that can never do anything."""

from __future__ import annotations

from tests.fakes.configs import load_texts, warnings_of

LISTENER = "listeners: [{name: o, port: 1, routes: [{action: {cluster: a}}]}]\n"


def warnings(cluster: str) -> list[str]:
    return [
        w for w in warnings_of(f"{LISTENER}clusters: [{{name: a, {cluster}}}]") if "success" in w
    ]


def endpoints(count: int) -> str:
    return f"endpoints: [{', '.join(f"'h{n}:1'" for n in range(count))}]"


RATES = "outlier_detection: {success_rate: true}"


def test_a_comparison_among_too_few_is_told() -> None:
    (warning,) = warnings(f"{endpoints(4)}, {RATES}")
    assert "clusters[0].outlier_detection.success_rate: compares nobody: it needs 5" in warning
    assert "there are 4" in warning
    few = "outlier_detection: {success_rate: {minimum_hosts: 4}}"
    assert warnings(f"{endpoints(4)}, {few}") == []


def test_enough_endpoints_or_endpoints_that_may_join_are_fine() -> None:
    assert warnings(f"{endpoints(5)}, {RATES}") == []
    assert warnings(f"dns: 'h:1', {RATES}") == []
    loaded = load_texts(f"clusters: [{{name: a, {RATES}}}]", control=True)
    assert not [problem for problem in loaded.problems if "success" in str(problem)]
