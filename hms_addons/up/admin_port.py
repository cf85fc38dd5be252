"""Asks the sidecars' admin ports, and the apps' health paths, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import httpx

from hms_addons.clock import within
from hms_addons.up.stats import Sample, sample

if TYPE_CHECKING:
    from types import TracebackType

    from hms_addons.clock import Clock

_TIMEOUT = 2.0
_MOST = 16 * 1024 * 1024
"""Bytes of a page of metrics."""
_MOST_HEALTH = 64 * 1024
"""Bytes of what a health path says, read so that its app can say it."""
_OK = range(200, 300)


class AdminPorts:
    """An HTTP client for this machine's own ports, as an async context manager."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._http = httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT, verify=False)  # noqa: S501 - plain HTTP

    async def __aenter__(self) -> Self:
        """Begin."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _get(self, port: int, path: str, most: int) -> tuple[int, bytes | None]:
        """Status, 0 without an answer; and the body, None if it is longer, or does not end in time."""
        status, body = 0, b""
        try:
            # httpx's time-out begins anew with each piece.
            async with (
                within(self._clock, _TIMEOUT),
                self._http.stream("GET", f"http://127.0.0.1:{port}{path}") as answer,
            ):
                status = answer.status_code
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > most:
                        return status, None
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError):
            return status, None
        return status, body

    async def ok(self, port: int, path: str) -> bool:
        """Whether it answers 2xx, with whatever body."""
        status, _ = await self._get(port, path, _MOST_HEALTH)
        return status in _OK

    async def sample(self, port: int) -> Sample | None:
        """The counters of the sidecar whose admin port it is; None if it does not answer."""
        at = self._clock.monotonic()
        status, body = await self._get(port, "/metrics", _MOST)
        if body is None or status not in _OK:
            return None
        try:
            return sample(body.decode(), at)
        except ValueError:
            return None
