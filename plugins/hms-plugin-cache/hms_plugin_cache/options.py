"""What stands under `plugins.cache`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from hms_addons.config.schema_base import Model, Name, Size

_MIB = 1024 * 1024


class Options(Model):
    """Whose answers are kept, how many, and for whom."""

    services: Annotated[list[str], Field(min_length=1)]
    """The services whose answers are kept."""
    direction: Literal["inbound", "outbound", "both"] = "both"
    """The listeners that keep them."""
    shared_by: Literal["caller", "everyone"] = "caller"
    """`caller`: an answer is given again only to who has the same identity, token and cookies.
    `everyone`: to anybody who may call, as RFC 9111 lets a shared cache."""
    max_bytes: Annotated[Size, Field(ge=1024)] = 64 * _MIB
    """Of all answers together."""
    max_entries: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """How many answers."""
    max_body: Annotated[Size, Field(ge=1)] = _MIB
    """The longest body that is kept."""
    name: Name = "hms"
    """What this cache is called in `Cache-Status`."""
