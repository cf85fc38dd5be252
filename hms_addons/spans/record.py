"""What is kept of a traced request until its spans are sent: plain values, bounded, no request or body."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.config.snapshot import Direction
from hms_addons.http_message import get_field
from hms_addons.redaction import redact_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hms_addons.config.snapshot import Cluster
    from hms_addons.exchange import Exchange
    from hms_addons.trace_context import Trace

DROP_REASONS: Final = ("queue_full", "refused", "unreachable", "failed", "shutdown")
"""Why spans get lost: no room; the collector's no; its silence; a fault of ours; the sidecar's end."""
MAX_TEXT: Final = 256
MAX_PATH: Final = 1024


class RequestRecord(NamedTuple):
    """A request that has ended. Texts are cut; None is what is not known."""

    trace: Trace
    started: float
    """Monotonic seconds, as are those of the tries; `epoch` is to be added."""
    ended: float
    epoch: float
    inbound: bool
    listener: str
    method: str
    path: str
    scheme: str
    host: str
    client: str | None
    caller: str | None
    status: int
    """0: there was no answer."""
    flag: str | None
    detail: str | None
    """Why the mesh has answered by itself, if it failed."""
    route: str | None
    service: str | None
    cluster: str | None
    endpoint: str | None
    policy_version: str | None
    request_id: str
    clusters: Mapping[str, Cluster]
    """The snapshot's."""

    @property
    def spans(self) -> int:
        """How many it will be."""
        return 1 + len(self.trace.tries)


def record_of(exchange: Exchange, trace: Trace, now: float, wall: float) -> RequestRecord:
    """The record of an exchange that ended at `now` on the monotonic and `wall` on the wall clock."""
    snapshot, route, cluster = exchange.snapshot, exchange.route, exchange.cluster
    failure, answer, flag = exchange.failure, exchange.answer, exchange.flag
    if failure is not None:
        flag = failure.flag
    version = get_field(exchange.fields, snapshot.headers.policy_version.lower())
    downstream = exchange.downstream
    peername = getattr(getattr(downstream, "client", None), "peername", None)
    scheme = getattr(downstream, "scheme", b"http")
    return RequestRecord(
        trace=trace,
        started=exchange.started,
        ended=now,
        epoch=wall - now,
        inbound=exchange.listener.direction is Direction.INBOUND,
        listener=exchange.listener.name,
        method=exchange.method[:MAX_TEXT],
        path=redact_path(exchange.path)[:MAX_PATH],
        scheme=scheme.decode("latin-1"),
        host=exchange.head.get(b"host", b"")[:MAX_TEXT].decode("latin-1"),
        client=str(peername[0]) if peername else None,
        caller=exchange.peer,
        status=answer.status if answer is not None else failure.status if failure else 0,
        flag=None if flag is None else flag.value,
        detail=None if failure is None else failure.detail[:MAX_TEXT],
        route=None if route is None else route.name,
        service=None if route is None else route.service,
        cluster=None if cluster is None else cluster.name,
        endpoint=exchange.endpoint,
        policy_version=None if version is None else version[:MAX_TEXT].decode("latin-1"),
        request_id=exchange.request_id[:MAX_TEXT],
        clusters=snapshot.clusters,
    )
