"""Sends a streaming request body, at the pace the upstream takes it, beside the wait for a response.

The route's timeout runs from the end of the request (SEMANTICS, Time), so while the body is sent only
the upstream's own pace is bounded: each time its buffers are full, it has as long as the timeout to
take something. How slow the caller may be is the downstream connection's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hms_addons.upstream.outcome import Outcome, UpstreamError
from hms_addons.upstream.request_encoder import UnsendableError, encode_chunk, encode_last_chunk

if TYPE_CHECKING:
    import asyncio

    from hms_addons.http_message import BodyStream
    from hms_addons.upstream.http1_client import Http1Connection


class RequestPump:
    """One streaming body on its way.

    Args:
        connection: where to; its `send` has written the head.
        body: what; read to its end, never closed (its producer's connection goes on living).
        length: as announced in the head, None if chunked was.
        timeout: seconds the upstream may take no byte, None for ever.
    """

    __slots__ = ("_body", "_connection", "_length", "_timeout", "_waiter", "task")

    def __init__(
        self,
        connection: Http1Connection,
        body: BodyStream,
        length: int | None,
        timeout: float | None,
    ) -> None:
        self._connection = connection
        self._body = body
        self._length = length
        self._timeout = timeout
        self._waiter: asyncio.Future[None] | None = None
        self.task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<RequestPump {'waiting' if self._waiter else 'flowing'} {self._body!r}>"

    def resume(self) -> None:
        """The transport's buffer has drained."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def run(self) -> None:
        """Send all of it; tells the connection when it is done, or why it cannot be."""
        try:
            await self._send()
        except UnsendableError as error:
            self._connection.request_failed(str(error))
        except Exception as error:  # noqa: BLE001 - whatever the producer failed with, the request is cut
            self._connection.request_failed(f"the request body broke off: {error}")
        else:
            self._connection.request_sent()

    async def _send(self) -> None:
        transport = self._connection.transport
        length = self._length
        sent = 0
        while data := await self._body.read():
            sent += len(data)
            if length is None:
                transport.write(encode_chunk(data))
            elif sent > length:
                break
            else:
                transport.write(data)
                if sent == length:
                    return
            if self._connection.write_paused:
                await self._drain()
        if length is None:
            transport.write(encode_last_chunk(self._body.trailers))
        elif sent != length:
            # Whatever stands in its place would be taken for the rest of this body, or for the next
            # request: nothing but the end of the connection can save it.
            raise UpstreamError(
                Outcome.REQUEST_BODY, f"{length} bytes were announced, not {sent} or more"
            )

    async def _drain(self) -> None:
        self._connection.limit_drain(self._timeout)
        while self._connection.write_paused:
            self._waiter = self._connection.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._connection.limit_drain(None)
