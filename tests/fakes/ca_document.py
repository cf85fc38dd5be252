"""What `GET /v1/ca` answers, by the `FakeClock`'s time."""

from __future__ import annotations

from typing import Any

from tests.fakes.clock import FakeClock

NOW = FakeClock().wall()
DAY = 86400.0

ROOT = {
    "pin": "sha256:" + "ab" * 32,
    "not_after": NOW + 3650 * DAY,
    "signs": True,
    "intermediate": {"serial": "cd" * 16, "not_after": NOW + 365 * DAY},
}
CA: dict[str, Any] = {
    "trust_domain": "mpsa.mil",
    "pin": ROOT["pin"],
    "next_pin": None,
    "phase": "steady",
    "since": NOW,
    "until": None,
    "bundle_sequence": 1,
    "waiting_for": [],
    "svid_lifetime": DAY,
    "roots": [ROOT],
}
ROTATING = {
    **CA,
    "next_pin": "sha256:" + "ef" * 32,
    "phase": "announced",
    "until": NOW + DAY,
    "waiting_for": ["a1b2", "c3d4"],
    "roots": [ROOT, {**ROOT, "pin": "sha256:" + "ef" * 32, "signs": False}],
}
