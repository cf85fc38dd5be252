"""Around the whole API: who calls, how often, how much; and an answer whatever happens inside.

An ASGI application around the FastAPI one. It comes before any parsing: a caller that is too fast
or whose body is too large costs no more than the reading of a head.
"""

from __future__ import annotations

import logging
import secrets
from typing import TYPE_CHECKING, Any, Final

from starlette.exceptions import HTTPException

from hms_addons.control.api.problems import CLIENT_LEFT, ApiError, of_exception, problem_response
from hms_addons.control.auth import NOBODY, AuthError, Caller, Kind, Peer
from hms_addons.control.rate_limit import Rate
from hms_addons.control.server_protocol import PEER

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from hms_addons.clock import Clock
    from hms_addons.control.auth import Authenticator
    from hms_addons.control.metrics import ControlMetrics
    from hms_addons.control.rate_limit import RateLimiter

logger = logging.getLogger(__name__)

MAX_BODY: Final = 4 * 1024 * 1024

RATES: Final[dict[Kind | None, Rate]] = {
    Kind.ANYONE: Rate(50, 500),
    Kind.TOKEN: Rate(20, 500),
    Kind.SIDECAR: Rate(200, 2000),
    Kind.ADMIN: Rate(100, 2000),
    None: Rate(5, 50),
}
"""By kind of caller, for each caller: a service, an address, the admin; None: whoever shows a
credential that is wrong. Wide enough for a thousand sidecars of one service that poll anew at once
when a configuration is pushed, or start at once behind one address."""

_FIXED_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"cache-control", b"no-store"),
)


class Frame:
    """See the module.

    Args:
        app: the FastAPI application.
        authenticator: tells who calls. It leaves the caller, or the `AuthError`, in the scope's
            state for the routes, some of which answer anyone.
        limiter: how often each may.
        metrics: what is counted.
        clock: time, injected.
        rates: by kind of caller, None for one whose credential is wrong.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        authenticator: Authenticator,
        limiter: RateLimiter,
        metrics: ControlMetrics,
        clock: Clock,
        rates: Mapping[Kind | None, Rate] = RATES,
    ) -> None:
        self._app = app
        self._authenticator = authenticator
        self._limiter = limiter
        self._metrics = metrics
        self._clock = clock
        self._rates = rates

    def __repr__(self) -> str:
        return f"<Frame {self._limiter!r}>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request; see ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = secrets.token_hex(8)
        state["started"] = self._clock.monotonic()
        address = (scope.get("client") or ("unknown", 0))[0]
        exchange = _Exchange(scope, receive, send)
        try:
            caller = self._caller(scope, address)
            state["caller"] = caller
            self._check_rate(caller, address)
            exchange.check_length()
            await self._app(scope, exchange.receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - told, and logged if it is a fault of ours
            await self._fail(exchange, error)
        finally:
            self._record(scope, exchange, address)

    def _caller(self, scope: Scope, address: str) -> Caller | AuthError:
        values = [value for name, value in scope["headers"] if name == b"authorization"]
        if len(values) > 1:
            return AuthError(401, "the request has two Authorization headers")
        peer: Peer = scope.get("extensions", {}).get(PEER, {}).get("peer", NOBODY)
        try:
            authorization = values[0].decode("latin-1") if values else None
            return self._authenticator.identify(authorization, peer, address)
        except AuthError as error:
            return error

    def _check_rate(self, caller: Caller | AuthError, address: str) -> None:
        if isinstance(caller, AuthError):
            wait = self._limiter.take((None, address), self._rates[None])
        else:
            wait = self._limiter.take((caller.kind, caller.name), self._rates[caller.kind])
        if wait > 0:
            raise ApiError.too_many(wait)

    async def _fail(self, exchange: _Exchange, error: Exception) -> None:
        request_id = exchange.scope["state"]["request_id"]
        known = of_exception(error)
        if known is None:
            logger.error("request %s failed", request_id, exc_info=error)
            known = ApiError.fault(request_id)
        if not exchange.started:
            response = problem_response(known, request_id)
            await response(exchange.scope, exchange.receive, exchange.send)

    def _record(self, scope: Scope, exchange: _Exchange, address: str) -> None:
        """Count it; and log what changed something or was refused, never with a path or a query."""
        state = scope["state"]
        operation, status = state.get("operation", "other"), exchange.status
        self._metrics.requests.labels(operation, str(status)).inc()
        elapsed = self._clock.monotonic() - state["started"] - state.get("waited", 0.0)
        self._metrics.seconds.labels(operation).observe(elapsed)
        refused = status in {401, 403, 413, 429}
        if refused or (scope["method"] not in {"GET", "HEAD"} and not state.get("routine")):
            caller = state.get("caller")
            name = caller.name if isinstance(caller, Caller) else "refused credential"
            who = name if name == address else f"{name} ({address})"
            logger.info("%s %s: %d, request %s", who, operation, status, state["request_id"])


class _Exchange:
    """One request's `receive` and `send`, counted and completed."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.scope = scope
        self.status = CLIENT_LEFT
        """What was answered; that if nothing was, because the client left."""
        self.started = False
        self._receive = receive
        self._send = send
        self._got = 0
        headers = dict(scope["headers"])
        self._length = headers.get(b"content-length", b"0")
        self._whole = self._length == b"0" and b"transfer-encoding" not in headers

    def check_length(self) -> None:
        """Refuse a body that is announced to be too large, before it is read."""
        if not self._length.isdigit():
            detail = "Content-Length is not a number"
            raise ApiError(400, detail)
        if int(self._length) > MAX_BODY:
            raise self._too_large()

    def _too_large(self) -> HTTPException:
        # What FastAPI lets through from the reading of a body.
        return HTTPException(413)

    async def receive(self) -> Message:
        """See ASGI."""
        message = await self._receive()
        if message["type"] == "http.request":
            self._got += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._got > MAX_BODY:
                raise self._too_large()
        return message

    async def send(self, message: Message) -> None:
        """See ASGI."""
        if message["type"] == "http.response.start":
            self.started = True
            self.status = message["status"]
            headers: list[Any] = [*message.get("headers", ()), *_FIXED_HEADERS]
            headers.append((b"x-request-id", self.scope["state"]["request_id"].encode()))
            if not self._whole:
                headers.append((b"connection", b"close"))  # rather than read on what nobody wants
            message = {**message, "headers": headers}
        await self._send(message)
