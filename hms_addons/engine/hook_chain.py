"""The seven phases of a request, compiled from the registered plugins. Fails closed.

pluggy registers and orders plugins; it does not dispatch here, as its call costs several µs. The
chain holds one flat tuple of bound functions per hook and runs them in order:

- an exception in identify, route, authorize or prepare ends in a 500 `PE` that names plugin and hook;
- only the end of authorize makes a `Permit`, and `forward` goes nowhere without one;
- an exception in respond or complete is logged and counted, and the exchange goes on; an answer that
  cannot be sent counts as one, and goes out as it was before that plugin;
- a hook that keeps waiting past the route's timeout (15 s where there is none) is given up, and the
  request refused like after an exception; in respond its answer is. `hms_forward` alone may wait on.

Cancelling is how a caller's leaving ends an exchange. A `CancelledError` that comes out of a plugin
though nobody has cancelled this task is an exception like any other, and so are `GeneratorExit`,
`SystemExit` and `KeyboardInterrupt`: a person's Ctrl-C comes by the loop's signal handler.
"""

from __future__ import annotations

import inspect
import logging
from collections import Counter
from collections.abc import Callable  # noqa: TC003 - a NamedTuple's annotations are looked at where it is compiled
from types import CoroutineType
from typing import TYPE_CHECKING, Any, NamedTuple

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.snapshot import DEFAULT_TIMEOUT, Route
from hms_addons.engine.hook_limit import HookLimit, HookTimeoutError, pass_cancellation
from hms_addons.errors import ExchangeFailed, Failure, Fault, MeshError, problem
from hms_addons.exchange import Permit
from hms_addons.http_message import Answer, flaw, without_fields

if TYPE_CHECKING:
    import random
    from collections.abc import Mapping, Sequence

    from hms_addons.clock import Clock
    from hms_addons.exchange import Exchange

logger = logging.getLogger(__name__)

REQUEST_HOOKS = (
    "hms_identify",
    "hms_route",
    "hms_authorize",
    "hms_prepare",
    "hms_forward",
    "hms_pick_endpoint",
    "hms_fallback",
    "hms_respond",
    "hms_complete",
    "hms_recheck",
)
"""The hooks that run per request, in the order of the phases."""


class Hook(NamedTuple):
    """One plugin's implementation of one hook."""

    call: Callable[..., Any]
    plugin: str
    name: str


_FRAMING = frozenset({b"content-length", b"transfer-encoding", b"connection"})

_NOBODY = Hook(lambda: None, "mesh", "chain")


class _UnsoundError(MeshError):
    """A plugin has left an answer that cannot be sent."""


