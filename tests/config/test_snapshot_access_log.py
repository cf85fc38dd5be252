from __future__ import annotations

from hms_addons.config.snapshot_access_log import DEFAULT_FIELDS, FIELDS, NOT_BY_DEFAULT, AccessLog


def test_what_may_be_private_is_not_written_unless_asked_for() -> None:
    assert {"query", "subject"} == NOT_BY_DEFAULT
    assert AccessLog().fields == DEFAULT_FIELDS
    assert set(DEFAULT_FIELDS) | NOT_BY_DEFAULT == set(FIELDS)
    assert len(set(FIELDS)) == len(FIELDS)
