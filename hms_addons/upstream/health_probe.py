"""One health check of one endpoint: connect, ask, judge the answer's status.

A check goes the way that a request goes which finds no idle connection: the same connector, the cluster's
current TLS identity, the same demands on the peer. It takes no slot of any breaker, and its connection is closed
afterwards, so that every check shows whether a new connection can be made (*ours*; Envoy keeps one).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, NamedTuple

from hms_addons.clock import within
from hms_addons.errors import ExchangeFailed
from hms_addons.upstream.outcome import Outcome, UpstreamError

if TYPE_CHECKING:
    from hms_addons.config.snapshot_health import HealthCheck
    from hms_addons.http_message import Answer
    from hms_addons.upstream.cluster import Cluster
    from hms_addons.upstream.cluster_manager import ClusterManager
    from hms_addons.upstream.endpoint import Endpoint
    from hms_addons.upstream.http1_client import Http1Connection

_BODYLESS: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


class Verdict(NamedTuple):
    """What a check has shown."""

    passed: bool | None
    """None: nothing, as the trouble is this sidecar's own."""
    why: str = ""
    """How it failed; does not name the endpoint."""


_PASSED: Final = Verdict(passed=True)


class HealthProbe:
    """Makes checks; also the `ConnectionOwner` of their connections.

    Args:
        manager: whose connector, clock and tasks are used, and who knows of all connections.
    """

    def __init__(self, manager: ClusterManager) -> None:
        self._manager = manager

    async def __call__(
        self, cluster: Cluster, endpoint: Endpoint, settings: HealthCheck
    ) -> Verdict:
        """Check `endpoint` once; takes at most `settings.timeout`, and leaves nothing behind."""
        try:
            async with within(self._manager.clock, settings.timeout):
                return await self._check(cluster, endpoint, settings)
        except TimeoutError:
            what = "no connection" if settings.path is None else "no answer"
            return Verdict(passed=False, why=f"{what} within {settings.timeout:g}s")
        except UpstreamError as error:
            if error.outcome is Outcome.LOCAL:
                return Verdict(passed=None, why=error.detail)
            return Verdict(passed=False, why=error.detail)
        except ExchangeFailed as error:  # this sidecar has no certificate to show
            return Verdict(passed=None, why=error.failure.detail)

    async def _check(self, cluster: Cluster, endpoint: Endpoint, settings: HealthCheck) -> Verdict:
        tls = cluster.peer_tls()
        connection = await self._manager.open_for(self, endpoint, tls)
        try:
            if settings.path is None:
                return _PASSED
            request = encode_check(settings, settings.host or cluster.spec.service)
            answer = await self._ask(connection, request, to_head=settings.method == "HEAD")
            return judge(answer.status, settings)
        finally:
            connection.close()  # in good order if it is idle,
            connection.abort()  # and at once if the answer goes on: only its head was asked for

    @staticmethod
    async def _ask(connection: Http1Connection, request: bytes, *, to_head: bool) -> Answer:
        waiter = connection.send(request, to_head=to_head, hold=0)
        try:
            return await waiter
        except asyncio.CancelledError:
            connection.give_up(waiter)
            raise

    # -- told by connections ---------------------------------------------------------------------

    def finished(self, connection: Http1Connection, *, reusable: bool) -> None:
        """See `ConnectionOwner`: a check occupies no slot."""

    def lost(self, connection: Http1Connection) -> None:
        """See `ConnectionOwner`."""

    def gone(self, connection: Http1Connection) -> None:
        """See `ConnectionOwner`."""
        self._manager.connection_gone(connection)


def encode_check(settings: HealthCheck, host: str) -> bytes:
    """The request of an HTTP check."""
    fields = {"host": ("Host", host), "user-agent": ("User-Agent", "hms-health-check")}
    if settings.method not in _BODYLESS:
        fields["content-length"] = ("Content-Length", "0")
    fields.update({name.lower(): (name, value) for name, value in settings.headers})
    fields["connection"] = ("Connection", "close")
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.values())
    return f"{settings.method} {settings.path} HTTP/1.1\r\n{head}\r\n".encode("latin-1")


def judge(status: int, settings: HealthCheck) -> Verdict:
    """Whether an answer with `status` is one of a healthy endpoint."""
    if any(first <= status <= last for first, last in settings.statuses):
        return _PASSED
    wanted = ", ".join(
        str(first) if first == last else f"{first}-{last}" for first, last in settings.statuses
    )
    return Verdict(passed=False, why=f"{settings.path} answered {status}, not {wanted}")
