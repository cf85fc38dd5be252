"""One batch, one POST: what a collector makes of it (OTLP 1.x, "OTLP/HTTP Response")."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import within

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from hms_addons.clock import Clock

MAX_ANSWER: Final = 64 * 1024
_MAX_WHY: Final = 200
_RETRIABLE: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same batch may be sent again; no other one may."""


async def _forget_redirect(response: httpx.Response) -> None:
    """httpx reads where a redirect leads even if it does not follow, and raises whatever that makes it raise."""
    response.headers.pop("location", None)


class Reply(NamedTuple):
    """How a POST ended."""

    taken: bool
    error: str = ""
    """Why not, for people."""
    retriable: bool = False
    retry_after: float | None = None
    """Seconds that the collector wants to be left alone."""
    body: bytes = b""


class Collector:
    """Where batches go.

    Args:
        url: the address.
        headers: sent with each batch; they may hold secrets.
        timeout: seconds that one may take, from the first to the last byte.
        clock: bounds that time.
        transport: stands in for the network (httpx's own seam); None is the network.
    """

    def __init__(
        self,
        url: str,
        headers: Mapping[str, str],
        timeout: float,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self.url = url
        self._httpx: Any = importlib.import_module("httpx")
        self._timeout = timeout
        self._clock = clock
        own = {"Content-Type": "application/x-protobuf", "User-Agent": "hms-svc"}
        self._client: httpx.AsyncClient = self._httpx.AsyncClient(
            # A context of all public roots is large, and plain http needs none.
            verify=url.startswith("https:"),
            # Neither a proxy from the environment nor a redirect may choose who gets them.
            trust_env=False,
            follow_redirects=False,
            event_hooks={"response": [_forget_redirect]},
            timeout=timeout,
            headers={**headers, **own, "Accept-Encoding": "identity"},
            limits=self._httpx.Limits(max_connections=1, max_keepalive_connections=1),
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"<Collector {self.url}>"

    async def close(self) -> None:
        """Let go of its connection."""
        await self._client.aclose()

    async def post(self, body: bytes) -> Reply:
        """Send a batch. Never raises but when cancelled; takes no longer than `timeout`."""
        try:
            async with within(self._clock, self._timeout):
                return await self._post(body)
        except TimeoutError:
            return Reply(taken=False, error=f"no answer within {self._timeout:g}s", retriable=True)
        except self._httpx.HTTPError as error:
            return Reply(taken=False, error=_described(error), retriable=True)
        except Exception as error:  # noqa: BLE001 - no answer, whatever is in it, may end tracing
            return Reply(taken=False, error=_described(error))

    async def _post(self, body: bytes) -> Reply:
        async with self._client.stream("POST", self.url, content=body) as response:
            answer = bytearray()
            # One that is compressed, against our wish, could unpack to any size: it stays unread.
            if response.headers.get("content-encoding", "identity").lower() == "identity":
                async for chunk in response.aiter_bytes():
                    answer += chunk
                    if len(answer) > MAX_ANSWER:
                        break
            status = response.status_code
            if 200 <= status < 300:  # noqa: PLR2004 - success
                return Reply(taken=True, body=bytes(answer[:MAX_ANSWER]))
            asked = response.headers.get("retry-after", "")
            return Reply(
                taken=False,
                error=f"status {status}",
                retriable=status in _RETRIABLE,
                retry_after=float(asked) if asked.isascii() and asked.isdigit() else None,
            )


def _described(error: Exception) -> str:
    name = type(error).__name__
    return f"{name}: {error}"[:_MAX_WHY] if str(error) else name
