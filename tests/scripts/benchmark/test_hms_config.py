from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import yaml

from hms_addons.config.check import check_files
from scripts.benchmark import credentials as creds
from scripts.benchmark import hms_config
from scripts.benchmark.job import ALL_ROUTES, Job, Task

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def credentials(tmp_path_factory: pytest.TempPathFactory) -> creds.Credentials:
    return creds.create(tmp_path_factory.mktemp("credentials"))


def problems(document: hms_config.Document, directory: Path) -> str:
    file = directory / "hms.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    result = check_files([file])
    return "" if result.ok else result.to_text()


@pytest.mark.parametrize("task", [Task.PLAIN, Task.POLICY])
@pytest.mark.parametrize("routes", [None, 1, ALL_ROUTES])
def test_a_hops_file_is_what_hms_check_accepts(
    task: Task, routes: int | None, credentials: creds.Credentials, tmp_path: Path
) -> None:
    job = Job(task, 9001, routes)
    document = hms_config.hop(15001, job, "http://127.0.0.1:9100", credentials)
    assert problems(document, tmp_path) == ""
    assert len(document["listeners"][0]["routes"]) == (routes or 1)


def test_a_pairs_files_are_what_hms_check_accepts(
    credentials: creds.Credentials, tmp_path: Path
) -> None:
    job = Job(Task.PAIR, 9001)
    outbound, inbound = hms_config.pair((15001, 15006), job, credentials)
    assert problems(outbound, tmp_path) == ""
    assert problems(inbound, tmp_path) == ""
    assert outbound["clusters"][0]["endpoints"] == ["127.0.0.1:15006"]
    assert inbound["listeners"][0]["tls"] == "strict"


def test_the_policy_job_has_the_whole_chain(credentials: creds.Credentials) -> None:
    document = hms_config.hop(15001, Job(Task.POLICY, 9001), "http://gov", credentials)
    assert document["governance"]["url"] == "http://gov"
    assert document["rbac"]["providers"][0]["algorithms"] == ["RS256"]
    assert document["rbac"]["policies"][0]["roles"] == [creds.ROLE]
    assert document["listeners"][0]["routes"][0]["action"]["retries"] == 2
    assert "outlier_detection" in document["clusters"][0]
