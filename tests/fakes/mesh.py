"""What plugins ask of the running sidecar, without one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Callable

    from hms_addons.hookspecs import Mesh
    from hms_addons.metrics_registry import Collector


class FakeMesh:
    """Keeps what plugins have to tell; `mesh` is what they are given."""

    def __init__(self) -> None:
        self._status: dict[str, Callable[[], Any]] = {}
        self._collectors: dict[str, Collector] = {}

    @property
    def mesh(self) -> Mesh:
        return cast("Mesh", self)

    def add_status(self, name: str, show: Callable[[], Any]) -> None:
        self._status[name] = show

    def add_metrics(self, name: str, collector: Collector) -> None:
        self._collectors[name] = collector

    def measured(self, name: str) -> dict[tuple[str, ...], float]:
        """What `/metrics` would tell of the plugin `name`: values by metric and label values."""
        return {
            (sample.name, *sample.labels.values()): sample.value
            for metric in self._collectors[name].collect()
            for sample in metric.samples
        }

    def shown(self, name: str) -> Any:
        """What `status()` would tell under `name`."""
        return self._status[name]()
