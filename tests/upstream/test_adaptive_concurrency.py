"""The gradient limit: shrinks when latency grows, recovers, and never leaves its bounds."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hms_addons.config.snapshot_health import AdaptiveConcurrency
from hms_addons.upstream.adaptive_concurrency import GradientController

SETTINGS = AdaptiveConcurrency(min_rtt_requests=5, min_rtt_jitter=0.0, min_rtt_interval=1000.0)


class Rig:
    """A controller, and the time that its requests take."""

    def __init__(self, settings: AdaptiveConcurrency = SETTINGS, seed: int = 7) -> None:
        self.now = 100.0
        self.settings = settings
        self.controller = GradientController(settings, random.Random(seed))

    def request(self, latency: float) -> None:
        """Requests end at a steady 100 a second, however long each takes."""
        self.now += 0.01
        self.controller.record(self.now - latency, self.now)

    def window(self, latency: float) -> int:
        """A window's worth of requests; the limit after it."""
        for _ in range(round(self.settings.update_interval / 0.01) + 1):
            self.request(latency)
        return self.controller.limit

    def measure(self, latency: float) -> None:
        assert self.controller.measuring
        while self.controller.measuring:
            self.request(latency)


def test_the_first_requests_measure_the_ideal_at_the_minimum() -> None:
    rig = Rig()
    for _ in range(4):
        rig.request(0.01)
        assert (rig.controller.limit, rig.controller.measuring) == (3, True)
    rig.request(0.01)
    assert not rig.controller.measuring
    assert rig.controller.describe() == {
        "limit": 3,
        "measuring": False,
        "min_rtt_seconds": 0.01,
        "sample_rtt_seconds": None,
    }


def test_one_window_by_hand() -> None:
    """Gradient 0.01 * 1.25 / 0.01 = 1.25; 3 * 1.25 = 3.75; and its root, 1.94: 5."""
    rig = Rig()
    rig.measure(0.01)
    assert rig.window(0.01) == 5
    # 5 * 1.25 = 6.25, + 2.5 = 8.75
    assert rig.window(0.01) == 8


def test_the_limit_grows_to_its_maximum_while_latency_is_ideal() -> None:
    rig = Rig(replace(SETTINGS, max_limit=200))
    rig.measure(0.01)
    limits = [rig.window(0.01) for _ in range(40)]
    assert limits == sorted(limits)
    assert limits[-1] == 200


def test_the_limit_shrinks_when_latency_grows_and_recovers() -> None:
    rig = Rig(replace(SETTINGS, max_limit=400))
    rig.measure(0.01)
    for _ in range(30):
        rig.window(0.01)
    full = rig.controller.limit
    shrinking = [rig.window(0.1) for _ in range(6)]
    assert shrinking == sorted(shrinking, reverse=True)
    assert shrinking[-1] < full / 10
    recovered = [rig.window(0.01) for _ in range(30)]
    assert recovered[-1] == full


def test_one_window_at_most_halves_or_doubles_it_apart_from_the_headroom() -> None:
    rig = Rig(replace(SETTINGS, max_limit=100_000))
    rig.measure(0.01)
    for _ in range(30):
        rig.window(0.01)
    before = rig.controller.limit
    assert rig.window(50.0) == int(before * 0.5 + math.sqrt(before * 0.5))
    before = rig.controller.limit
    assert rig.window(0.000001) == int(before * 2 + math.sqrt(before * 2))


def test_latency_within_the_buffer_counts_as_none() -> None:
    rig = Rig(replace(SETTINGS, min_rtt_buffer=1.0))
    rig.measure(0.01)
    limits = [rig.window(0.019) for _ in range(10)]
    assert limits == sorted(limits)
    assert limits[-1] > 20


def test_the_percentile_decides_not_the_worst() -> None:
    rig = Rig(replace(SETTINGS, percentile=90))
    rig.measure(0.01)
    for slow, ninth in ((1, 0.01), (2, 0.04)):
        for latency in [*[0.04] * slow, *[0.01] * (9 - slow)]:
            rig.controller.record(rig.now - latency, rig.now)
        rig.now += 1  # the tenth ends the window
        rig.controller.record(rig.now - 0.01, rig.now)
        assert rig.controller.describe()["sample_rtt_seconds"] == pytest.approx(ninth)