class HookChain:
    """Runs an `Exchange` through the phases; a new one is compiled when plugins change.

    Only `watch` changes one.

    Args:
        hooks: the implementations of each of `REQUEST_HOOKS`, in calling order.
        rng: for choosing among a route's weighted clusters when no plugin did.
        clock: bounds what hooks may wait.
        errors: where exceptions are counted, by plugin and hook; chains may share one.
    """

    def __init__(
        self,
        hooks: Mapping[str, Sequence[Hook]],
        rng: random.Random,
        clock: Clock = SYSTEM_CLOCK,
        errors: Counter[tuple[str, str]] | None = None,
    ) -> None:
        (
            self._identify,
            self._route,
            self._authorize,
            self._prepare,
            self._forward,
            self._pick,
            self._fallback,
            self._respond,
            self._complete,
            self._recheck,
        ) = (tuple(hooks.get(name, ())) for name in REQUEST_HOOKS)
        self._responds = bool(self._respond)
        self._watched = False
        self._rng = rng
        self._clock = clock
        self._awaitable: set[type] = {CoroutineType}
        """Types of what `hms_forward` has given that had to be awaited."""
        self.errors: Counter[tuple[str, str]] = Counter() if errors is None else errors
        """Exceptions by plugin and hook, since the start."""

    def __repr__(self) -> str:
        phases = ("identify", "route", "authorize", "prepare", "forward", "respond", "complete")
        names = {
            phase: [hook.plugin for hook in getattr(self, f"_{phase}")]
            for phase in phases
            if getattr(self, f"_{phase}")
        }
        return f"<HookChain {names}>"

    async def decide(self, exchange: Exchange) -> None:  # noqa: C901, PLR0912 - flat: a call per phase costs
        """Identify, route, authorize, prepare. Ends with a permit or with a failure, never both."""
        hook = _NOBODY
        limit: HookLimit | None = None
        try:
            for hook in self._identify:
                result = hook.call(exchange)
                if result is not None and inspect.isawaitable(result):
                    limit = limit or HookLimit(self._clock)
                    await limit.wait(result, _patience(exchange))
                if exchange.failure is not None:
                    return
            route: Any = None
            for hook in self._route:
                route = hook.call(exchange)
                # The usual case first, here as in `forward`: `isawaitable` asks abstract classes.
                if route is not None and type(route) is not Route and inspect.isawaitable(route):
                    limit = limit or HookLimit(self._clock)
                    route = await limit.wait(route, _patience(exchange))
                if exchange.failure is not None:
                    return
                if route is not None:
                    break
            if not isinstance(route, Route):
                _no_route(exchange, route, hook)
                return
            exchange.route = route
            if exchange.cluster is None and route.clusters:  # else it answers by itself
                self._choose_cluster(exchange, route)
            for hook in self._authorize:
                result = hook.call(exchange)
                if result is not None and inspect.isawaitable(result):
                    limit = limit or HookLimit(self._clock)
                    await limit.wait(result, _patience(exchange))
                if exchange.failure is not None:
                    return
            for hook in self._prepare:
                result = hook.call(exchange)
                if result is not None and inspect.isawaitable(result):
                    limit = limit or HookLimit(self._clock)
                    await limit.wait(result, _patience(exchange))
                if exchange.failure is not None:
                    return
            # After prepare, so that nothing which failed there can hold one.
            exchange.permit = Permit()
        except ExchangeFailed as failed:
            exchange.failure = exchange.failure or failed.failure
        except BaseException as error:  # noqa: BLE001 - whatever a plugin raises, the request is refused
            self._plugin_failed(exchange, hook, error)

    def _choose_cluster(self, exchange: Exchange, route: Route) -> None:
        clusters = route.clusters
        chosen = clusters[0]
        if len(clusters) > 1:
            weights = [weighted.weight for weighted in clusters]
            chosen = self._rng.choices(clusters, weights)[0]
        exchange.cluster = exchange.snapshot.clusters[chosen.cluster]

    async def forward(self, exchange: Exchange, upstream: Any) -> None:
        """Carry a permitted exchange out; ends with an answer, its own or the mesh's."""
        hook = _NOBODY
        try:
            if exchange.permit is None:
                _refuse_without_permit(exchange)
                return
            for hook in self._forward:
                answer = hook.call(exchange, upstream)
                if answer is None:
                    continue
                # The usual case first: `isawaitable` looks a type up in abstract classes.
                kind = type(answer)
                if kind in self._awaitable or inspect.isawaitable(answer):
                    self._awaitable.add(kind)
                    answer = await answer
                if answer is not None:
                    exchange.answer = _checked(answer)
                    return
            exchange.fail(Fault.PLUGIN_ERROR, "no plugin carries requests out (hms_forward)")
        except ExchangeFailed as failed:
            exchange.failure = exchange.failure or failed.failure
        except BaseException as error:  # noqa: BLE001 - see decide
            self._plugin_failed(exchange, hook, error)
        if self._fallback and exchange.failure is not None:
            await self._fall_back(exchange, exchange.failure)

    async def _fall_back(self, exchange: Exchange, failure: Failure) -> None:
        limit = HookLimit(self._clock)
        for hook in self._fallback:
            try:
                answer = hook.call(exchange, failure)
                if answer is not None and inspect.isawaitable(answer):
                    answer = await limit.wait(answer, _patience(exchange))
                if answer is not None:
                    exchange.answer = checked = _checked(answer)
                    what = f"plugin={hook.plugin}"
                    exchange.mark_fallback(checked, what, str(failure.flag), failure.detail)
                    return
            except BaseException as error:  # noqa: BLE001 - the failure itself is still an answer
                pass_cancellation(error)
                self._count(hook, error)

    async def respond(self, exchange: Exchange) -> None:
        """Let plugins change the answer, making the mesh's own first if there is none."""
        if exchange.answer is None:
            exchange.answer = local_answer(exchange)
        limit: HookLimit | None = None
        changed = False
        for hook in self._respond:
            before = exchange.answer
            state = before.state()
            try:
                result = hook.call(exchange)
                if result is not None and inspect.isawaitable(result):
                    limit = limit or HookLimit(self._clock)
                    await limit.wait(result, _patience(exchange))
                after = _answer_of(exchange)
                if after is not before or before.state() != state:
                    exchange.answer = _sound(after, state)
                    changed = True
            except HookTimeoutError as error:
                # What it would have removed is not known, so the answer does not go out.
                self._plugin_failed(exchange, hook, error)
                exchange.answer = local_answer(exchange)
                break
            except BaseException as error:  # noqa: BLE001 - logged and counted: too late to refuse
                exchange.answer = before
                before.put_back(state)
                pass_cancellation(error)
                self._count(hook, error)
        if changed:
            # How long the body is and whether the connection goes on is the engine's to say.
            answer = exchange.answer
            answer.fields = without_fields(answer.fields, _FRAMING)

    async def recheck(self, exchange: Exchange) -> None:
        """Judge an open tunnel's request again; ends with a failure if it may not go on."""
        hook = _NOBODY
        limit = HookLimit(self._clock)
        try:
            for hook in self._recheck:
                result = hook.call(exchange)
                if result is not None and inspect.isawaitable(result):
                    await limit.wait(result, _patience(exchange))
                if exchange.failure is not None:
                    return
        except ExchangeFailed as failed:
            exchange.failure = exchange.failure or failed.failure
        except BaseException as error:  # noqa: BLE001 - see decide
            self._plugin_failed(exchange, hook, error)

    def complete(self, exchange: Exchange) -> None:
        """Tell every plugin that it is over. Runs even while the task is being cancelled."""
        for hook in self._complete:
            try:
                result = hook.call(exchange)
                if result is not None and inspect.isawaitable(result):
                    result.close() if inspect.iscoroutine(result) else None
                    message = "hms_complete must be a plain function"
                    raise TypeError(message)  # noqa: TRY301 - counted like any other fault of it
            except BaseException as error:  # noqa: BLE001 - an observer cannot change what happened
                self._count(hook, error)

    @property
    def responds(self) -> bool:
        """Some plugin changes answers."""
        return self._responds

    @property
    def rechecks(self) -> bool:
        """Some plugin judges open tunnels again."""
        return bool(self._recheck)

    @property
    def picks_endpoints(self) -> bool:
        """Some plugin wants a say in `hms_pick_endpoint`."""
        return bool(self._pick)

    def pick_endpoint(self, exchange: Exchange, candidates: Sequence[Any]) -> Any:
        """The endpoint that a plugin chose among `candidates`, or None.

        Raises:
            ExchangeFailed: a plugin raised; the request is refused.
        """
        for hook in self._pick:
            try:
                endpoint = hook.call(exchange, candidates)
            except BaseException as error:
                self._count(hook, error)
                raise ExchangeFailed(_plugin_failure(hook, error)) from error
            if endpoint is not None:
                return endpoint
        return None

    def watch(self, watched: Callable[[Hook], Hook]) -> list[tuple[Hook, ...]]:
        """Put every hook behind what `watched` makes of it; see `engine.hook_times`.

        Returns:
            What `unwatch` is to be given.

        Raises:
            MeshError: they are watched already.
        """
        if self._watched:
            raise MeshError("the hooks are measured already; ask again when that is done")
        before = [
            self._identify,
            self._route,
            self._authorize,
            self._prepare,
            self._forward,
            self._pick,
            self._fallback,
            self._respond,
            self._complete,
            self._recheck,
        ]
        self.unwatch([tuple([watched(hook) for hook in hooks]) for hooks in before])
        self._watched = True
        return before

    def unwatch(self, hooks: list[tuple[Hook, ...]]) -> None:
        """Put the hooks back that `watch` has returned. Requests on their way notice nothing."""
        self._watched = False
        self._identify = hooks[0]
        self._route = hooks[1]
        self._authorize = hooks[2]
        self._prepare = hooks[3]
        self._forward = hooks[4]
        self._pick = hooks[5]
        self._fallback = hooks[6]
        self._respond = hooks[7]
        self._complete = hooks[8]
        self._recheck = hooks[9]

    def _plugin_failed(self, exchange: Exchange, hook: Hook, error: BaseException) -> None:
        pass_cancellation(error)
        self._count(hook, error)
        exchange.permit = None
        exchange.failure = exchange.failure or _plugin_failure(hook, error)

    def _count(self, hook: Hook, error: BaseException) -> None:
        self.errors[hook.plugin, hook.name] += 1
        count = self.errors[hook.plugin, hook.name]
        # The 1st, 2nd, 4th, 8th … time: a plugin that fails at every request must not fill a disk.
        if count & (count - 1) == 0:
            logger.error(
                "plugin %s failed in %s (%d so far): %r",
                hook.plugin,
                hook.name,
                count,
                error,
                exc_info=error,
            )


