"""Collectors are asked at each scrape; one that fails costs its own metrics, never the scrape."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client import CollectorRegistry, Gauge
from prometheus_client import Counter as PrometheusCounter
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as plain_text

from hms_addons.metrics_registry import MetricsRegistry

if TYPE_CHECKING:
    from collections.abc import Iterable

OPEN_METRICS = "application/openmetrics-text; version=1.0.0,text/plain;version=0.0.4;q=0.5"


class Scripted:
    """A collector that does what it is told."""

    def __init__(self, *found: Any) -> None:
        self.found = found

    def collect(self) -> Iterable[Any]:
        for one in self.found:
            if isinstance(one, Exception):
                raise one
            yield one


def gauge(name: str, value: float = 1) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, "About it.", value=value)


@pytest.fixture
def errors() -> Counter[tuple[str, str]]:
    return Counter()


async def names(registry: MetricsRegistry) -> list[str]:
    found = await registry.render()
    return [family.name for family in plain_text(found.body.decode())]


async def test_the_librarys_own_metrics_are_collectors(errors: Counter[tuple[str, str]]) -> None:
    registry = MetricsRegistry(errors)
    counter = PrometheusCounter("stamps", "Stamped.", ("kind",), registry=None)
    registry.add("stamp", counter)
    own = CollectorRegistry()
    registry.add("other", own)
    Gauge("other_things", "Things.", registry=own).set(3)
    counter.labels("new\nline").inc()
    found = await registry.render()
    assert found.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert b'stamps_total{kind="new\\nline"} 1.0\n' in found.body
    assert b"other_things 3.0\n" in found.body
    assert repr(registry) == "<MetricsRegistry stamp, other>"
    assert not errors


async def test_open_metrics_where_the_scraper_prefers_it(errors: Counter[tuple[str, str]]) -> None:
    registry = MetricsRegistry(errors)
    registry.add("a", Scripted(gauge("one"), gauge("two")))
    registry.add("b", PrometheusCounter("three", "Counted.", registry=None))
    found = await registry.render(OPEN_METRICS)
    assert found.content_type.startswith("application/openmetrics-text; version=1.0.0")
    assert found.body.count(b"# EOF\n") == 1
    families = open_metrics(found.body.decode())  # type: ignore[no-untyped-call]
    assert [family.name for family in families] == ["one", "two", "three"]


async def test_one_that_fails_is_left_out_and_counted(
    errors: Counter[tuple[str, str]], caplog: pytest.LogCaptureFixture
) -> None:
    registry = MetricsRegistry(errors)
    registry.add("bad", Scripted(gauge("before"), RuntimeError("no database")))
    registry.add("unwritable", Scripted(GaugeMetricFamily("odd", "Odd.", value=None), object()))
    registry.add("good", Scripted(gauge("after")))
    for _ in range(3):
        assert await names(registry) == ["before", "odd", "after"]
    assert errors == {("bad", "collect"): 3, ("unwritable", "collect"): 3}
    assert caplog.text.count("plugin bad failed to tell its metrics") == 2, "the 1st and the 2nd"


async def test_of_two_with_one_name_the_first_is_told(errors: Counter[tuple[str, str]]) -> None:
    registry = MetricsRegistry(errors)
    registry.add("first", Scripted(gauge("same", 1)))
    registry.add("second", Scripted(gauge("same", 2), gauge("other")))
    registry.add("third", PrometheusCounter("clash", "As a gauge below.", registry=None))
    registry.add("fourth", Scripted(gauge("clash_total")))
    body = (await registry.render()).body
    assert b"same 1.0\n" in body
    assert b"same 2.0\n" not in body
    assert body.count(b"clash_total 0.0\n") == 1
    assert errors == {("second", "collect"): 1, ("fourth", "collect"): 1}


async def test_the_loop_goes_on_between_two_families(errors: Counter[tuple[str, str]]) -> None:
    registry = MetricsRegistry(errors)
    registry.add("many", Scripted(*(gauge(f"number_{n}") for n in range(100))))
    await registry.render()  # has the library loaded
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.get_running_loop().create_task(others())
    await registry.render()
    task.cancel()
    assert turns >= 100
