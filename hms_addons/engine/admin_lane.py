"""A plugin's own port: plain HTTP/1.1, answered by the plugin, over the same `Http1Server`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from hms_addons.config.request_target import TargetError, parse_target
from hms_addons.config.snapshot import Limits
from hms_addons.engine.identifiers import new_id
from hms_addons.errors import Failure, Fault, problem
from hms_addons.http_message import Answer

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from hms_addons.engine.framing import Refusal, RequestHead
    from hms_addons.engine.http1_server import Http1Server
    from hms_addons.http_message import Fields

logger = logging.getLogger(__name__)


class AdminRequest:
    """A request to an admin port; see `hookspecs.AdminRequest`."""

    __slots__ = ("body", "headers", "method", "path", "query", "query_list")

    def __init__(self, request: RequestHead) -> None:
        target = parse_target(request.target, request.method)
        self.method = request.method.decode("latin-1")
        self.path = target.path
        self.query_list: Sequence[tuple[str, str]] = parse_qsl(target.query, keep_blank_values=True)
        self.query: Mapping[str, str] = dict(self.query_list)
        self.headers: Mapping[str, str] = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in request.head.items()
        }
        self.body = request.body or b""


class AdminLane:
    """Answers each request with `handler`.

    Bodies that stream (over 1 MiB, or chunked) are refused: nothing on an admin port needs one.
    """

    def __init__(self, handler: Callable[[AdminRequest], Awaitable[Answer]]) -> None:
        self._handler = handler
        self.connections: set[Http1Server] = set()
        self.limits = Limits(max_body=1024 * 1024, idle_timeout=60.0)

    def __repr__(self) -> str:
        return f"<AdminLane connections={len(self.connections)}>"

    def opened(self, connection: Http1Server) -> bool:
        """See `Lane`."""
        self.connections.add(connection)
        return True

    def closed(self, connection: Http1Server) -> None:
        """See `Lane`."""
        self.connections.discard(connection)

    def refused(self, connection: Http1Server, refusal: Refusal) -> None:
        """See `Lane`."""
        logger.info("admin: %s: %s", connection.peername[0], refusal.failure.detail)

    def clean_trailers(self, trailers: Fields) -> Fields:  # noqa: ARG002 - see `Lane`
        """See `Lane`: none is of use here."""
        return ()

    async def handle(self, connection: Http1Server, request: RequestHead) -> None:
        """See `Lane`."""
        try:
            answer = await self._answer(request)
            await connection.respond(request, answer)
        except ConnectionResetError:
            connection.abort()
        finally:
            if request.stream is not None and not request.stream.ended:
                request.stream.close()
            connection.finished(request)

    async def _answer(self, request: RequestHead) -> Answer:
        if request.stream is not None:
            fault, detail = Fault.BODY_TOO_LARGE, "an admin port takes no streamed body"
            return _refusal(request, Failure.of(fault, detail))
        try:
            return await self._handler(AdminRequest(request))
        except TargetError as error:
            return _refusal(request, Failure.of(Fault.BAD_REQUEST, str(error)))
        except Exception:
            logger.exception("the admin handler failed")
            detail = "the admin handler failed; see the log"
            return _refusal(request, Failure.of(Fault.PLUGIN_ERROR, detail))


def _refusal(request: RequestHead, failure: Failure) -> Answer:
    given = request.head.get(b"x-request-id")
    request_id = new_id() if given is None else given.decode("latin-1")
    reason, fields, body = problem(failure, request_id)
    return Answer(failure.status, reason, fields, body, local=True)
