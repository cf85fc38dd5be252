from __future__ import annotations

import pytest
from pydantic import TypeAdapter, ValidationError

from hms_addons.config.schema_values import ValueCondition, ValueModel

CONDITION: TypeAdapter[ValueModel] = TypeAdapter(ValueCondition)


def test_a_text_is_an_exact_value() -> None:
    assert CONDITION.validate_python("a") == ValueModel(exact="a")


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1, "expected a text or a mapping with exact, regex or present, not 1"),
        ({}, "give exactly one of exact, regex and present"),
        ({"exact": "a", "present": True}, "give exactly one of exact, regex and present"),
    ],
)
def test_what_is_no_condition_is_refused(value: object, why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        CONDITION.validate_python(value)
