"""What somebody wants recorded: the parameters of `POST /record` on the admin port."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_core import PydanticCustomError

from hms_addons.config.schema_base import parse_duration, parse_size
from hms_addons.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_SECONDS: Final = 3600.0
MOST_BODY: Final = 16 * 1024 * 1024
DIRECTIONS: Final = ("inbound", "outbound", "both")


class RecordingWish(NamedTuple):
    """What is to be recorded.

    Attributes:
        seconds: for how long.
        direction: `inbound`, `outbound` or `both`.
        most_body: bytes of a body that are kept; a longer one is left out.
    """

    seconds: float = 60.0
    direction: str = "inbound"
    most_body: int = 1024 * 1024

    @classmethod
    def of(cls, query: Mapping[str, str]) -> RecordingWish:
        """Read it from a query: `for=30s&direction=both&max_body=64KiB`.

        Raises:
            ConfigError: something in it is wrong; says what.
        """
        known = ("direction", "for", "max_body")
        if unknown := sorted(query.keys() - {*known, "format"}):
            raise ConfigError(f"{unknown[0]}: no such parameter; there are {', '.join(known)}")
        usual = cls()
        try:
            seconds = parse_duration(query["for"]) if "for" in query else usual.seconds
        except PydanticCustomError as error:
            raise ConfigError(f"for: {error.message()}") from None
        if not 0 < seconds <= MOST_SECONDS:
            raise ConfigError(f"for: more than 0, and at most {MOST_SECONDS / 3600:g}h")
        direction = query.get("direction", usual.direction)
        if direction not in DIRECTIONS:
            raise ConfigError(f"direction: one of {', '.join(DIRECTIONS)}")
        body = query.get("max_body", str(usual.most_body))
        try:
            most = int(body) if body.isdecimal() else parse_size(body)
        except PydanticCustomError as error:
            raise ConfigError(f"max_body: {error.message()}") from None
        if most > MOST_BODY:
            raise ConfigError(f"max_body: at most {MOST_BODY // 1024 // 1024}MiB")
        return cls(seconds, direction, most)
