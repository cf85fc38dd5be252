from __future__ import annotations

from hms_addons.config.field_docs import docs_of
from hms_addons.config.schema_base import Model


class Below(Model):
    """Not a field's."""

    first: int = 0
    """What it is.

    And more."""
    bare: int = 0
    again: int = 0
    """The base's word."""


class Above(Below):
    again: int = 1
    """Its own word."""
    last: str = ""

    def method(self) -> None:
        """Not a field's either."""


def test_each_field_has_the_string_below_it() -> None:
    assert docs_of(Below) == {"first": "What it is.\n\nAnd more.", "again": "The base's word."}


def test_inherited_fields_keep_theirs() -> None:
    assert docs_of(Above) == {"first": "What it is.\n\nAnd more.", "again": "Its own word."}


def test_they_describe_the_keys_of_a_json_schema() -> None:
    properties = Above.model_json_schema()["properties"]
    assert properties["again"]["description"] == "Its own word."
    assert "description" not in properties["last"]
