"""The plugin manager: registers built-ins in order, finds installed plugins, compiles the chain."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import Counter
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from hms_addons.clock import SYSTEM_CLOCK
from hms_addons.config.places import located, located_by_itself
from hms_addons.config.problems import closest, listing
from hms_addons.engine.hook_chain import REQUEST_HOOKS, Hook, HookChain
from hms_addons.engine.hook_limit import HookLimit, pass_cancellation
from hms_addons.errors import ConfigError, MeshError
from hms_addons.hookspecs import ENTRY_POINT_GROUP, PROJECT, MeshSpecs

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from hms_addons.clock import Clock
    from hms_addons.config.snapshot import Snapshot
    from hms_addons.hookspecs import Mesh

logger = logging.getLogger(__name__)

SHUTDOWN_LIMIT = 10.0
"""Seconds that each plugin has for an `async` `hms_shutdown`."""

_ARGUMENTS = {
    name: tuple(inspect.signature(getattr(MeshSpecs, name)).parameters)[1:]
    for name in vars(MeshSpecs)
    if name.startswith("hms_")
}


class PluginError(MeshError):
    """A plugin cannot be loaded: its name, and what is wrong with it."""


class PluginManager:
    """The plugins of one sidecar, in the order in which their hooks run."""

    def __init__(self) -> None:
        self._pluggy = pluggy.PluginManager(PROJECT)
        self._pluggy.add_hookspecs(MeshSpecs)
        self._order: list[Any] = []
        self._disabled: tuple[str, ...] = ()
        self._not_started: set[str] = set()
        self.errors: Counter[tuple[str, str]] = Counter()
        """Exceptions in per-request hooks by plugin and hook, since the start."""
        self.sources: dict[str, str] = {}
        """Where each plugin came from, by plugin name: `built-in`, or its distribution."""

    def __repr__(self) -> str:
        return f"<PluginManager {', '.join(self.names)}>"

    @property
    def names(self) -> list[str]:
        """Registered plugins, in order."""
        return [self._name(plugin) for plugin in self._order]

    def get(self, name: str) -> Any:
        """The plugin registered as `name`, or None."""
        return self._pluggy.get_plugin(name)

    def register(self, plugin: Any, name: str, source: str = "built-in") -> None:
        """Add `plugin` after those already there.

        Raises:
            PluginError: it implements no hook, an unknown one, or one in a way that is not taken.
        """
        try:
            self._pluggy.register(plugin, name)
            self._pluggy.check_pending()
        except (ValueError, pluggy.PluginValidationError) as error:
            if self._pluggy.has_plugin(name) and self._pluggy.get_plugin(name) is plugin:
                self._pluggy.unregister(plugin)
            message = f"plugin '{name}' ({source}): {error}"
            raise PluginError(message) from error
        callers = self._pluggy.get_hookcallers(plugin)
        if not callers:
            self._pluggy.unregister(plugin)
            message = f"plugin '{name}' ({source}): it has no method marked @hookimpl"
            raise PluginError(message)
        for caller in callers:
            for implementation in caller.get_hookimpls():
                if implementation.plugin is plugin and (
                    implementation.wrapper or implementation.hookwrapper
                ):
                    self._pluggy.unregister(plugin)
                    message = f"plugin '{name}' ({source}): {caller.name} is a wrapper; the mesh \
compiles its hooks and takes plain ones only"
                    raise PluginError(message)
        self._order.append(plugin)
        self.sources[name] = source

    def load_entry_points(self, disabled: Sequence[str] = ()) -> None:
        """Register every installed plugin of the group `hms_addons`, by name, less `disabled`.

        Raises:
            PluginError: one of them cannot be imported or registered. It is not passed over: a
                sidecar without the policy that somebody installed would admit what it should not.
        """
        self._disabled = tuple(disabled)
        for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
            if entry_point.name in disabled:
                continue
            distribution = entry_point.dist
            source = (
                f"{distribution.name} {distribution.version}" if distribution else "entry point"
            )
            try:
                plugin = entry_point.load()
                if inspect.isclass(plugin):
                    plugin = plugin()
            except Exception as error:
                message = f"plugin '{entry_point.name}' ({source}) cannot be loaded: {error!r}"
                raise PluginError(message) from error
            self.register(plugin, entry_point.name, source)

    def _name(self, plugin: Any) -> str:
        return self._pluggy.get_name(plugin) or repr(plugin)

    def hooks(self, hook_name: str) -> list[Hook]:
        """The implementations of a hook, in calling order: tryfirst, then as registered, trylast."""
        caller = getattr(self._pluggy.hook, hook_name)
        position = {id(plugin): index for index, plugin in enumerate(self._order)}
        implementations = sorted(
            caller.get_hookimpls(),
            key=lambda impl: (impl.trylast - impl.tryfirst, position[id(impl.plugin)]),
        )
        return [
            Hook(
                _adapt(impl.function, impl.argnames, _ARGUMENTS[hook_name]),
                impl.plugin_name,
                hook_name,
            )
            for impl in implementations
        ]

    def fallback_of(self, name: str) -> Callable[..., Any] | None:
        """The `hms_fallback` of the plugin registered as `name`, if it has one."""
        hooks = self.hooks("hms_fallback")
        return next((hook.call for hook in hooks if hook.plugin == name), None)

    def compile_chain(
        self,
        rng: random.Random,
        clock: Clock = SYSTEM_CLOCK,
        snapshot: Snapshot | None = None,
    ) -> HookChain:
        """The per-request chain of the plugins registered now.

        Args:
            rng, clock: see `HookChain`.
            snapshot: leaves out what its plugin says is idle under it; None leaves nothing out.

        Raises:
            ConfigError: a plugin failed to say what is idle; the message names it.
        """
        idle = set() if snapshot is None else self._idle(snapshot)
        hooks = {
            name: [hook for hook in self.hooks(name) if (hook.plugin, name) not in idle]
            for name in REQUEST_HOOKS
        }
        return HookChain(hooks, rng, clock, self.errors)

    def _idle(self, snapshot: Snapshot) -> set[tuple[str, str]]:
        """Plugin and hook of all that has nothing to do under `snapshot`."""
        idle = set()
        for hook in self.hooks("hms_idle_hooks"):
            try:
                named = frozenset(hook.call(snapshot))
            except Exception as error:
                logger.exception("plugin %s failed in hms_idle_hooks", hook.plugin)
                message = f"plugin '{hook.plugin}' failed in hms_idle_hooks: {error!r}"
                raise ConfigError(message) from error
            unknown = named.difference(REQUEST_HOOKS)
            if unknown:
                message = f"plugin '{hook.plugin}' calls {listing(sorted(unknown))} idle in \
hms_idle_hooks; the hooks of a request are {listing(REQUEST_HOOKS)}"
                raise ConfigError(message)
            idle |= {(hook.plugin, name) for name in named}
        return idle

    def configure(self, snapshot: Snapshot, current: Snapshot | None) -> None:
        """Offer `snapshot` to every plugin; all accept it, or all are back on `current`.

        Raises:
            ConfigError: a plugin refused it, or failed, or is not there; the message names the plugin.
        """
        self._refuse_unknown(snapshot)
        accepted: list[Hook] = []
        for hook in self.hooks("hms_configure"):
            accepted.append(hook)
            try:
                hook.call(snapshot)
            except Exception as error:
                if current is not None:
                    self._roll_back(accepted, current)
                if isinstance(error, ConfigError):
                    why = located_by_itself(snapshot, str(error), f"plugins.{hook.plugin}")
                    message = f"plugin '{hook.plugin}' refused the configuration: {why}"
                else:
                    message = f"plugin '{hook.plugin}' failed in hms_configure: {error!r}"
                    logger.exception("plugin %s failed in hms_configure", hook.plugin)
                raise ConfigError(message) from error

    def _refuse_unknown(self, snapshot: Snapshot) -> None:
        """Options for a plugin that is not there: a policy that somebody relies on, misspelt.

        Raises:
            ConfigError: there are some; says where.
        """
        there = {*self.names, *self._disabled}
        unknown = [name for name in snapshot.plugins if name not in there]
        if unknown:
            message = f"no plugin of this name is here ({listing(self.names)}); install it"
            told = [located(snapshot, f"plugins.{n}", message, closest(n, there)) for n in unknown]
            raise ConfigError("\n".join(told))

    def restore(self, snapshot: Snapshot) -> None:
        """Go back to `snapshot`, which all had accepted; a plugin that fails to is logged."""
        self._roll_back(self.hooks("hms_configure"), snapshot)

    @staticmethod
    def _roll_back(accepted: list[Hook], current: Snapshot) -> None:
        for hook in accepted:
            try:
                hook.call(current)
            except Exception:
                logger.exception("plugin %s failed to go back to the old snapshot", hook.plugin)

    async def open(self, mesh: Mesh) -> None:
        """Have every plugin, in order, open what must answer at once.

        Raises:
            PluginError: one failed to.
        """
        for hook in self.hooks("hms_open"):
            await _started(hook, mesh)

    async def startup(self, mesh: Mesh) -> None:
        """Start every plugin, in order.

        Raises:
            PluginError: one failed to start; those started before it are still to be shut down.
        """
        self._not_started = {hook.plugin for hook in self.hooks("hms_startup")}
        for hook in self.hooks("hms_startup"):
            self._not_started.discard(hook.plugin)  # it may fail half way
            await _started(hook, mesh)

    async def announce(self, clock: Clock = SYSTEM_CLOCK) -> None:
        """Tell every plugin, in order, that the sidecar takes requests; failures are logged."""
        for hook in self.hooks("hms_ready"):
            await _told(hook, clock, "hear that the sidecar is ready")

    async def farewell(self, clock: Clock = SYSTEM_CLOCK) -> None:
        """Tell every plugin, last first, that the sidecar begins to leave; failures are logged."""
        for hook in reversed(self.hooks("hms_drain")):
            await _told(hook, clock, "say farewell")

    async def shutdown(self, clock: Clock = SYSTEM_CLOCK) -> None:
        """Stop every plugin, last first.

        One that fails, or takes longer than `SHUTDOWN_LIMIT`, is logged; the others are still
        stopped. Those whose start was not reached, because an earlier one failed, are left alone.
        """
        for hook in reversed(self.hooks("hms_shutdown")):
            if hook.plugin not in self._not_started:
                await _told(hook, clock, "shut down")

    def collect(self, hook_name: str) -> list[Any]:
        """What every implementation of a start-time hook returns, in order."""
        return [result for hook in self.hooks(hook_name) if (result := hook.call()) is not None]


async def _started(hook: Hook, mesh: Mesh) -> None:
    """Call a hook without which the sidecar cannot start."""
    try:
        result = hook.call(mesh)
        if inspect.isawaitable(result):
            await result
    except (Exception, asyncio.CancelledError) as error:
        pass_cancellation(error)
        message = f"plugin '{hook.plugin}' failed to start: {str(error) or repr(error)}"
        raise PluginError(message) from error


async def _told(hook: Hook, clock: Clock, what: str) -> None:
    """Call a hook that may not keep the others from hearing of it, however it fares."""
    try:
        result = hook.call()
        if inspect.isawaitable(result):
            await HookLimit(clock).wait(result, SHUTDOWN_LIMIT)
    except (Exception, asyncio.CancelledError) as error:
        pass_cancellation(error)
        logger.exception("plugin %s failed to %s", hook.plugin, what)


def _adapt(
    function: Callable[..., Any], taken: Sequence[str], given: Sequence[str]
) -> Callable[..., Any]:
    """`function`, called with all of a hook's arguments by position though it takes only `taken`.

    pluggy lets an implementation leave out arguments that it does not need.
    """
    if tuple(taken) == tuple(given):
        return function
    positions = [given.index(name) for name in taken]
    return lambda *arguments: function(*(arguments[index] for index in positions))
