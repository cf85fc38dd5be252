"""A real Prometheus that scrapes a mesh of `hms up` as configs/prometheus/prometheus.yml has it."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import httpx

from tests.integration.basics import ROOT, free_port
from tests.integration.processes import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONFIG = ROOT / "configs" / "prometheus" / "prometheus.yml"
DASHBOARD = ROOT / "configs" / "grafana" / "hms-mesh.json"
MESH = "../lost-package/.hms/"
"""The folder of the mesh in it."""
WINDOW = "10s"
"""Stands for Grafana's own choice."""


def config_for(folder: Path) -> str:
    """The scrape configuration, for the mesh beside whose file `folder` (`.hms`) is, and in a hurry."""
    text = CONFIG.read_text()
    assert text.count(MESH) == 3
    hurried = text.replace("scrape_interval: 5s", "scrape_interval: 1s")
    hurried = hurried.replace("scrape_timeout: 4s", "scrape_timeout: 1s")
    assert hurried.count(": 1s") == 2
    return hurried.replace(MESH, f"{folder}/")


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the dashboard, with its panel's title; all services, both directions."""
    dashboard = json.loads(DASHBOARD.read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            text = target["expr"].replace("$__rate_interval", WINDOW)
            for variable in ("$service", "$direction"):
                text = text.replace(variable, ".*")
            assert "$" not in text, text
            yield panel["title"], text


class Prometheus(Program):
    """A running Prometheus, with data of its own.

    Args:
        folder: for its configuration and data.
        mesh: the folder `.hms` of a mesh that is up.
    """

    def __init__(self, folder: Path, mesh: Path) -> None:
        config = folder / "prometheus.yml"
        config.write_text(config_for(mesh))
        self.port = free_port()
        self._http = httpx.Client(
            base_url=f"http://127.0.0.1:{self.port}/api/v1", trust_env=False, timeout=10
        )
        super().__init__(
            "prometheus",
            f"--config.file={config}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{self.port}",
            "--storage.tsdb.retention.size=50MB",
            "--log.level=warn",
        )

    def close(self) -> None:
        super().close()
        self._http.close()

    def ask(self, path: str, **parameters: str) -> Any:
        """The `data` of an answer of its API; None while it gives none."""
        try:
            answer = self._http.get(path, params=parameters)
        except httpx.TransportError:
            return None
        if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE:
            return None  # it is starting, or replays its log
        document = answer.json()
        assert document["status"] == "success", (parameters, document)
        return document["data"]

    def query(self, text: str) -> list[dict[str, Any]]:
        """The samples of a query, now; those that are numbers."""
        found = self.ask("/query", query=text)
        return [one for one in (found or {"result": []})["result"] if one["value"][1] != "NaN"]

    def targets(self) -> dict[str, str]:
        """The health of each target, by its instance; and why it is ill."""
        found = self.ask("/targets", state="active") or {"activeTargets": []}
        return {
            one["labels"]["instance"]: one["lastError"] or one["health"]
            for one in found["activeTargets"]
        }

    def without_data(self) -> list[str]:
        """The dashboard's queries that give nothing."""
        return [f"{title}: {text}" for title, text in queries() if not self.query(text)]


def check_config(path: Path, *options: str) -> str:
    """What promtool says of a scrape configuration; empty if it is good."""
    done = subprocess.run(
        ["promtool", "check", "config", *options, path],
        capture_output=True,
        encoding="utf-8",
        timeout=30,
        check=False,
    )
    return done.stdout + done.stderr if done.returncode else ""
