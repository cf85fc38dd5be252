from __future__ import annotations

from pathlib import Path

import pytest

from hms_addons.config.load import load
from hms_addons.config.snapshot import AuditLog
from tests.fakes.configs import errors_of, load_texts, snapshot_of, warnings_of


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("{path: stdout}", AuditLog(path="stdout")),
        ("{path: /var/a.log, decisions: all}", AuditLog(path="/var/a.log")),
        ("{path: /var/a.log, decisions: denied}", AuditLog(path="/var/a.log", denied_only=True)),
        ("{path: logs/a.log}", AuditLog(path=str(Path("logs/a.log").absolute()))),
    ],
)
def test_where_decisions_are_written(text: str, spec: AuditLog) -> None:
    assert snapshot_of(f"rbac: {{audit_log: {text}}}").rbac.audit_log == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", "rbac.audit_log: the key 'path' is missing"),
        ("{path: ''}", "rbac.audit_log.path: expected the path of a file, or stdout"),
        ("{path: /var/}", "rbac.audit_log.path: expected the path of a file, or stdout"),
        (
            "{path: a, decisions: none}",
            "rbac.audit_log.decisions: expected all or denied, not 'none'",
        ),
        (
            "{path: a, file: b}",
            "rbac.audit_log.file: unknown key 'file'; known here: decisions, path",
        ),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    (found,) = errors_of(f"rbac: {{audit_log: {text}}}")
    assert found.split(": ", 1)[1] == message


def test_a_folder_that_is_not_there_is_told() -> None:
    found = warnings_of("rbac: {audit_log: {path: /nope/a.log}}")
    assert any("rbac.audit_log.path: there is no folder /nope" in line for line in found)
    assert not any("no folder" in line for line in warnings_of("rbac: {audit_log: {path: stdout}}"))


def test_a_relative_path_is_not_pushed() -> None:
    loaded = load([("a.yaml", b"rbac: {audit_log: {path: a.log}}")], control=True)
    assert "'a.log' is relative" in str(loaded.problems)
    assert not load_texts("rbac: {audit_log: {path: stdout}}", control=True).problems
