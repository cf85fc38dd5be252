"""Asks the sidecars' admin ports, and the apps' health paths, on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

import httpx

from hms_addons.up.stats import Sample, sample

if TYPE_CHECKING:
    from types import TracebackType

    from hms_addons.clock import Clock

_TIMEOUT = 2.0
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

    async def _get(self, port: int, path: str) -> httpx.Response | None:
        try:
            return await self._http.get(f"http://127.0.0.1:{port}{path}")
        except (httpx.HTTPError, httpx.InvalidURL):
            return None

    async def ok(self, port: int, path: str) -> bool:
        """Whether it answers 2xx."""
        answer = await self._get(port, path)
        return answer is not None and answer.status_code in _OK

    async def sample(self, port: int) -> Sample | None:
        """The counters of the sidecar whose admin port it is; None if it does not answer."""
        at = self._clock.monotonic()
        answer = await self._get(port, "/metrics")
        if answer is None or answer.status_code not in _OK:
            return None
        try:
            return sample(answer.text, at)
        except ValueError:
            return None
