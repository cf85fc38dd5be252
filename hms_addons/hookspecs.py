"""The plugin contract: every hook that the mesh calls, and when.

A plugin is any object with methods marked `@hookimpl`. Built-ins use exactly this contract.
Publish yours as an entry point in the group `hms_addons` and it is found when it is installed:

    [project.entry-points.hms_addons]
    stamp = "hms_plugin_stamp:Stamp"

A class named by an entry point is called without arguments; an instance or a module is used as it is.
Hooks run in the order of registration, built-ins first; `@hookimpl(tryfirst=True)` and
`trylast=True` move a hook to either end. Per-request hooks may be plain or `async`. An exception
in identify, route, authorize or prepare refuses the request (500 `PE`); in respond and complete it
is logged and counted, and the exchange goes on. `asyncio.CancelledError` is an exception like any
other, unless the client has left; so are `GeneratorExit`, `SystemExit` and `KeyboardInterrupt`.

What per-request hooks wait for is bounded: those before forward have together the route's timeout
(15 s while there is none), those in respond the same once more. Past it the hook that waits is cancelled
and the request refused (500 `PE`), also in respond. `hms_forward` has no such bound, as bodies may
take as long as they like: keep to `exchange.route.timeout` there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import pluggy

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Route, Snapshot
    from hms_addons.errors import Failure
    from hms_addons.exchange import Exchange
    from hms_addons.http_message import Answer, BodyStream
    from hms_addons.metrics_registry import Collector, Exposition
    from hms_addons.recording_wish import RecordingWish

PROJECT = "hms"
"""pluggy's project name."""
ENTRY_POINT_GROUP = "hms_addons"

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Mesh(Protocol):
    """What a plugin may ask of the running sidecar; given to `hms_open` and `hms_startup`."""

    @property
    def snapshot(self) -> Snapshot | None:
        """The configuration now in force; None before the first."""

    @property
    def clock(self) -> Clock:
        """The sidecar's time."""

    @property
    def ready(self) -> bool:
        """A snapshot, its certificates and its listeners are there, and no drain has begun."""

    @property
    def not_ready(self) -> str | None:
        """Why it is not `ready`, in a few words that may be told to anybody; None while it is."""

    @property
    def draining(self) -> bool:
        """The sidecar is on its way out."""

    def status(self) -> dict[str, Any]:
        """Version, readiness and the last refused change, as JSON-ready types."""

    def add_status(self, name: str, show: Callable[[], Any]) -> None:
        """Have `status()` tell under `name` what `show()` returns: JSON-ready types, no secrets."""

    def add_metrics(self, name: str, collector: Collector) -> None:
        """Have `/metrics` tell what `collector.collect()` yields, asked at each scrape.

        Args:
            name: the plugin's, under which failures of it are counted.
            collector: prometheus_client's: a `Counter`, `Gauge` or `Histogram` made with
                `registry=None`, a whole `CollectorRegistry`, or an object of your own. Begin the names
                with your plugin's, and keep label values few: never a path, a subject or an address
                that callers choose.
        """

    async def metrics(self, accept: str = "") -> Exposition:
        """All metrics for Prometheus, as text or OpenMetrics, whichever `accept` prefers."""

    async def apply(self, snapshot: Snapshot) -> None:
        """Put a configuration in force, as a whole or not at all.

        Raises:
            MeshError: it cannot be used; the old one goes on, and `status()` tells why.
        """

    def refuse(self, reason: str) -> None:
        """Tell of a configuration that could not even be made into a snapshot."""

    def clusters(self) -> list[dict[str, Any]]:
        """Live state of every cluster and endpoint, as JSON-ready types."""

    async def time_hooks(self, seconds: float) -> list[dict[str, Any]]:
        """Measure every per-request hook for so long: calls, and how long they took, as JSON-ready types.

        Raises:
            MeshError: that is being done already, or there is no configuration yet.
        """

    async def record(self, wish: RecordingWish) -> BodyStream:
        """Record requests for a while: a mitmproxy flow file, without secrets, to be read as it comes.

        To close the stream ends the recording. Whoever reads slowly loses flows, which are counted.

        Raises:
            MeshError: somebody records already.
        """

    def recording(self) -> dict[str, Any]:
        """Whether somebody records, and how many flows the last recording has, and lost; JSON-ready."""

    async def open_window(self) -> str:
        """Open a mitmweb in this process, or find the one that is open; its address, token included.

        Raises:
            NotAllowedError: the sidecar was not started with `--window`.
            MeshError: it cannot be.
        """

    async def close_window(self) -> bool:
        """Close it; false if it was not open."""

    def certificates(self) -> list[dict[str, Any]]:
        """Every secret's SPIFFE ID, validity and generation, as JSON-ready types; no keys."""

    def explain(
        self, request_line: str, headers: Mapping[str, str] | Iterable[tuple[str, str]]
    ) -> dict[str, Any]:
        """Which listener, route, cluster, policies and retries apply, and why not the others."""

    async def serve(
        self, host: str, port: int, handler: Callable[[AdminRequest], Awaitable[Answer]]
    ) -> tuple[str, int]:
        """Answer plain HTTP/1.1 on a port of the plugin's own until the sidecar stops.

        Returns:
            The address it listens on (`port` 0 picks one).
        """

    def drain(self) -> None:
        """Begin to leave: stop accepting, finish what is in flight, then exit."""

    def quit(self) -> None:
        """Leave at once: cut off what is in flight, then exit."""


