"""What users write under a policy's `when`: conditions on claims and headers."""

from __future__ import annotations

import re
from typing import Annotated, Final, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from hms_addons.config.schema_base import (
    AlsoAccepts,
    FieldName,
    Model,
    Regex,
    fault,
    one_or_many,
    shown,
)

_CLAIM = re.compile(r"[^\s.]+(?:\.[^\s.]+)*")
_KINDS: Final = ("values", "not_values", "regex", "present")
_UNFIT: Final = {
    "authorization": "it holds the token: ask for claims, roles or subjects",
    "proxy-authorization": "it ends at the hop",
    "connection": "it ends at the hop",
    "keep-alive": "it ends at the hop",
    "te": "it ends at the hop",
    "transfer-encoding": "framing is written anew at every hop",
    "content-length": "framing is written anew at every hop",
    "x-forwarded-client-cert": "the mesh sets it: ask for `callers`",
}
"""Fields that no condition can be about, and why."""


def _claim(value: str) -> str:
    if not _CLAIM.fullmatch(value):
        raise fault(f"expected the dotted path of a claim, as org.unit, not {shown(value)}")
    return value


def _pattern(value: str) -> str:
    if "*" in value.removeprefix("*").removesuffix("*") or (
        value[:1] == value[-1:] == "*" != value
    ):
        raise fault(
            f"a value has at most one '*', at its beginning or its end, not {shown(value)}; "
            "use `regex` for anything else"
        )
    if not value:
        raise fault("an empty value; use `present: false` for what must not be there")
    return value


def _field(value: str) -> str:
    why = _UNFIT.get(value.lower())
    if why is not None:
        raise fault(f"no policy can ask for {value}: {why}")
    return value


type _Patterns = Annotated[
    list[Annotated[str, AfterValidator(_pattern)]],
    Field(min_length=1),
    BeforeValidator(one_or_many),
    AlsoAccepts({"type": "string"}),
]


class ConditionModel(Model):
    """A condition on one claim of the verified token, or on one header of the request."""

    claim: Annotated[str, AfterValidator(_claim)] | None = None
    """Dotted path of a claim, as `org.unit`; of a list, one entry suffices."""
    header: Annotated[FieldName, AfterValidator(_field)] | None = None
    """A request header, which the caller may have made up: good for DENY, and behind `callers`."""
    values: _Patterns | None = None
    """What it may be: exact, or with one * at its beginning or end; * alone is any value."""
    not_values: _Patterns | None = None
    """What it may not be; holds where it is missing."""
    regex: Regex | None = None
    """A regular expression that must match the whole value."""
    present: bool | None = None
    """true: it must be there; false: it must not."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.claim is None) == (self.header is None):
            at = () if self.claim is None else ("header",)
            lacks = ("claim",) if self.claim is None else ()
            raise fault(
                "give exactly one of claim, header",
                at=at,
                about=(("claim",), ("header",)),
                lacks=lacks,
            )
        given = [kind for kind in _KINDS if getattr(self, kind) is not None]
        if not given:
            about = tuple((kind,) for kind in _KINDS)
            raise fault(f"give one of {', '.join(_KINDS)}", about=about, lacks=("values",))
        if self.present is False and len(given) > 1:
            other = next(kind for kind in given if kind != "present")
            raise fault(f"what must not be there (present: false) has no {other}", at=(other,))
        both = set(self.values or ()) & set(self.not_values or ())
        if both:
            message = f"{shown(min(both))} is under values and not_values, so this can never hold"
            raise fault(message, at=("not_values",))
        return self
