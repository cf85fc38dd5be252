"""An answer in place of a failure: another cluster's, a fixed one, the last good one, or a plugin's.

It stands around the built-in forwarding of the routes that have a `fallback`, and looks at how that
ended. A request that was refused never comes here. Every fallback answer says so: `X-HMS-Fallback`, and
the flag FB.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from hms_addons.clock import SYSTEM_CLOCK, within
from hms_addons.config.snapshot import DEFAULT_TIMEOUT
from hms_addons.config.snapshot_forwarding import FallbackKind
from hms_addons.errors import ConfigError, ExchangeFailed, Failure, Flag, reason_phrase
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer, flaw
from hms_addons.last_answers import LastAnswers, key_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Route, Snapshot
    from hms_addons.config.snapshot_forwarding import FallbackStep
    from hms_addons.exchange import Exchange
    from hms_addons.hookspecs import Mesh, Upstream

    type Forward = Callable[[Exchange, Upstream], Awaitable[Answer]]
    type Elsewhere = Callable[[Exchange, Upstream, FallbackStep, float], Awaitable[Answer | None]]
    type PluginFallback = Callable[[Exchange, Failure], Any]

logger = logging.getLogger(__name__)

_GOOD: Final = range(200, 300)
_SERVER_ERROR: Final = 500
_READS: Final = (b"GET", b"HEAD")
_SAYS_NOTHING: Final = (304, 408, 425, 429)
"""Answers that leave open what a good one would say now."""


class Fallback:
    """The built-in plugin that falls back.

    Args:
        forward: how requests are carried out; raises `ExchangeFailed`.
        elsewhere: tries a fallback's cluster.
        fallback_of: the `hms_fallback` of the plugin with that name, if it has one.
        clock: time.
    """

    def __init__(
        self,
        forward: Forward,
        elsewhere: Elsewhere,
        fallback_of: Callable[[str], PluginFallback | None],
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._forward = forward
        self._elsewhere = elsewhere
        self._fallback_of = fallback_of
        self._clock = clock
        self._plugins: dict[str, PluginFallback] = {}
        self._plugin_errors: Counter[str] = Counter()
        self.answers = LastAnswers()

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        """Find the plugins that are named; forget answers when nothing asks for them any more.

        Raises:
            ConfigError: a plugin is not there, or has no `hms_fallback`.
        """
        plugins: dict[str, PluginFallback] = {}
        stale = False
        for route in _routes(snapshot):
            for step in route.fallback:
                stale = stale or step.kind is FallbackKind.STALE
                if step.kind is not FallbackKind.PLUGIN or step.plugin in plugins:
                    continue
                found = self._fallback_of(step.plugin)
                if found is None:
                    message = (
                        f"route {route.name} of listener {route.listener}: fallback: no plugin "
                        f"'{step.plugin}' with an hms_fallback is here; install it, or name another"
                    )
                    raise ConfigError(message)
                plugins[step.plugin] = found
        self._plugins = plugins
        if not stale:
            self.answers.clear()

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Collection[str]:
        """No route falls back, so none needs to be asked."""
        return () if any(route.fallback for route in _routes(snapshot)) else ("hms_forward",)

    @hookimpl
    def hms_startup(self, mesh: Mesh) -> None:
        """Show what is kept in the status."""
        mesh.add_status(
            "last_answers",
            lambda: {
                "entries": len(self.answers),
                "bytes": self.answers.size,
                **dict(sorted(self.answers.counts.items())),
            },
        )

    @hookimpl(trylast=True)
    def hms_forward(
        self, exchange: Exchange, upstream: Upstream
    ) -> Coroutine[Any, Any, Answer] | None:
        """See `MeshSpecs.hms_forward`; leaves requests whose route has no fallback to the next.

        Raises:
            ExchangeFailed: it failed, and there is no other answer either.
        """
        route = exchange.route
        if route is None or not route.fallback:
            return None
        return self._guarded(exchange, upstream, route)

    async def _guarded(self, exchange: Exchange, upstream: Upstream, route: Route) -> Answer:
        began = self._clock.monotonic()
        try:
            answer = await self._forward(exchange, upstream)
        except ExchangeFailed as failed:
            found = await self._fall_back(exchange, upstream, failed.failure, None, began)
            if found is None:
                raise
            return found
        if answer.status >= _SERVER_ERROR:
            try:
                failure = _failure_of(exchange, answer.status)
                found = await self._fall_back(exchange, upstream, failure, answer.status, began)
            except BaseException:
                answer.release()
                raise
            if found is None:
                return answer
            answer.release()
            return found
        if exchange.method_bytes == b"GET" and _keeps(route) and not _has_body(exchange):
            if answer.status in _GOOD:
                self.answers.keep(key_of(exchange), exchange, answer, self._clock.monotonic)
            elif answer.status not in _SAYS_NOTHING:
                # Gone, moved, or no longer for this caller: what it was before must not come back.
                self.answers.forget(key_of(exchange))
        return answer

    async def _fall_back(
        self,
        exchange: Exchange,
        upstream: Upstream,
        failure: Failure,
        status: int | None,
        began: float,
    ) -> Answer | None:
        """The first answer of the steps that are meant for this.

        Args:
            exchange: that failed.
            upstream: as given to `hms_forward`.
            failure: how.
            status: of the upstream's answer; None if there is none.
            began: monotonic seconds, when it was forwarded.
        """
        route = exchange.route
        assert route is not None  # noqa: S101 - see `hms_forward`
        for step in route.fallback:
            if status is None:
                if failure.flag not in step.flags:
                    continue
            elif status not in step.statuses:
                continue
            found: Answer | None
            what: str
            if step.kind is FallbackKind.CLUSTER:
                found = await self._elsewhere(exchange, upstream, step, began)
                what = f"cluster={exchange.cluster.name if exchange.cluster else ''}"
            elif step.kind is FallbackKind.RESPONSE:
                found = Answer(
                    step.status, reason_phrase(step.status), step.fields, step.body, local=True
                )
                what = "response"
            elif step.kind is FallbackKind.STALE:
                found, what = self._stale(exchange, step)
            else:
                found = await self._ask(exchange, failure, step, route)
                what = f"plugin={step.plugin}"
            if found is not None:
                because = str(failure.flag) if status is None else str(status)
                exchange.mark_fallback(found, what, because, failure.detail)
                return found
        return None

    def _stale(self, exchange: Exchange, step: FallbackStep) -> tuple[Answer | None, str]:
        if exchange.method_bytes not in _READS or _has_body(exchange):
            return None, ""
        now = self._clock.monotonic()
        found = self.answers.find(key_of(exchange), step.max_age, now)
        if found is None:
            return None, ""
        answer, age = found
        if exchange.method_bytes == b"HEAD":
            answer.body = b""  # its length stays what a GET would have had
        return answer, f"stale; age={age}"

    async def _ask(
        self, exchange: Exchange, failure: Failure, step: FallbackStep, route: Route
    ) -> Answer | None:
        hook = self._plugins.get(step.plugin)
        if hook is None:
            return None  # the request began with an older configuration, whose plugin has gone
        try:
            async with within(self._clock, route.timeout or DEFAULT_TIMEOUT):
                answer = hook(exchange, failure)
                if inspect.isawaitable(answer):
                    answer = await answer
        except Exception as error:  # noqa: BLE001 - the failure itself is still an answer
            self._plugin_failed(step.plugin, "failed in hms_fallback", error)
            return None
        if answer is None:
            return None
        if not isinstance(answer, Answer) or flaw(answer.state()) is not None:
            self._plugin_failed(step.plugin, "gave what cannot be sent in hms_fallback", None)
            return None
        return answer

    def _plugin_failed(self, plugin: str, how: str, error: Exception | None) -> None:
        """Log it the 1st, 2nd, 4th, 8th … time: an outage must not fill a disk."""
        self._plugin_errors[plugin] += 1
        count = self._plugin_errors[plugin]
        if count & (count - 1) == 0:
            logger.error("plugin %s %s (%d so far)", plugin, how, count, exc_info=error)


def _has_body(exchange: Exchange) -> bool:
    """What it asks for is in its body, too, which is no part of the key."""
    return exchange.body is not None or bool(exchange.content)


def _keeps(route: Route) -> bool:
    return any(step.kind is FallbackKind.STALE for step in route.fallback)


def _failure_of(exchange: Exchange, status: int) -> Failure:
    """What a plugin is told of an answer that is no good."""
    where = f"cluster {exchange.cluster.name if exchange.cluster else ''}"
    detail = f"{where}: endpoint {exchange.endpoint} answered {status}"
    return Failure(status, Flag.URX, "Upstream answered with an error", detail)


def _routes(snapshot: Snapshot) -> Iterator[Route]:
    for listener in snapshot.listeners:
        for table in (listener.routes, *listener.services.values()):
            yield from table
