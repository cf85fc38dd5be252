"""Exchange: all that the mesh knows of one request and its answer.

One is made per request, in either lane, and handed to every plugin hook. It is the only state the
phases share; what a plugin wants to remember from one phase to the next goes to `notes`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.errors import ExchangeFailed, Failure, Flag

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mitmproxy.http import HTTPFlow

    from hms_addons.config.snapshot import Cluster, Listener, Route, Snapshot
    from hms_addons.errors import Fault
    from hms_addons.http_message import Answer, BodyStream, Fields


class Principal(NamedTuple):
    """Who is asking, as a verified token says. An anonymous one has no subject and no roles."""

    subject: str | None = None
    roles: tuple[str, ...] = ()
    """Most senior first where the configuration says."""
    claims: Mapping[str, Any] = {}
    issuer: str | None = None
    role_header: bytes | None = None
    """The roles ready to be sent; made once per token."""
    subject_header: bytes | None = None


ANONYMOUS = Principal()


class Attempt(NamedTuple):
    """One try at an upstream: which endpoint, when (monotonic seconds), how it ended."""

    endpoint: str
    started: float
    ended: float
    outcome: str
    """A status code, or the name of what went wrong (`connect-failure`, `reset`, `timeout`)."""


class Permit:
    """Leave to forward. Made only by the chain, when every authorising plugin has said yes."""

    __slots__ = ()


class Exchange:
    """One request on its way through the seven phases.

    Attributes:
        flow: the mitmproxy flow; `flow.request` is what will be sent upstream.
        snapshot, listener: the configuration this request began with; it never changes under it.
        head: the request's fields by lower-cased name, last value of each, as they were when the
            mesh took the request over (after people and scripts had edited it, before the mesh
            removed or added anything). For conditions; to change the request edit `flow.request`.
        path: the normalised path, without query; what is matched, authorised and forwarded.
        query: the query string as sent, without `?`, and without the mesh's own `host` parameter.
        service: the service that the caller named, or None.
        peer: the caller's SPIFFE ID over verified mutual TLS, else None.
        principal: who is asking; `ANONYMOUS` until `identify` finds a token.
        route, cluster: what the route phase decided.
        endpoint: address of the endpoint that was last tried.
        attempts: one entry per try, in order.
        permit: leave to forward.
        failure: why the mesh answers itself; None while all is well.
        flag: what is worth knowing of an answer besides `failure`: `URX` when it is the last of
            the attempts that the retry policy allowed.
        answer: the response, once there is one.
        body: the request's body when it streams; None when `flow.request.raw_content` holds it.
        started: monotonic seconds when the head was complete.
        bytes_in, bytes_out: body bytes received from and sent to the caller.
        request_id: the value of `X-Request-ID`.
        notes: plugins' own memory, by plugin name.
        interim: sends an interim (1xx) response to the caller; None where it cannot take one.
        downstream: the engine's connection to the caller, for the engine alone.
    """

    __slots__ = (
        "answer",
        "attempts",
        "body",
        "bytes_in",
        "bytes_out",
        "cluster",
        "downstream",
        "endpoint",
        "failure",
        "flag",
        "flow",
        "head",
        "interim",
        "listener",
        "notes",
        "path",
        "peer",
        "permit",
        "principal",
        "query",
        "request_id",
        "route",
        "service",
        "snapshot",
        "started",
    )

    def __init__(
        self, flow: HTTPFlow, snapshot: Snapshot, listener: Listener, started: float
    ) -> None:
        self.flow = flow
        self.snapshot = snapshot
        self.listener = listener
        self.started = started
        self.head: dict[bytes, bytes] = {}
        self.path = ""
        self.query = ""
        self.service: str | None = None
        self.peer: str | None = None
        self.principal: Principal = ANONYMOUS
        self.route: Route | None = None
        self.cluster: Cluster | None = None
        self.endpoint: str | None = None
        self.attempts: list[Attempt] = []
        self.permit: Permit | None = None
        self.failure: Failure | None = None
        self.flag: Flag | None = None
        self.answer: Answer | None = None
        self.body: BodyStream | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.request_id = ""
        self.notes: dict[str, Any] = {}
        self.interim: Callable[[int, bytes, Fields], None] | None = None
        self.downstream: Any = None

    def __repr__(self) -> str:
        request = self.flow.request
        state = (
            repr(self.failure)
            if self.failure
            else repr(self.answer)
            if self.answer
            else "permitted"
            if self.permit
            else "open"
        )
        route = self.route.name if self.route else None
        return f"<Exchange {request.method} {self.path} route={route} {state}>"

    @property
    def direction(self) -> str:
        """`inbound` or `outbound`."""
        return self.listener.direction

    @property
    def method(self) -> str:
        """The request's method, as sent."""
        return self.flow.request.data.method.decode("latin-1")

    def header(self, name: str) -> str | None:
        """The request field `name` as it came in (see `head`), or None."""
        value = self.head.get(name.lower().encode("latin-1", "replace"))
        return None if value is None else value.decode("latin-1")

    def set_request_header(self, name: bytes, value: bytes) -> None:
        """Add a field to what is sent upstream. Quick: it does not look for an older one.

        Right for the headers the mesh owns, which are removed before any plugin runs; for others
        use `flow.request.headers`.
        """
        headers = self.flow.request.data.headers
        headers.fields = (*headers.fields, (name, value))

    def deny(self, status: int, flag: Flag | str, reason: str) -> None:
        """Refuse this request: nothing is forwarded, the caller gets `status` with `reason`.

        The first refusal counts; later ones are ignored. `reason` reaches the caller: say what
        was refused and what to do about it, and never put a secret in it.
        """
        if not 200 <= status <= 599:  # noqa: PLR2004 - what a final answer may say
            message = f"{status} is no status to refuse a request with"
            raise ValueError(message)
        if self.failure is None:
            self.failure = Failure(status, Flag(flag), "Request refused", reason)

    def fail(
        self,
        fault: Fault,
        detail: str,
        *,
        retry_after: float | None = None,
        headers: Fields = (),
        close: bool = False,
    ) -> None:
        """Record that this exchange failed, with the status and flag of `fault`; first one counts."""
        if self.failure is None:
            self.failure = Failure.of(
                fault, detail, retry_after=retry_after, headers=headers, close=close
            )

    def raise_failure(self) -> None:
        """Raise `ExchangeFailed` if there is a failure."""
        if self.failure is not None:
            raise ExchangeFailed(self.failure)
