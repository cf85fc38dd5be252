"""What is replayed and compared, free of mitmproxy's types."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hms_addons.http_message import Fields


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer: the recorded one, or the new one.

    Attributes:
        status: its status.
        fields: its header fields, as they came.
        body: as it came; None if it is not known as a whole.
    """

    status: int
    fields: Fields
    body: bytes | None


@dataclass(frozen=True, slots=True)
class Recorded:
    """A recorded request and its answer.

    Attributes:
        number: its place in the file, from 1.
        started: when it began, in seconds since the epoch; None if nobody knows.
        method, target, fields: as they were sent.
        body: None if it was not recorded as a whole.
        answer: None if there was none.
        by_mesh: the mesh itself answered, and says so; None if it was the service, or nobody knows.
        upgraded: it became a WebSocket, or another tunnel.
    """

    number: int
    started: float | None
    method: str
    target: bytes
    fields: Fields
    body: bytes | None
    answer: Answered | None
    by_mesh: str | None = None
    upgraded: bool = False

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.method} {self.target.decode('latin-1')}"
