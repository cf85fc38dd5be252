from __future__ import annotations

from typing import get_args

import pytest

from hms_addons.config.schema_access_log import AccessLogField
from hms_addons.config.snapshot_access_log import FIELDS
from tests.fakes.configs import errors_of, snapshot_of


def test_its_fields_are_those_that_can_be_written() -> None:
    assert get_args(AccessLogField.__value__) == FIELDS


@pytest.mark.parametrize("text", ["", "access_log: false"])
def test_there_is_none_unless_it_is_asked_for(text: str) -> None:
    assert snapshot_of(text).access_log is None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("access_log: yes please", "expected a mapping, or true"),
        ("access_log: {format: xml}", "access_log.format"),
        ("access_log: {sample: 1.5}", "access_log.sample"),
        ("access_log: {sample: -0.1}", "access_log.sample"),
        ("access_log: {path: ''}", "expected the path of a file, or stdout"),
        ("access_log: {path: logs/}", "expected the path of a file, or stdout"),
        ("access_log: {fields: [status, stauts]}", "access_log.fields[1]"),
        ("access_log: {fields: []}", "access_log.fields"),
        ("access_log: {headers: ['a b']}", "access_log.headers[0]"),
        ("access_log: {colour: red}", "access_log.colour"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    (error,) = errors_of(text)
    assert error.startswith("1.yaml:1:")
    assert told in error
