"""Conditions on the value of a header field or a query parameter, as users write them."""

from __future__ import annotations

from typing import Annotated, Self

from pydantic import BeforeValidator, model_validator

from hms_addons.config.schema_base import AlsoAccepts, Model, Regex, fault, shown


class ValueModel(Model):
    """A condition on a header field or a query parameter: exactly one of the three."""

    exact: str | None = None
    """The value must be this."""
    regex: Regex | None = None
    """The whole value must match this regular expression."""
    present: bool | None = None
    """true: it must be there, with any value; false: it must not be there."""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.given()) != 1:
            about = (("exact",), ("regex",), ("present",))
            raise fault("give exactly one of exact, regex and present", about=about)
        return self


def _value(value: object) -> object:
    if isinstance(value, str):
        return {"exact": value}
    if isinstance(value, dict):
        return value
    message = f"expected a text or a mapping with exact, regex or present, not {shown(value)}"
    quotable = isinstance(value, int | float)
    raise fault(message, suggestion=f'"{shown(value)}"' if quotable else None)


type ValueCondition = Annotated[
    ValueModel, BeforeValidator(_value), AlsoAccepts({"type": "string"})
]
