"""The scrape configuration as a file. That a real Prometheus scrapes by it, tests/integration/test_up.py shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from hms_addons.up.scraped import ScrapeFiles
from tests.integration.prometheus_kit import CONFIG, check_config

if TYPE_CHECKING:
    from pathlib import Path


def test_it_names_the_files_that_hms_up_writes_and_no_secret(tmp_path: Path) -> None:
    jobs = {one["job_name"]: one for one in yaml.safe_load(CONFIG.read_text())["scrape_configs"]}
    assert list(jobs) == ["hms-sidecars", "hms-control-plane"]
    files = ScrapeFiles(tmp_path / "mesh.yaml")
    for job in jobs.values():
        (sd,) = job["file_sd_configs"]
        assert sd["files"] == [f"../lost-package/.hms/{files.targets.name}"]
        assert not {"authorization", "basic_auth", "bearer_token"} & set(job)
    plane = jobs["hms-control-plane"]
    assert plane["scheme"] == "https"
    assert plane["tls_config"] == {"ca_file": f"../lost-package/.hms/{files.ca.name}"}


@pytest.mark.prometheus
def test_promtool_has_nothing_to_say_of_it() -> None:
    assert not check_config(CONFIG, "--syntax-only")
