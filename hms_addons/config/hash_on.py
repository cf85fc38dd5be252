"""What a request's endpoint is chosen by, where it is not chosen by turn or chance: `hash_on`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class HashKey(StrEnum):
    """What of a request is hashed."""

    HEADER = "header"
    COOKIE = "cookie"
    QUERY = "query"
    SOURCE = "source"
    """The peer's SPIFFE ID, else its address without port."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HashOn:
    """One key. Requests with the same value of it go to the same endpoint, while that can be used."""

    kind: HashKey
    name: str = ""
    """Of the header (lower case), cookie or query parameter."""
    attributes: str | None = None
    """A cookie that the mesh makes itself where a request has none: what follows its value in
    `Set-Cookie`, from `;` on. None: it makes none."""

    def __str__(self) -> str:
        """As a person would say it: `header x-user`."""
        made = ", made where it is missing" if self.attributes is not None else ""
        return f"{self.kind} {self.name}{made}" if self.name else str(self.kind)
