from __future__ import annotations

from pathlib import Path

from hms_addons.config.load import load
from hms_addons.config.snapshot_access_log import DEFAULT_FIELDS, AccessLog
from tests.fakes.configs import snapshot_of, warnings_of


def test_true_is_the_default_log() -> None:
    assert snapshot_of("access_log: true").access_log == AccessLog(
        path="stdout", as_json=True, sample=1.0, fields=DEFAULT_FIELDS, headers=()
    )


def test_all_that_can_be_said() -> None:
    text = """
    access_log:
      format: text
      path: logs/access.log
      sample: 0.1
      fields: [status, path, status]
      headers: [X-Tier, x-tier, User-Agent]
    """
    assert snapshot_of(text).access_log == AccessLog(
        path=str(Path("logs/access.log").absolute()),
        as_json=False,
        sample=0.1,
        fields=("status", "path"),
        headers=("x-tier", "user-agent"),
    )


def test_a_later_file_changes_some_of_it_or_switches_it_off() -> None:
    first = "access_log: {sample: 0.1, path: stdout}"
    merged = snapshot_of(first, "access_log: {sample: 1}").access_log
    assert merged == AccessLog(sample=1.0)
    assert snapshot_of(first, "access_log: false").access_log is None


def test_a_folder_that_is_not_there_is_warned_of() -> None:
    told = warnings_of("access_log: {path: /not/there/access.log}")
    assert any("access_log.path: there is no folder /not/there" in warning for warning in told)


def test_what_is_pushed_for_many_machines_names_no_relative_file() -> None:
    loaded = load([("mesh.yaml", b"access_log: {path: logs/a}")], control=True)
    assert loaded.snapshot is None
    (problem,) = loaded.problems
    assert "'logs/a' is relative, but written on the sidecars' machines" in str(problem)
    loaded = load([("mesh.yaml", b"access_log: {path: /var/log/a}")], control=True)
    assert loaded.snapshot is not None
