"""Conditions on header fields and query parameters, from what users write to what is asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.config.route_match import ValueMatch
from hms_addons.config.safe_regex import compile_regex

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.config.schema_values import ValueModel


def compile_values(models: Mapping[str, ValueModel]) -> tuple[ValueMatch, ...]:
    """The conditions, ready to be asked; names of header fields are given in lower case."""
    return tuple(
        ValueMatch(
            name=name,
            exact=model.exact,
            regex=None if model.regex is None else compile_regex(model.regex),
            present=model.present,
        )
        for name, model in models.items()
    )


def compile_header_values(models: Mapping[str, ValueModel]) -> tuple[ValueMatch, ...]:
    """The same for header fields, whose names may be in any spelling."""
    return compile_values({name.lower(): model for name, model in models.items()})
