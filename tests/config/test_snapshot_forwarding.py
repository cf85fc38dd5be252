from __future__ import annotations

from hms_addons.config.snapshot_forwarding import FallbackKind, FallbackStep, Hedge


def test_the_defaults_are_those_of_the_documentation() -> None:
    assert Hedge(after=None) == Hedge(after=None, quantile=0.95, most=1)
    step = FallbackStep(kind=FallbackKind.RESPONSE, flags=frozenset(), statuses=frozenset())
    assert (step.status, step.fields, step.body, step.route) == (200, (), b"", None)
