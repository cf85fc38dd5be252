from __future__ import annotations

import asyncio
import logging
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.bootstrap import build_plugins
from hms_addons.errors import ConfigError
from hms_addons.hookspecs import hookimpl
from hms_addons.plugins import PluginError, PluginManager
from tests.fakes.clock import FakeClock
from tests.fakes.exchange import make_exchange, make_route, make_snapshot
from tests.fakes.upstream import make_cluster

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from hms_addons.config.snapshot import Snapshot
    from hms_addons.exchange import Exchange

CLUSTERS = {"auth-svc": make_cluster()}
OLD, NEW = (make_snapshot(version=version, clusters=CLUSTERS) for version in ("old", "new"))


class Recorder:
    """Writes down what it is called with, in a list that several may share."""

    def __init__(self, name: str, log: list[tuple[str, str]], refuses: Any = None) -> None:
        self.name = name
        self.log = log
        self.refuses = refuses

    @hookimpl
    def hms_configure(self, snapshot: Snapshot) -> None:
        self.log.append((self.name, snapshot.version))
        if self.refuses is not None and snapshot.version == "new":
            raise self.refuses

    @hookimpl
    async def hms_open(self, mesh: Any) -> None:
        self.log.append((self.name, f"open {mesh}"))
        if isinstance(self.refuses, RuntimeError):
            raise self.refuses

    @hookimpl
    async def hms_startup(self, mesh: Any) -> None:
        self.log.append((self.name, "startup"))
        if isinstance(self.refuses, RuntimeError):
            raise self.refuses

    @hookimpl
    async def hms_ready(self) -> None:
        self.log.append((self.name, "ready"))
        if self.refuses is not None:
            raise self.refuses

    @hookimpl
    def hms_drain(self) -> None:
        self.log.append((self.name, "drain"))
        if self.refuses is not None:
            raise self.refuses

    @hookimpl
    def hms_shutdown(self) -> None:
        self.log.append((self.name, "shutdown"))
        if self.refuses is not None:
            raise self.refuses


class Log:
    """Plugins `one`, `two`, `three`, of which the second may refuse."""

    def __init__(self, refuses: Exception | None = None) -> None:
        self.calls: list[tuple[str, str]] = []
        self.plugins = PluginManager()
        for name in ("one", "two", "three"):
            reason = refuses if name == "two" else None
            self.plugins.register(Recorder(name, self.calls, reason), name)


def with_hook(hook: str, function: Any) -> PluginManager:
    """A manager with one plugin that implements one hook."""
    plugins = PluginManager()
    plugins.register(type("Only", (), {hook: staticmethod(hookimpl(function))})(), "only")
    return plugins


# -- each hook -------------------------------------------------------------------------------------


def test_hms_configure_asks_everyone_in_order() -> None:
    log = Log()
    log.plugins.configure(NEW, OLD)
    assert log.calls == [("one", "new"), ("two", "new"), ("three", "new")]


@pytest.mark.parametrize("error", [ConfigError("no such bucket"), ValueError("boom")])
def test_hms_configure_takes_everyone_back_when_one_refuses(error: Exception) -> None:
    log = Log(error)
    with pytest.raises(ConfigError, match="plugin 'two'.*(no such bucket|boom)"):
        log.plugins.configure(NEW, OLD)
    assert log.calls == [("one", "new"), ("two", "new"), ("one", "old"), ("two", "old")]


class Lazy:
    """Has nothing to authorise under the old snapshot."""

    def __init__(self, idle: Any = ("hms_authorize",)) -> None:
        self.idle = idle
        self.asked: list[str] = []

    @hookimpl
    def hms_idle_hooks(self, snapshot: Snapshot) -> Any:
        if isinstance(self.idle, Exception):
            raise self.idle
        return self.idle if snapshot.version == "old" else ()

    @hookimpl
    def hms_authorize(self, exchange: Exchange) -> None:
        self.asked.append(exchange.snapshot.version)
        exchange.deny(403, "RBAC", "no")

    @hookimpl
    def hms_route(self, exchange: Exchange) -> Any:
        return make_route()


async def test_hms_idle_hooks_are_left_out_under_their_snapshot_alone() -> None:
    plugins, lazy = PluginManager(), Lazy()
    plugins.register(lazy, "lazy")
    for snapshot, denied in ((OLD, False), (NEW, True), (None, True)):
        exchange = make_exchange(snapshot=snapshot or OLD)
        await plugins.compile_chain(Random(1), snapshot=snapshot).decide(exchange)
        assert (exchange.failure is not None) is denied
    assert lazy.asked == ["new", "old"]