def _answer_of(exchange: Exchange) -> Answer | None:
    """What a plugin may have left, so that nothing is taken for granted (also by mypyc)."""
    return exchange.answer


def _checked(answer: Any) -> Answer:
    """What a plugin answers with; an upstream's, as its parser made it, has been looked at there."""
    if not isinstance(answer, Answer):
        raise _UnsoundError(f"{type(answer).__name__} is no Answer")
    found = flaw(answer.state()) if answer.vouched is None else None
    if found is not None:
        raise _UnsoundError(f"the answer cannot be sent: {found}")
    return answer


def _sound(answer: Any, before: tuple[Any, ...]) -> Answer:
    """What a plugin has left of an answer, if it can be sent."""
    if not isinstance(answer, Answer):
        raise _UnsoundError(f"{type(answer).__name__} is no Answer")
    found = flaw(answer.state())
    if found is not None and found != flaw(before):  # a script's odd status is no plugin's fault
        raise _UnsoundError(f"the answer that it left cannot be sent: {found}")
    body = answer.body
    if isinstance(body, bytes) and (body or body is not before[3]):
        answer.length = len(body)
    return answer


def _patience(exchange: Exchange) -> float:
    """Seconds that hooks may wait together. A route without a timeout is for bodies without end."""
    route = exchange.route
    return DEFAULT_TIMEOUT if route is None else route.timeout or DEFAULT_TIMEOUT


