"""Exchange: all that the mesh knows of one request and its answer.

One is made per request, in either lane, and handed to every plugin hook. It is the only state the
phases share; what a plugin wants to remember from one phase to the next goes to `notes`.
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - a NamedTuple's annotations are looked at where it is compiled
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.errors import ExchangeFailed, Failure, Flag
from hms_addons.http_message import lower_name, without_fields

if TYPE_CHECKING:
    from collections.abc import Callable

    from mitmproxy.http import HTTPFlow

    from hms_addons.config.policy import Decision
    from hms_addons.config.snapshot import Cluster, Listener, Route, Snapshot
    from hms_addons.errors import Fault
    from hms_addons.http_message import Answer, BodyStream, Fields
    from hms_addons.trace_context import Trace


_FALLBACK_FIELDS = frozenset({b"x-hms-fallback", b"x-hms-flag"})


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
    forward: bool = True
    """Whether the token that says so is sent on."""


ANONYMOUS = Principal()


class Attempt(NamedTuple):
    """One try at an upstream: which endpoint, when (monotonic seconds), how it ended."""

    endpoint: str
    started: float
    ended: float
    outcome: str
    """A status code, or the name of what went wrong (`connect-failure`, `reset`, `timeout`).

    `cancelled`: another try, made beside it, had answered."""
    cluster: str = ""
    """Whose endpoint it is: the exchange's, or one that requests went to in its place."""


class Draft:
    """A request as plain values, until somebody asks for its flow.

    Attributes:
        method, target, fields: as in `flow.request.data`.
        content: the held body; None when it streams.
        make_flow: makes the flow of an exchange, from what stands here by then.
        origin: what the request came in as, for `make_flow` alone.
    """

    __slots__ = ("content", "fields", "make_flow", "method", "origin", "target")

    def __init__(
        self,
        method: bytes,
        target: bytes,
        fields: Fields,
        content: bytes | None,
        origin: Any,
        make_flow: Callable[[Exchange, Draft], HTTPFlow],
    ) -> None:
        self.method = method
        self.target = target
        self.fields = fields
        self.content = content
        self.origin = origin
        self.make_flow = make_flow


class Permit:
    """Leave to forward. Made only by the chain, when every authorising plugin has said yes."""

    __slots__ = ()


