"""Asks a control plane on behalf of a person who holds the admin token.

At first contact the trust bundle is fetched from a server that nobody has vouched for; only a root
with the pinned fingerprint is taken from it, and every further request verifies that the server
chains to that root and is `/hms/control`. The token is sent on such a connection alone.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self

import httpx

from hms_addons.control_client.client import TRUST_DOMAIN_HEADER, parse_url
from hms_addons.control_client.failures import ControlUntrustedError
from hms_addons.control_client.trust import (
    control_context,
    parse_pins,
    pinned,
    read_bundle,
    unproven_context,
)
from hms_addons.errors import MeshError
from hms_addons.identity.trust_bundle import MAX_BUNDLE_BYTES

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping
    from types import TracebackType

    from hms_addons.clock import Clock

CONNECT_TIME: Final = 5.0
REQUEST_TIME: Final = 30.0
"""Seconds without a byte of an answer; a large configuration takes some to be checked."""
MAX_ANSWER: Final = 64 * 1024 * 1024

_UNAUTHORIZED = 401
_TOO_MANY = 429


class OperatorError(MeshError):
    """A request was in vain; the message says where, why, and what to do."""


class RefusedError(OperatorError):
    """The control plane has refused a request.

    Args:
        message: for people.
        status: HTTP's.
        document: the problem details, as they came.
    """

    def __init__(self, message: str, status: int, document: Mapping[str, Any]) -> None:
        super().__init__(message)
        self.status = status
        self.document = document


class Answer(NamedTuple):
    """A 2xx."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body's JSON.

        Raises:
            OperatorError: it is none.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            message = "the control plane has answered with something that is not JSON"
            raise OperatorError(message) from error

    @property
    def version(self) -> int | None:
        """The version that the ETag names."""
        tag = self.headers.get("etag", "").strip('"')
        return int(tag) if tag.isascii() and tag.isdigit() else None


class OperatorClient:
    """One operator's connection to a control plane, as an async context manager.

    Args:
        url: as `https://127.0.0.1:15010`.
        token: the admin token.
        ca_pin: as `sha256:…`.
        clock: time, injected.

    Raises:
        MeshError: one of them cannot be what it should be.
    """

    def __init__(self, url: str, token: str, ca_pin: str, clock: Clock) -> None:
        self.url = parse_url(url)
        self._pins = parse_pins(ca_pin)
        if not token.isascii() or not token.isprintable() or " " in token:
            message = "the admin token is no token: copy it whole, in one line"
            raise OperatorError(message)
        self._token = token
        self._clock = clock
        self._http: httpx.AsyncClient | None = None

    def __repr__(self) -> str:
        return f"<OperatorClient {self.url}>"

    async def __aenter__(self) -> Self:
        """Make first contact."""
        async with _http(unproven_context()) as http:
            answer = await self._send(http, "GET", "/v1/bundle")
        if len(answer.body) > MAX_BUNDLE_BYTES:
            message = f"{self.url} has sent no trust bundle: is this a control plane?"
            raise ControlUntrustedError(message)
        trust_domain = answer.headers.get(TRUST_DOMAIN_HEADER)
        claimed = read_bundle(trust_domain, answer.body, self.url)
        bundle = pinned(claimed, self._pins, self.url)
        self._http = _http(control_context(bundle, None, self._clock))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connection."""
        if self._http is not None:
            await self._http.aclose()

    async def ask(self, method: str, path: str, **options: Any) -> Answer:
        """Ask for something.

        Args:
            method: HTTP's.
            path: with the leading slash; every part of it quoted.
            options: httpx's `params`, `json`, `content` and `headers`.

        Raises:
            RefusedError: the control plane has refused.
            OperatorError: it has not answered, or cannot prove itself.
        """
        assert self._http is not None, "used as a context manager"  # noqa: S101
        headers = {**options.pop("headers", {}), "Authorization": f"Bearer {self._token}"}
        return await self._send(self._http, method, path, headers=headers, **options)

    async def _send(
        self, http: httpx.AsyncClient, method: str, path: str, **options: Any
    ) -> Answer:
        try:
            async with http.stream(method, f"{self.url}{path}", **options) as response:
                body = bytearray()
                async for piece in response.aiter_raw():
                    body += piece
                    if len(body) > MAX_ANSWER:
                        message = f"{self.url} answers {path} with more than {MAX_ANSWER} bytes"
                        raise OperatorError(message)
                answer = Answer(response.status_code, response.headers, bytes(body))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise OperatorError(_why(self.url, error)) from error
        if answer.status >= 400:  # noqa: PLR2004 - HTTP's classes
            raise _refused(self.url, answer)
        return answer


def _http(context: ssl.SSLContext) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        verify=context,
        trust_env=False,  # no proxy from the environment may stand in between
        follow_redirects=False,
        timeout=httpx.Timeout(REQUEST_TIME, connect=CONNECT_TIME),
        headers={"Accept": "application/json", "Accept-Encoding": "identity"},
    )


def _refused(url: str, answer: Answer) -> RefusedError:
    try:
        document = json.loads(answer.body)
    except (ValueError, RecursionError):
        document = {}
    if not isinstance(document, dict):
        document = {}
    detail = str(document.get("detail") or f"it answered with {answer.status}")
    if answer.status == _TOO_MANY:
        detail = f"too many requests; try again in {answer.headers.get('retry-after', 'some')} s"
    line = "".join(c if c.isprintable() else " " for c in detail[:2000])
    return RefusedError(f"the control plane at {url}: {line}", answer.status, document)


def _why(url: str, error: Exception) -> str:
    cause: BaseException | None = error
    while cause is not None:
        if type(cause).__name__ == "SSLCertVerificationError":
            reason = getattr(cause, "verify_message", None) or str(cause)
            return f"{url} cannot prove to be the control plane: {reason}; no token was sent to it"
        if getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER":
            return f"{url} does not speak TLS: is this the control plane's port?"
        cause = cause.__cause__ or cause.__context__
    if isinstance(error, httpx.TimeoutException):
        return f"{url} does not answer"
    return f"{url} cannot be reached: {str(error) or type(error).__name__}"