class WindowHost(Protocol):
    """What opens and closes a window in a sidecar's process."""

    async def open(self) -> str:
        """See `Mesh.open_window`."""

    async def close(self) -> bool:
        """See `Mesh.close_window`."""


class AdminRequest(Protocol):
    """A request to a port that a plugin serves."""

    method: str
    path: str
    query: Mapping[str, str]
    query_list: Sequence[tuple[str, str]]
    """The same with repeated names, in order."""
    headers: Mapping[str, str]
    body: bytes


class Upstream(Protocol):
    """What `hms_forward` is given: the clusters, their pools and breakers.

    The built-in `resilience` works on `hms_addons.upstream.cluster_manager.ClusterManager`, which
    is what this is.
    """


class MeshSpecs:
    """The hooks. Each docstring is the hook's documentation."""

    @hookspec
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Check a new configuration, and prepare for it, before it is swapped in.

        Called for every plugin with the candidate; if any raises `ConfigError`, the snapshot is
        refused, the old one stays, and every plugin that had accepted the candidate is called
        again with the old one. Must be quick: it runs on the event loop.

        Raises:
            ConfigError: this plugin cannot work with `snapshot`; say where and what to change.
        """

    @hookspec
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """Name those of this plugin's per-request hooks that have nothing to do under `snapshot`.

        They are left out of the chain, so that a plugin costs nothing where nobody has configured it:
        `("hms_authorize",)` while no route has a rate limit, say. Asked once per snapshot, after
        `hms_configure`; like there, an exception refuses the snapshot. A plugin without this hook takes
        part in every request.
        """

    @hookspec
    def hms_open(self, mesh: Mesh) -> Any:
        """Open what must answer from the first moment on, as probes; called once. May be async.

        A sidecar that has a control plane may then wait for long: `mesh.snapshot` is None until the first
        configuration, and `hms_startup` comes after it. Use `mesh.serve`, which the sidecar ends by
        itself; `hms_shutdown` is for what `hms_startup` began. An exception ends the start.
        """

    @hookspec
    def hms_startup(self, mesh: Mesh) -> Any:
        """Start background work; called once, after the first snapshot. May be async.

        No request comes before every plugin's is done. An exception ends the start of the sidecar.
        """

    @hookspec
    def hms_ready(self) -> Any:
        """Announce it: the sidecar takes requests from now on. Called once; may be async.

        An exception is logged.
        """

    @hookspec
    def hms_drain(self) -> Any:
        """Say farewell: the sidecar is about to leave, and still takes requests. May be async.

        Called once when a drain begins, after readiness went off and before ports close, which
        waits for it, but no longer than 10 seconds. An exception is logged.
        """

    @hookspec
    def hms_shutdown(self) -> Any:
        """Stop what `hms_startup` began; called once, after the last request. May be async.

        It has 10 s.
        """

    @hookspec
    def hms_identify(self, exchange: Exchange) -> Any:
        """Who is calling? Set `exchange.peer` or `exchange.principal`, or `exchange.deny(...)`."""

    @hookspec(firstresult=True)
    def hms_route(self, exchange: Exchange) -> Route | None:
        """Where should it go? Return a `Route`, or None to leave it to the next plugin.

        No route from any plugin is a 404 `NR`. Set `exchange.cluster` too to choose among the
        route's clusters; otherwise the chain picks one by weight.
        """

    @hookspec
    def hms_authorize(self, exchange: Exchange) -> Any:
        """May it? `exchange.deny(status, flag, reason)` refuses; to return is to agree."""

    @hookspec
    def hms_prepare(self, exchange: Exchange) -> Any:
        """What must it carry? Change `exchange.flow.request`."""

    @hookspec(firstresult=True)
    def hms_forward(self, exchange: Exchange, upstream: Upstream) -> Answer | None:
        """Carry it out and return the answer. The built-in `resilience` does; yours may answer first.

        Only called with `exchange.permit` set. Raise `ExchangeFailed` to answer with a failure.
        """

    @hookspec(firstresult=True)
    def hms_pick_endpoint(self, exchange: Exchange, candidates: Sequence[Any]) -> Any:
        """Choose an endpoint for one attempt, or None to leave it to the cluster's balancer.

        `candidates` are the endpoints that may be used now (`hms_addons.upstream.endpoint.Endpoint`).
        """

    @hookspec(firstresult=True)
    def hms_fallback(self, exchange: Exchange, failure: Failure) -> Answer | None:
        """Answer in place of a failure to forward, or None.

        Called when the forward phase failed, never for a request that was refused; and where a route
        names the plugin (`fallback: {plugin: …}`), in the order written there and also for a service's
        502, 503 and 504. The answer gets `X-HMS-Fallback` and the flag FB.
        """

    @hookspec
    def hms_respond(self, exchange: Exchange) -> Any:
        """What must the answer carry? Change `exchange.answer` (upstream's, or the mesh's own).

        What cannot be sent (a status outside 200..599, say) is an error of the plugin, and the answer
        goes out as it was before it. The length of a held body is written anew.
        """

    @hookspec
    def hms_complete(self, exchange: Exchange) -> Any:
        """What happened? Called exactly once for every request, however it ended. Observe only.

        A plain function: nothing is awaited here.
        """

    @hookspec
    def hms_recheck(self, exchange: Exchange) -> Any:
        """May an open tunnel go on? `exchange.deny(...)` closes it; to return is to agree.

        A WebSocket, or another upgrade, outlives the decision that let it in. So each is asked about when a new
        configuration has come into force. `exchange` is a copy of the tunnel's own, with the new `snapshot`
        and `listener`, and with the `principal`, `peer`, `path` and `route` that it was let in
        with: judge it as in `hms_authorize`, but use nothing up, as a rate limit would. An
        exception closes the tunnel. A watched WebSocket is closed with 1008, anything else cut off.
        """

    @hookspec
    def hms_load_balancers(self) -> Mapping[str, type]:
        """Name further balancers, usable as a cluster's `load_balancer`; called at start.

        Each class follows `hms_addons.upstream.load_balancer.LoadBalancer`, and may have more of what
        stands there: to be told the time, all members, or how attempts went, or to choose by the key of
        `hash_on` (`hms_addons.request_hash.request_hash`).
        """

    @hookspec
    def hms_mitmproxy_addons(self) -> Sequence[Any]:
        """Ordinary mitmproxy addons to load with this plugin; called at start."""
