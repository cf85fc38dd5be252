"""One httpx client for one identity: asks one question at a time or several, each within bounds."""

from __future__ import annotations

import importlib.util
import json
import ssl
import sys
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from hms_addons.clock import within
from hms_addons.control_client.failures import (
    ControlAnswerError,
    ControlAwayError,
    ControlError,
    ControlRefusedError,
    ControlUntrustedError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

    from hms_addons.clock import Clock

CONNECT_TIME: Final = 5.0
"""Seconds for a connection, TLS included."""
REQUEST_TIME: Final = 10.0
"""Seconds for a whole request that does not wait for anything."""
MOST_BYTES: Final = 1024 * 1024
"""Of an answer that is no snapshot."""
IDLE_TIME: Final = 30.0
"""Seconds that a connection is kept for the next request."""

_QUOTED = 300
"""Characters of the other side's words that a message repeats."""
_AGAIN_LATER: Final = frozenset({408, 425, 429})


class Question(NamedTuple):
    """One request, less the address."""

    method: str
    path: str
    params: Mapping[str, str] = {}
    body: Any = None
    """JSON-ready; None: no body."""
    headers: Mapping[str, str] = {}
    seconds: float = REQUEST_TIME
    most: int = MOST_BYTES


class Reply(NamedTuple):
    """A 2xx or 304."""

    status: int
    headers: Mapping[str, str]
    """By lower-case name."""
    body: bytes

    def json(self, where: str) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            ControlAnswerError: it is none.
        """
        try:
            found = json.loads(self.body, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            message = f"{where} has answered with something that is not JSON: {error}"
            raise ControlAnswerError(message) from error
        if not isinstance(found, dict):
            message = f"{where} has answered with JSON that is no object"
            raise ControlAnswerError(message)
        return found


class Channel:
    """Speaks to control planes by one TLS context.

    Args:
        context: verifies the other side, and shows who we are.
        clock: bounds requests.
        transport: stands in for the network (httpx's own seam); None is the network.
    """

    def __init__(
        self,
        context: ssl.SSLContext,
        clock: Clock,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        import httpx  # noqa: PLC0415 - 8 MB that a sidecar without a control plane need not hold

        if importlib.util.find_spec("sniffio") is None:
            # httpcore looks for it several times a request, and Python remembers modules that are
            # there, but not those that are missing: a third of what a request costs here.
            sys.modules["sniffio"] = None  # type: ignore[assignment]
        self._clock = clock
        self.users = 0
        """Requests that are under way."""
        self._client = httpx.AsyncClient(
            verify=context,
            # Neither a proxy from the app's environment nor a redirect may stand in between.
            trust_env=False,
            follow_redirects=False,
            # A long poll is silent while it waits: the whole request is bounded instead.
            timeout=httpx.Timeout(None, connect=CONNECT_TIME, pool=CONNECT_TIME),
            limits=httpx.Limits(
                max_connections=16, max_keepalive_connections=4, keepalive_expiry=IDLE_TIME
            ),
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            transport=transport,
        )

    def __repr__(self) -> str:
        return f"<Channel users={self.users}>"

    async def ask(self, base: str, question: Question) -> Reply:
        """Ask the control plane at `base`.

        Raises:
            ControlError: of the kind that says what it means.
        """
        import httpx  # noqa: PLC0415 - see __init__

        self.users += 1
        try:
            async with within(self._clock, question.seconds):
                return _accepted(await self._exchange(base, question), base, question)
        except TimeoutError as error:
            message = f"{base} has not answered {question.path} within {question.seconds:g}s"
            raise ControlAwayError(message) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _failure(base, error) from error
        finally:
            self.users -= 1

    async def _exchange(self, base: str, question: Question) -> Reply:
        async with self._client.stream(
            question.method,
            f"{base}{question.path}",
            params=question.params,
            json=question.body,
            headers=question.headers,
        ) as response:
            headers = {name.lower(): value for name, value in response.headers.items()}
            if headers.get("content-encoding", "identity") != "identity":
                message = (
                    f"{base} has packed its answer to {question.path}, which was not asked for"
                )
                raise ControlAnswerError(message)
            pieces, size = [], 0
            async for piece in response.aiter_raw():
                size += len(piece)
                if size > question.most:
                    message = f"{base} answers {question.path} with more than {question.most} bytes"
                    raise ControlAnswerError(message)
                pieces.append(piece)
            return Reply(response.status_code, headers, b"".join(pieces))

    async def close(self) -> None:
        """Close its connections, whatever is under way."""
        await self._client.aclose()


def _accepted(reply: Reply, base: str, question: Question) -> Reply:
    """`reply`, if it is one that was hoped for."""
    status = reply.status
    if 200 <= status < 300 or status == 304:  # noqa: PLR2004 - RFC 9110's classes
        return reply
    message = f"{base} answers {question.method} {question.path} with {status}{_words(reply)}"
    if status in _AGAIN_LATER or status >= 500:  # noqa: PLR2004 - RFC 9110's classes
        raise ControlAwayError(message, _retry_after(reply))
    if status < 400:  # noqa: PLR2004 - RFC 9110's classes
        raise ControlAnswerError(message)
    raise ControlRefusedError(message, status)


def _words(reply: Reply) -> str:
    """What a problem document (RFC 9457) says, made fit for a log line."""
    try:
        found = reply.json("")
    except ControlAnswerError:
        return ""
    said = found.get("detail") or found.get("title")
    if not isinstance(said, str) or not said:
        return ""
    line = "".join(c if c.isprintable() else " " for c in said[: _QUOTED + 1])
    return f": {line[:_QUOTED]}…" if len(line) > _QUOTED else f": {line}"


def _retry_after(reply: Reply) -> float | None:
    text = reply.headers.get("retry-after", "")
    return float(text[:6]) if text.isascii() and text.isdigit() else None


def _failure(base: str, error: Exception) -> ControlError:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message if hasattr(cause, "verify_message") else str(cause)
            message = f"{base} cannot prove to be the control plane: {why}; nothing was sent to it"
            return ControlUntrustedError(message)
        if isinstance(cause, ssl.SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return ControlAwayError(f"{base} does not speak TLS: is this the control plane's port?")
        cause = cause.__cause__ or cause.__context__
    return ControlAwayError(f"{base} cannot be reached: {str(error) or type(error).__name__}")


def _no_number(text: str) -> None:
    message = f"{text} is no JSON number"
    raise ValueError(message)
