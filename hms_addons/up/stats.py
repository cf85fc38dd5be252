"""What a sidecar's `/metrics` says of it, as a row of the table."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from hms_addons.operator_client.outcome import when

if TYPE_CHECKING:
    from collections.abc import Mapping

BAD: Final = 500
"""Statuses from here on are errors; and 0, where there was no answer."""
P: Final = 0.99


@dataclass(slots=True)
class Sample:
    """A sidecar's counters at one moment."""

    at: float
    requests: float = 0.0
    errors: float = 0.0
    buckets: dict[float, float] = field(default_factory=dict)
    """How many took at most so many seconds."""
    breakers: list[str] = field(default_factory=list)
    """The clusters whose breaker is open."""
    expires: float | None = None
    """When the first of its certificates does, by the wall clock."""
    sync: str = ""
    """How it stands with the control plane."""


def sample(text: str, at: float) -> Sample:
    """What a scrape says.

    Args:
        text: in Prometheus' format.
        at: when it was asked for, by the monotonic clock.
    """
    from prometheus_client.parser import text_string_to_metric_families  # noqa: PLC0415 - seldom

    found = Sample(at)
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            _add(found, one.name, one.labels, one.value)
    return found


def _add(found: Sample, name: str, labels: Mapping[str, str], value: float) -> None:
    if name == "hms_requests_total":
        code = labels.get("code", "")
        found.requests += value
        found.errors += value * (code.startswith("5") or code == "0")
    elif name == "hms_request_duration_seconds_bucket":
        bound = float(labels["le"])
        found.buckets[bound] = found.buckets.get(bound, 0.0) + value
    elif name == "hms_breaker_open" and value:
        found.breakers.append(labels.get("cluster", ""))
    elif name == "hms_config_sync_state" and value:
        found.sync = labels.get("state", "")
    elif name == "hms_certificate_expiry_timestamp_seconds":
        found.expires = value if found.expires is None else min(found.expires, value)


@dataclass(frozen=True, slots=True)
class Row:
    """One instance in the table."""

    name: str
    state: str
    rate: float | None = None
    """Requests a second."""
    errors: float | None = None
    """The share of them that failed, 0 to 1."""
    p99: float | None = None
    """Seconds; None if there were no requests, infinite if it is longer than the longest bucket."""
    breakers: tuple[str, ...] = ()
    certificate: str = ""
    sync: str = ""
    """`in sync`, `refused` or `out of touch`, as it says of itself and the control plane."""
    address: str = ""


def row(name: str, state: str, address: str, old: Sample | None, new: Sample | None, now: float) -> Row:  # fmt: skip
    """What happened between two samples of an instance.

    Args:
        name, state, address: of the instance.
        old, new: the samples; none while it does not answer.
        now: by the wall clock.
    """
    if new is None:
        return Row(name, state, address=address)
    certificate = "" if new.expires is None else when(new.expires, now)
    if new.expires is not None and new.expires <= now:
        certificate = f"expired {certificate} ago"
    shown = Row(
        name,
        state,
        breakers=tuple(new.breakers),
        certificate=certificate,
        sync=new.sync,
        address=address,
    )
    # Fewer than before: the sidecar has been started again.
    if old is None or old.at >= new.at or new.requests < old.requests:
        return shown
    requests = new.requests - old.requests
    errors = new.errors - old.errors
    return replace(
        shown,
        rate=requests / (new.at - old.at),
        errors=errors / requests if requests else 0.0,
        p99=_quantile(old.buckets, new.buckets),
    )


def _quantile(old: Mapping[float, float], new: Mapping[float, float]) -> float | None:
    """The bound that 99% of the requests between two samples were within."""
    counts = sorted((bound, count - old.get(bound, 0.0)) for bound, count in new.items())
    total = counts[-1][1] if counts else 0.0
    if total <= 0:
        return None
    return next((bound for bound, count in counts if count >= P * total), math.inf)