class Exchange:
    """One request on its way through the seven phases.

    Attributes:
        flow: the mitmproxy flow; `flow.request` is what will be sent upstream. It is made when it is
            first asked for, as it costs more than many a request has need of.
        id: the flow's.
        method_bytes, target, fields, content: the request as it will be sent: the flow's, or what the
            flow would have.
        server: mitmproxy's object for the upstream connection that carries it, where there is one.
        vouched: the `fields` of which it is known that they hold no line break and no framing. Whoever
            puts others in their place loses that, and the encoder looks again.
        snapshot, listener: the configuration this request began with; it never changes under it.
        head: the request's fields by lower-cased name, last value of each, as they were when the
            mesh took the request over (after people and scripts had edited it, before the mesh
            removed or added anything). For conditions; to change the request edit `flow.request`.
        path: the normalised path, without query; what is matched, authorised and forwarded. A route that
            rewrites it does so at the head of authorize.
        query: the query string as sent, without `?`, and without the mesh's own `host` parameter.
        service: the service that the caller named, or None.
        peer: the caller's SPIFFE ID over verified mutual TLS, else None.
        principal: who is asking; `ANONYMOUS` until `identify` finds a token.
        route: what the route phase decided.
        cluster: the same, until another takes its place (failover, fallback): who was asked last.
        endpoint: address of the endpoint that was last tried.
        attempts: one entry per try, in order.
        permit: leave to forward.
        decision: what the policies said, the audited ones included; None where there are none.
        failure: why the mesh answers itself; None while all is well.
        flag: what is worth knowing of an answer besides `failure`: `URX` when it is the last of
            the attempts that the retry policy allowed, `FB` when a fallback gave it.
        answer: the response, once there is one.
        body: the request's body when it streams; None when `flow.request.raw_content` holds it.
        started: monotonic seconds when the head was complete.
        bytes_in, bytes_out: body bytes received from and sent to the caller.
        request_id: the value of `X-Request-ID`.
        trace: its place in a trace; None where it is not traced.
        traceparent: the trace context that it came with, or that was made for it; None before it is taken over.
        notes: plugins' own memory, by plugin name; what is text is shown with the flow.
            `failover_from` is the cluster that was to have it, where another took its place; `fallback` what
            stands in for a failure, and for which.
        interim: sends an interim (1xx) response to the caller; None where it cannot take one.
        downstream: the engine's connection to the caller, for the engine alone.
    """

    __slots__ = (
        "_draft",
        "_flow",
        "answer",
        "attempts",
        "body",
        "bytes_in",
        "bytes_out",
        "cluster",
        "decision",
        "downstream",
        "endpoint",
        "failure",
        "flag",
        "head",
        "id",
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
        "server",
        "service",
        "snapshot",
        "started",
        "trace",
        "traceparent",
        "vouched",
    )

    def __init__(
        self,
        flow: HTTPFlow | None,
        snapshot: Snapshot,
        listener: Listener,
        started: float,
        draft: Draft | None = None,
        flow_id: str = "",
    ) -> None:
        """`flow`, or a `draft` and the `flow_id` that its flow will have."""
        self._flow: Any = flow
        self._draft = draft
        self.id = flow_id if flow is None else flow.id
        self.vouched: Fields | None = None
        self.server: Any = None
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
        self.decision: Decision | None = None
        self.failure: Failure | None = None
        self.flag: Flag | None = None
        self.answer: Answer | None = None
        self.body: BodyStream | None = None
        self.bytes_in = 0
        self.bytes_out = 0
        self.request_id = ""
        self.trace: Trace | None = None
        self.traceparent: bytes | None = None
        self.notes: dict[str, Any] = {}
        self.interim: Callable[[int, bytes, Fields], None] | None = None
        self.downstream: Any = None

    def __repr__(self) -> str:
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
        return f"<Exchange {self.method} {self.path} route={route} {state}>"

    @property
    def flow(self) -> HTTPFlow:
        """The mitmproxy flow, made now if nobody has asked for it before."""
        flow = self._flow
        if flow is None:
            draft = self._draft
            assert draft is not None  # noqa: S101 - one of the two is there
            flow = self._flow = draft.make_flow(self, draft)
        made: HTTPFlow = flow
        return made

    @property
    def made_flow(self) -> HTTPFlow | None:
        """The flow if somebody has asked for it, else None."""
        made: HTTPFlow | None = self._flow
        return made

    @property
    def method_bytes(self) -> bytes:
        """The request's method, as it will be sent."""
        flow = self._flow
        method: bytes = self._plain.method if flow is None else flow.request.data.method
        return method

    @property
    def target(self) -> bytes:
        """The request's target, as it will be sent."""
        flow = self._flow
        target: bytes = self._plain.target if flow is None else flow.request.data.path
        return target

    @target.setter
    def target(self, target: bytes) -> None:
        flow = self._flow
        if flow is None:
            self._plain.target = target
        else:
            flow.request.data.path = target

    @property
    def fields(self) -> Fields:
        """The request's header fields, as they will be sent; framing is written anew."""
        flow = self._flow
        fields: Fields = self._plain.fields if flow is None else flow.request.data.headers.fields
        return fields

    @fields.setter
    def fields(self, fields: Fields) -> None:
        flow = self._flow
        if flow is None:
            self._plain.fields = fields
        else:
            flow.request.data.headers.fields = fields

    @property
    def content(self) -> bytes | None:
        """The request's held body; None when it streams."""
        flow = self._flow
        content: bytes | None = self._plain.content if flow is None else flow.request.data.content
        return content

    @property
    def trailers(self) -> Fields:
        """The trailer section of a held body."""
        flow = self._flow
        if flow is None or flow.request.data.trailers is None:
            return ()
        trailers: Fields = flow.request.data.trailers.fields
        return trailers

    def under(self, snapshot: Snapshot, listener: Listener) -> Exchange:
        """The same request, taken over and routed, as another configuration may judge it.

        Nothing is shared that a judge could change but the flow: its failure is its own.
        """
        other = Exchange(self._flow, snapshot, listener, self.started, self._draft, self.id)
        other.head = self.head
        other.path = self.path
        other.query = self.query
        other.service = self.service
        other.peer = self.peer
        other.principal = self.principal
        other.route = self.route
        other.cluster = self.cluster
        other.request_id = self.request_id
        other.traceparent = self.traceparent
        other.notes = dict(self.notes)
        other.downstream = self.downstream
        return other

    @property
    def _plain(self) -> Draft:
        draft = self._draft
        assert draft is not None  # noqa: S101 - there is no flow
        return draft

    def use_server(self, server: Any) -> None:
        """It is carried by the upstream connection that mitmproxy knows as `server`."""
        self.server = server
        if self._flow is not None:
            self._flow.server_conn = server

    def add_vouched(self, fields: Fields) -> None:
        """Add header fields that the caller vouches for: no line break, no NUL, no framing."""
        before = self.fields
        after = before + fields
        self.fields = after
        if self.vouched is before:
            self.vouched = after

    def follow(self, trace: Trace) -> None:
        """It is traced: what is sent upstream has the `traceparent` of `trace`."""
        self.trace = trace
        before = self.fields
        fields: list[tuple[bytes, bytes]] = []
        for field in before:
            if lower_name(field[0]) == b"traceparent":
                fields.append((b"traceparent", trace.value))
            else:
                fields.append(field)
        after = tuple(fields)
        self.fields = after
        if self.vouched is before:
            self.vouched = after

    def remove_field(self, name: bytes) -> None:
        """Take the fields of this name, in lower case, out of what is sent upstream."""
        before = self.fields
        kept: list[tuple[bytes, bytes]] = []
        for field in before:  # a loop: compiled, a generator costs twice as much
            if lower_name(field[0]) != name:
                kept.append(field)  # noqa: PERF401 - see above
        after = tuple(kept)
        self.fields = after
        if self.vouched is before:
            self.vouched = after

    @property
    def direction(self) -> str:
        """`inbound` or `outbound`."""
        return self.listener.direction

    @property
    def method(self) -> str:
        """The request's method, as sent."""
        return self.method_bytes.decode("latin-1")

    def header(self, name: str) -> str | None:
        """The request field `name` as it came in (see `head`), or None."""
        value = self.head.get(name.lower().encode("latin-1", "replace"))
        return None if value is None else value.decode("latin-1")

    def set_request_header(self, name: bytes, value: bytes) -> None:
        """Add a field to what is sent upstream. Quick: it does not look for an older one.

        Right for the headers the mesh owns, which are removed before any plugin runs; for others
        use `flow.request.headers`.
        """
        self.fields = (*self.fields, (name, value))

    def deny(self, status: int, flag: Flag | str, reason: str) -> None:
        """Refuse this request: nothing is forwarded, the caller gets `status` with `reason`.

        The first refusal counts; later ones are ignored. `reason` reaches the caller: say what
        was refused and what to do about it, and never put a secret in it.

        Raises:
            ValueError: no such flag, or a `status` outside 400..599. Where the plugin lets it pass,
                the request is refused as for any error of it.
        """
        if not 400 <= status <= 599:  # noqa: PLR2004 - what the caller takes for a refusal
            message = f"{status} is no status to refuse a request with; 400 to 599 are"
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

    def mark_fallback(self, answer: Answer, what: str, because: str, detail: str) -> None:
        """Let nobody mistake `answer` for the real one: head, flag and notes tell what it is.

        Args:
            answer: stands in for one that could not be had.
            what: `cluster=…`, `response`, `stale; age=…` or `plugin=…`.
            because: the flag or the status that it stands in for.
            detail: of the failure.
        """
        self.flag = Flag.FB
        self.notes["fallback"] = {"what": what, "because": because, "detail": detail}
        answer.fields = (
            *without_fields(answer.fields, _FALLBACK_FIELDS),
            (b"X-HMS-Fallback", f"{what}; because={because}".encode("latin-1", "replace")),
            (b"X-HMS-Flag", b"FB"),
        )

    def raise_failure(self) -> None:
        """Raise `ExchangeFailed` if there is a failure."""
        if self.failure is not None:
            raise ExchangeFailed(self.failure)