def test_the_ideal_is_measured_anew_after_its_interval_and_the_limit_kept_for_afterwards() -> None:
    rig = Rig(replace(SETTINGS, min_rtt_interval=2.0))
    rig.measure(0.01)
    while not rig.controller.measuring:
        before = rig.controller.limit
        rig.request(0.01)
    assert before > 10
    assert rig.controller.limit == 3
    rig.measure(0.02)
    assert rig.controller.limit >= before
    assert rig.controller.describe()["min_rtt_seconds"] == 0.02


def test_the_interval_has_jitter() -> None:
    settings = replace(SETTINGS, min_rtt_interval=10.0, min_rtt_jitter=0.5)
    lengths = set()
    for seed in range(20):
        rig = Rig(settings, seed)
        rig.measure(0.01)
        began = rig.now
        while not rig.controller.measuring:
            rig.request(0.01)
        lengths.add(round(rig.now - began, 1))
        assert 9.9 <= rig.now - began <= 15.2
    assert len(lengths) > 10


def test_requests_from_before_a_measurement_say_nothing_in_it_or_after_it() -> None:
    rig = Rig(replace(SETTINGS, min_rtt_interval=1.0))
    rig.measure(0.01)
    while not rig.controller.measuring:
        rig.request(0.01)
    early = rig.now - 5.0
    for _ in range(20):
        rig.controller.record(early, rig.now)
    assert rig.controller.measuring
    rig.measure(0.01)
    limit = rig.controller.limit
    rig.now += 10
    rig.controller.record(early, rig.now)
    assert rig.controller.limit == limit


def test_five_windows_at_the_minimum_measure_the_ideal_anew() -> None:
    """The service has become slower for good: what was ideal is so no more."""
    rig = Rig()
    rig.measure(0.001)
    for _ in range(12):
        if rig.controller.measuring:
            break
        rig.window(1.0)
    assert rig.controller.measuring
    rig.measure(1.0)
    assert rig.window(1.0) > 3


def test_a_window_without_requests_changes_nothing() -> None:
    rig = Rig()
    rig.measure(0.01)
    limit = rig.window(0.01)
    rig.now += 500
    assert rig.controller.limit == limit


def test_a_busy_window_keeps_a_bounded_fair_sample() -> None:
    rig = Rig(replace(SETTINGS, update_interval=100.0, percentile=50.0))
    rig.measure(0.01)
    for number in range(50_000):  # latency grows all along: the median is that of the middle
        rig.controller.record(rig.now - number / 100_000, rig.now)
    assert len(rig.controller._samples) == 4096
    rig.now += 200
    rig.request(0.25)
    assert rig.controller.describe()["sample_rtt_seconds"] == pytest.approx(0.25, abs=0.02)


def test_new_settings_keep_what_was_learnt() -> None:
    rig = Rig()
    rig.measure(0.01)
    for _ in range(10):
        rig.window(0.01)
    assert rig.controller.limit > 50
    rig.controller.replace_settings(replace(SETTINGS, max_limit=50))
    assert rig.controller.limit == 50
    assert repr(rig.controller) == "<GradientController limit=50 minRTT 10.0ms>"


@given(
    latencies=st.lists(
        st.one_of(st.floats(0.0, 10.0), st.sampled_from([0.0, 1e-9, 0.01, 60.0])), max_size=200
    ),
    gaps=st.lists(st.floats(0.0, 2.0), min_size=1, max_size=50),
    least=st.integers(1, 20),
    room=st.integers(0, 500),
    requests=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_never_outside_its_bounds(
    latencies: list[float], gaps: list[float], least: int, room: int, requests: int, seed: int
) -> None:
    settings = AdaptiveConcurrency(
        min_limit=least,
        max_limit=least + room,
        min_rtt_requests=requests,
        min_rtt_interval=3.0,
    )
    controller = GradientController(settings, random.Random(seed))
    now = 0.0
    for number, latency in enumerate(latencies):
        now += gaps[number % len(gaps)]
        controller.record(now - latency, now)
        assert least <= controller.limit <= least + room
        assert not controller.measuring or controller.limit == least


@given(base=st.floats(0.001, 1.0), factor=st.floats(3.0, 50.0), seed=st.integers(0, 5))
def test_whatever_the_latency_growth_shrinks_it_and_its_end_restores_it(
    base: float, factor: float, seed: int
) -> None:
    rig = Rig(replace(SETTINGS, max_limit=300), seed)
    rig.measure(base)
    for _ in range(20):
        rig.window(base)
    assert rig.controller.limit == 300
    for _ in range(8):
        rig.window(base * factor)
    assert rig.controller.limit < 150
    for _ in range(20):
        if rig.controller.measuring:
            rig.measure(base)
        rig.window(base)
    assert rig.controller.limit == 300
