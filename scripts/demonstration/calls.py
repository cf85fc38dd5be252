"""One HTTP call, made as an app makes it: plain, to an address on this machine."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping
    from email.message import Message

PATIENCE = 10.0
"""Seconds that a call waits for each piece of its answer."""


class Answer(NamedTuple):
    """What came back."""

    status: int
    headers: Message
    """By name, in any spelling."""
    body: bytes

    @property
    def flag(self) -> str | None:
        """The response flag, when a sidecar itself has answered."""
        return self.headers["X-HMS-Flag"]

    @property
    def good(self) -> bool:
        """It is a 2xx."""
        return http.client.OK <= self.status < http.client.MULTIPLE_CHOICES

    def json(self) -> Any:
        """The body's JSON; `ValueError` when it holds none."""
        return json.loads(self.body)

    def describe(self) -> str:
        """Status, flag and body on one line, for messages."""
        flag = f" {self.flag}" if self.flag else ""
        return f"{self.status}{flag} {self.body[:300].decode(errors='replace').strip()}"


def call(
    port: int,
    target: str,
    headers: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bytes | None = None,
) -> Answer:
    """Call 127.0.0.1 on a connection of its own.

    Raises:
        OSError: no connection, or it broke.
        http.client.HTTPException: what came back is no HTTP.
    """
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        return Answer(response.status, response.headers, response.read())
    finally:
        connection.close()