async def test_what_is_idle_in_one_plugin_is_not_in_another() -> None:
    plugins, lazy, busy = PluginManager(), Lazy(), Lazy(())
    plugins.register(lazy, "lazy")
    plugins.register(busy, "busy")
    await plugins.compile_chain(Random(1), snapshot=OLD).decide(make_exchange(snapshot=OLD))
    assert (lazy.asked, busy.asked) == ([], ["old"])


@pytest.mark.parametrize(
    ("idle", "said"),
    [
        (ValueError("boom"), "plugin 'lazy' failed in hms_idle_hooks: ValueError('boom')"),
        (None, "plugin 'lazy' failed in hms_idle_hooks: TypeError"),
        (("hms_authorise",), "plugin 'lazy' calls hms_authorise idle in hms_idle_hooks; the hooks"),
        (("hms_configure",), "plugin 'lazy' calls hms_configure idle"),
    ],
)
def test_hms_idle_hooks_that_fail_refuse_the_snapshot(idle: Any, said: str) -> None:
    plugins = PluginManager()
    plugins.register(Lazy(idle), "lazy")
    with pytest.raises(ConfigError) as caught:
        plugins.compile_chain(Random(1), snapshot=OLD)
    assert said in str(caught.value)


def test_chains_of_one_manager_count_errors_together() -> None:
    plugins = PluginManager()
    plugins.register(Lazy(), "lazy")
    old = plugins.compile_chain(Random(1), snapshot=OLD)
    new = plugins.compile_chain(Random(1), snapshot=NEW)
    assert old.errors is new.errors is plugins.errors


def test_hms_configure_has_nothing_to_go_back_to_at_first() -> None:
    log = Log(ConfigError("no"))
    with pytest.raises(ConfigError):
        log.plugins.configure(NEW, None)
    assert log.calls == [("one", "new"), ("two", "new")]


async def test_hms_open_runs_in_order_and_may_be_async() -> None:
    log = Log()
    await log.plugins.open("mesh")  # type: ignore[arg-type]
    assert log.calls == [("one", "open mesh"), ("two", "open mesh"), ("three", "open mesh")]


async def test_hms_open_that_fails_ends_the_start_and_names_the_plugin() -> None:
    log = Log(RuntimeError("the port is in use"))
    with pytest.raises(PluginError, match="plugin 'two' failed to start: the port is in use"):
        await log.plugins.open("mesh")  # type: ignore[arg-type]
    assert [name for name, _ in log.calls] == ["one", "two"]


async def test_hms_startup_runs_in_order_and_may_be_async() -> None:
    log = Log()
    await log.plugins.startup(None)  # type: ignore[arg-type]
    assert log.calls == [("one", "startup"), ("two", "startup"), ("three", "startup")]


async def test_hms_startup_that_fails_ends_the_start_and_names_the_plugin() -> None:
    log = Log(RuntimeError("no database"))
    with pytest.raises(PluginError, match="plugin 'two' failed to start: no database"):
        await log.plugins.startup(None)  # type: ignore[arg-type]
    assert log.calls == [("one", "startup"), ("two", "startup")]


async def test_hms_ready_runs_in_order_and_past_failures(caplog: pytest.LogCaptureFixture) -> None:
    log = Log(ValueError("stuck"))
    await log.plugins.announce()
    assert log.calls == [("one", "ready"), ("two", "ready"), ("three", "ready")]
    assert "plugin two failed to hear that the sidecar is ready" in caplog.text


async def test_hms_drain_runs_last_first_and_past_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log(ValueError("stuck"))
    await log.plugins.farewell()
    assert log.calls == [("three", "drain"), ("two", "drain"), ("one", "drain")]
    assert "plugin two failed to say farewell" in caplog.text


async def test_hms_drain_that_hangs_does_not_keep_the_sidecar() -> None:
    clock = FakeClock()
    plugins = with_hook("hms_drain", lambda: asyncio.Event().wait())
    leaving = asyncio.ensure_future(plugins.farewell(clock))
    await clock.advance(9.9)
    assert not leaving.done()
    await clock.advance(0.2)
    await leaving
    assert clock.pending == 0