def _plugin_failure(hook: Hook, error: BaseException) -> Failure:
    # Not the exception's text: it may hold anything, and this goes to the caller.
    what = "failed in"
    if isinstance(error, HookTimeoutError):
        what = f"was still waiting after {error.seconds:g}s in"
    return Failure.of(
        Fault.PLUGIN_ERROR,
        f"plugin '{hook.plugin}' {what} {hook.name}; the sidecar's log has the traceback",
    )


def _refuse_without_permit(exchange: Exchange) -> None:
    exchange.fail(Fault.PLUGIN_ERROR, "refused: the exchange holds no permit to be forwarded")


def _no_route(exchange: Exchange, route: Any, hook: Hook) -> None:
    if route is not None:
        detail = f"plugin '{hook.plugin}' returned {type(route).__name__} from {hook.name}"
        exchange.fail(Fault.PLUGIN_ERROR, f"{detail}, which is no Route")
        return
    exchange.fail(
        Fault.NO_ROUTE,
        f"no route of listener '{exchange.listener.name}' matches {exchange.method} "
        f"{exchange.path}; `hms explain` and /explain on the admin port tell why not",
    )


def local_answer(exchange: Exchange) -> Answer:
    """The mesh's own answer to an exchange that failed."""
    failure = exchange.failure
    if failure is None:
        failure = Failure.of(Fault.PLUGIN_ERROR, "the exchange ended without an answer")
        exchange.failure = failure
    reason, fields, body = problem(failure, exchange.request_id)
    return Answer(failure.status, reason, fields, body, local=True)
