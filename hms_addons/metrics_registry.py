"""Who has something to tell Prometheus, and the text that it is given.

A collector is prometheus_client's: an object whose `collect()` yields metric families. They are asked
when somebody scrapes, so what can be worked out then costs a request nothing. One that fails, or tells
what cannot be written, is left out and counted; the others are still told.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Callable, Iterable

logger = logging.getLogger(__name__)

COLLECT: Final = "collect"
"""Stands for a hook's name where a collector's failures are counted."""
_OPEN_METRICS_END: Final = b"# EOF\n"


class Collector(Protocol):
    """What tells of metrics: prometheus_client's own `Counter`, `Gauge`, …, or anything like them."""

    def collect(self) -> Iterable[Any]:
        """The families (`prometheus_client.core.Metric`) as they are now. Must be quick.

        Where it is a generator the event loop goes on between two families, so that a long exposition
        makes no request wait: keep no iterator over what may change.
        """


class Exposition(NamedTuple):
    """An answer to a scrape."""

    content_type: str
    body: bytes


class _Family:
    """One family, as the library's writers want it."""

    __slots__ = ("_metric",)

    def __init__(self, metric: Any) -> None:
        self._metric = metric

    def collect(self) -> Iterable[Any]:
        return (self._metric,)


class MetricsRegistry:
    """The collectors of one sidecar.

    Args:
        errors: where failures are counted, by plugin and hook.
    """

    def __init__(self, errors: Counter[tuple[str, str]]) -> None:
        self._errors = errors
        self._collectors: list[tuple[str, Collector]] = []
        self._library: Any = None

    def __repr__(self) -> str:
        return f"<MetricsRegistry {', '.join(name for name, _ in self._collectors)}>"

    def add(self, name: str, collector: Collector) -> None:
        """Ask `collector` at each scrape; `name` is its plugin's, for when it fails."""
        self._collectors.append((name, collector))

    async def render(self, accept: str = "") -> Exposition:
        """All metrics, in the format that the scraper's `Accept` prefers.

        The event loop gets its turn between two families. Of two families with one name the first
        is told, as Prometheus would refuse the whole scrape.
        """
        if self._library is None:
            # Not before somebody asks, and in a thread: the library takes a while to load.
            name = "prometheus_client.exposition"
            self._library = await asyncio.to_thread(importlib.import_module, name)
        write, content_type = self._library.choose_encoder(accept)
        parts: list[bytes] = []
        told: set[str] = set()
        for name, collector in self._collectors:
            try:
                for metric in collector.collect():
                    parts.append(_written(metric, told, write))
                    await asyncio.sleep(0)
            except Exception as error:  # noqa: BLE001 - whatever it is, the others are still told
                self._count(name, error)
        if "openmetrics" in content_type:
            parts.append(_OPEN_METRICS_END)
        return Exposition(content_type, b"".join(parts))

    def _count(self, name: str, error: Exception) -> None:
        self._errors[name, COLLECT] += 1
        count = self._errors[name, COLLECT]
        if count & (count - 1) == 0:  # as in the hook chain: a scrape must not fill a disk
            logger.error(
                "plugin %s failed to tell its metrics (%d so far): %r",
                name,
                count,
                error,
                exc_info=error,
            )


def _written(metric: Any, told: set[str], write: Callable[[Any], bytes]) -> bytes:
    """The text of one family; its names go to `told`.

    Raises:
        ValueError: another family has told of such a name.
    """
    text = write(_Family(metric)).removesuffix(_OPEN_METRICS_END)
    names = {metric.name, *(sample.name for sample in metric.samples)}
    if not told.isdisjoint(names):
        message = f"the metric {metric.name} has been told already; give it a name of its own"
        raise ValueError(message)
    told |= names
    return text