async def test_hms_shutdown_runs_last_first_and_past_failures(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = Log(ValueError("stuck"))
    await log.plugins.shutdown()
    assert log.calls == [("three", "shutdown"), ("two", "shutdown"), ("one", "shutdown")]
    assert "plugin two failed to shut down" in caplog.text


async def test_hms_shutdown_that_hangs_or_is_cancelled_does_not_keep_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    clock = FakeClock()
    log = Log()

    async def hangs() -> None:
        await asyncio.Event().wait()

    async def cancelled() -> None:
        raise asyncio.CancelledError

    for name, function in (("four", hangs), ("five", cancelled)):
        plugin = type("Plugin", (), {"hms_shutdown": staticmethod(hookimpl(function))})()
        log.plugins.register(plugin, name)
    task = asyncio.create_task(log.plugins.shutdown(clock))
    await clock.advance(10.1)
    await task
    assert log.calls == [("three", "shutdown"), ("two", "shutdown"), ("one", "shutdown")]
    assert "plugin five failed to shut down" in caplog.text
    assert "plugin four failed to shut down" in caplog.text
    assert clock.pending == 0


async def test_hms_shutdown_is_for_those_whose_start_was_reached() -> None:
    log = Log(RuntimeError("no database"))
    with pytest.raises(PluginError):
        await log.plugins.startup(None)  # type: ignore[arg-type]
    await log.plugins.shutdown()
    assert log.calls[2:] == [("two", "shutdown"), ("one", "shutdown")]


async def test_hms_startup_that_is_cancelled_from_within_ends_the_start() -> None:
    async def hms_startup(mesh: Any) -> None:
        raise asyncio.CancelledError

    plugins = with_hook("hms_startup", hms_startup)
    with pytest.raises(PluginError, match="plugin 'only' failed to start: CancelledError"):
        await plugins.startup(None)  # type: ignore[arg-type]


def test_hms_load_balancers_are_collected() -> None:
    def hms_load_balancers() -> Mapping[str, type]:
        return {"sticky": int}

    plugins = with_hook("hms_load_balancers", hms_load_balancers)
    assert plugins.collect("hms_load_balancers") == [{"sticky": int}]


def test_hms_mitmproxy_addons_are_collected() -> None:
    addon = object()

    def hms_mitmproxy_addons() -> Sequence[Any]:
        return [addon]

    plugins = with_hook("hms_mitmproxy_addons", hms_mitmproxy_addons)
    assert plugins.collect("hms_mitmproxy_addons") == [[addon]]


def called_with(hook: str, *given: Any) -> Any:
    """What the one implementation of a hook gets of its arguments, all of them asked for."""
    names = {
        "hms_forward": "exchange, upstream",
        "hms_pick_endpoint": "exchange, candidates",
        "hms_fallback": "exchange, failure",
    }.get(hook, "exchange")
    scope: dict[str, Any] = {}
    exec(f"def function({names}): return ({names},)", scope)  # pluggy reads their names
    [one] = with_hook(hook, scope["function"]).hooks(hook)
    assert one.plugin == "only"
    return one.call(*given)


def check_gets_the_exchange(hook: str, *more: Any) -> None:
    exchange = make_exchange()
    assert called_with(hook, exchange, *more) == (exchange, *more)


def test_hms_identify() -> None:
    check_gets_the_exchange("hms_identify")


def test_hms_route() -> None:
    check_gets_the_exchange("hms_route")


def test_hms_authorize() -> None:
    check_gets_the_exchange("hms_authorize")


def test_hms_prepare() -> None:
    check_gets_the_exchange("hms_prepare")


def test_hms_forward() -> None:
    check_gets_the_exchange("hms_forward", "upstream")


def test_hms_pick_endpoint() -> None:
    check_gets_the_exchange("hms_pick_endpoint", ["a", "b"])


def test_hms_fallback() -> None:
    check_gets_the_exchange("hms_fallback", "failure")


def test_hms_respond() -> None:
    check_gets_the_exchange("hms_respond")


def test_hms_complete() -> None:
    check_gets_the_exchange("hms_complete")


def test_an_implementation_may_leave_arguments_out() -> None:
    def hms_fallback(failure: str) -> str:
        return failure

    [one] = with_hook("hms_fallback", hms_fallback).hooks("hms_fallback")
    assert one.call("exchange", "failure") == "failure"


# -- registering -----------------------------------------------------------------------------------


def test_tryfirst_and_trylast_go_to_the_ends_whatever_was_registered_first() -> None:
    class Last:
        @hookimpl(trylast=True)
        def hms_prepare(self, exchange: Exchange) -> None: ...

    class Plain:
        @hookimpl
        def hms_prepare(self, exchange: Exchange) -> None: ...

    class First:
        @hookimpl(tryfirst=True)
        def hms_prepare(self, exchange: Exchange) -> None: ...

    plugins = PluginManager()
    for name, plugin in (("z", Last()), ("b", Plain()), ("a", Plain()), ("y", First())):
        plugins.register(plugin, name)
    assert [hook.plugin for hook in plugins.hooks("hms_prepare")] == ["y", "b", "a", "z"]
    assert plugins.names == ["z", "b", "a", "y"]
    assert repr(plugins) == "<PluginManager z, b, a, y>"


@pytest.mark.parametrize("mark", [hookimpl(wrapper=True), hookimpl(hookwrapper=True)])
def test_wrappers_are_refused(mark: Any) -> None:
    """The chain is compiled and calls plain functions: a wrapper would silently not wrap."""

    def hms_prepare(exchange: Exchange) -> Any:
        yield

    plugin = type("Wrapping", (), {"hms_prepare": staticmethod(mark(hms_prepare))})()
    plugins = PluginManager()
    with pytest.raises(PluginError, match="'around'.*hms_prepare is a wrapper"):
        plugins.register(plugin, "around")
    assert plugins.names == []
    assert plugins.hooks("hms_prepare") == []


class Misspelt:
    @hookimpl
    def hms_authorise(self, exchange: Exchange) -> None: ...


class AsksTooMuch:
    @hookimpl
    def hms_authorize(self, exchange: Exchange, database: Any) -> None: ...


class Unmarked:
    def hms_authorize(self, exchange: Exchange) -> None: ...


@pytest.mark.parametrize(
    ("plugin", "reason"),
    [(Misspelt, "hms_authorise"), (AsksTooMuch, "database"), (Unmarked, "@hookimpl")],
)
def test_what_would_never_be_called_is_refused(plugin: type, reason: str) -> None:
    plugins = PluginManager()
    with pytest.raises(PluginError, match=reason):
        plugins.register(plugin(), "wrong")
    assert plugins.names == []
    plugins.register(Recorder("r", []), "right")  # and nothing of it is left to trip over


def test_a_name_is_taken_once() -> None:
    plugins = PluginManager()
    first = Recorder("one", [])
    plugins.register(first, "same")
    with pytest.raises(PluginError, match="same"):
        plugins.register(Recorder("two", []), "same")
    assert plugins.get("same") is first
    assert plugins.names == ["same"]


# -- installed plugins -----------------------------------------------------------------------------

STAMP = """\
from hms_addons.hookspecs import hookimpl
class Stamp:
    @hookimpl
    def hms_prepare(self, exchange): ...
made = Stamp()
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on `sys.path`, where distributions can be put."""
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def install(site: Path, code: str, *points: str, module: str) -> None:
    """Put a distribution of one module there, as pip would."""
    (site / f"{module}.py").write_text(code)
    info = site / f"{module}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text("\n".join(["[hms_addons]", *points]))


def test_installed_plugins_come_by_name_after_the_built_ins(site: Path) -> None:
    points = ("z = stamp_a:Stamp", "a = stamp_a:made")
    install(site, STAMP, *points, module="stamp_a")
    plugins = build_plugins(None, Random(0))
    assert plugins.names[-2:] == ["a", "z"]
    assert plugins.sources["z"] == "stamp_a 1.2"
    assert plugins.names[0] == "mtls"


def test_a_disabled_plugin_is_not_even_imported(site: Path) -> None:
    install(site, "raise SystemExit", "bad = stamp_b:Stamp", module="stamp_b")
    assert build_plugins(None, Random(0), ["bad"]).get("bad") is None
    assert "stamp_b" not in sys.modules


@pytest.mark.parametrize("code", ["import no_such_module", "1 / 0", "Other = 1"])
def test_a_plugin_that_cannot_be_imported_ends_the_start(site: Path, code: str) -> None:
    """Passed over, it would be a policy that somebody installed and nobody asks."""
    module = f"stamp_c{abs(hash(code))}"
    install(site, code, f"stamp = {module}:Stamp", module=module)
    with pytest.raises(PluginError, match=rf"plugin 'stamp' \({module} 1.2\) cannot be loaded"):
        build_plugins(None, Random(0))


def test_a_failure_to_go_back_is_logged_and_the_others_go_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Broken:
        @hookimpl
        def hms_configure(self, snapshot: Snapshot) -> None:
            if snapshot is OLD:
                raise ValueError("cannot go back")

    calls: list[tuple[str, str]] = []
    plugins = PluginManager()
    plugins.register(Broken(), "broken")
    plugins.register(Recorder("two", calls, ConfigError("no")), "two")
    with caplog.at_level(logging.ERROR), pytest.raises(ConfigError, match="'two' refused"):
        plugins.configure(NEW, OLD)
    assert calls == [("two", "new"), ("two", "old")]
    assert "plugin broken failed to go back" in caplog.text
