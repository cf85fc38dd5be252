"""The plugin manager: registration, order, the configuration vote, and every hook of the contract."""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING, Any

import pytest

from hms_addons.config.snapshot import Cluster
from hms_addons.errors import ConfigError, ExchangeFailed, Failure, Fault
from hms_addons.hookspecs import hookimpl
from hms_addons.http_message import Answer
from hms_addons.plugins import PluginError, PluginManager
from tests.fakes.exchange import make_exchange, make_route, make_snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from hms_addons.engine.hook_chain import HookChain
    from hms_addons.exchange import Exchange

ROUTE = make_route()
CLUSTERS = {"auth-svc": Cluster(name="auth-svc", service="auth-svc")}


def manager(*plugins: Any) -> PluginManager:
    made = PluginManager()
    for number, plugin in enumerate(plugins):
        made.register(plugin, f"plugin-{number}", "test")
    return made


def chain(*plugins: Any) -> HookChain:
    class Base:
        @hookimpl(trylast=True)
        def hms_route(self) -> Any:
            return ROUTE

        @hookimpl(trylast=True)
        def hms_forward(self) -> Answer:
            return Answer(200, b"OK", ())

    return manager(*plugins, Base()).compile_chain(Random(1))


async def run(made: HookChain) -> Exchange:
    exchange = make_exchange(snapshot=make_snapshot(clusters=CLUSTERS))
    await made.decide(exchange)
    if exchange.failure is None:
        await made.forward(exchange, "upstream")
    await made.respond(exchange)
    made.complete(exchange)
    return exchange


# -- one test per hook --------------------------------------------------------------------------


def test_hms_configure_asks_every_plugin_and_names_who_refuses() -> None:
    asked: list[tuple[str, Any]] = []

    class Agrees:
        @hookimpl
        def hms_configure(self, snapshot: Any) -> None:
            asked.append(("agrees", snapshot))

    class Refuses:
        @hookimpl
        def hms_configure(self, snapshot: Any) -> None:
            asked.append(("refuses", snapshot))
            if snapshot.version == "2":
                message = "plugins.stamp.header: not a header name"
                raise ConfigError(message)

    old, new = make_snapshot(version="1"), make_snapshot(version="2")
    made = manager(Agrees(), Refuses())
    made.configure(old, None)
    with pytest.raises(ConfigError, match="plugin-1.*plugins.stamp.header"):
        made.configure(new, old)
    assert asked[-2:] == [("agrees", old), ("refuses", old)]  # all are back on the old one


def test_hms_configure_that_crashes_refuses_too() -> None:
    class Crashes:
        @hookimpl
        def hms_configure(self) -> None:
            raise KeyError("x")

    with pytest.raises(ConfigError, match=r"plugin-0.*KeyError"):
        manager(Crashes()).configure(make_snapshot(), None)


async def test_hms_startup_and_hms_shutdown_run_in_order_and_in_reverse() -> None:
    calls: list[str] = []

    class Worker:
        def __init__(self, name: str) -> None:
            self.name = name

        @hookimpl
        async def hms_startup(self, mesh: Any) -> None:
            calls.append(f"{self.name} starts with {mesh}")

        @hookimpl
        def hms_shutdown(self) -> None:
            calls.append(f"{self.name} stops")
            if self.name == "b":
                raise RuntimeError

    made = manager(Worker("a"), Worker("b"))
    await made.startup("mesh")  # type: ignore[arg-type] # handed through
    await made.shutdown()
    assert calls == ["a starts with mesh", "b starts with mesh", "b stops", "a stops"]


async def test_hms_startup_that_fails_ends_the_start() -> None:
    class Broken:
        @hookimpl
        def hms_startup(self) -> None:
            message = "no database"
            raise OSError(message)

    with pytest.raises(PluginError, match="plugin-0.*no database"):
        await manager(Broken()).startup(None)  # type: ignore[arg-type] # it is not looked at


async def test_hms_shutdown_is_awaited() -> None:
    stopped: list[bool] = []

    class Worker:
        @hookimpl
        async def hms_shutdown(self) -> None:
            stopped.append(True)

    await manager(Worker()).shutdown()
    assert stopped


async def test_hms_identify_says_who_calls() -> None:
    class Plugin:
        @hookimpl
        def hms_identify(self, exchange: Exchange) -> None:
            exchange.peer = "spiffe://mpsa.mil/svc/claims-svc"

    assert (await run(chain(Plugin()))).peer == "spiffe://mpsa.mil/svc/claims-svc"


async def test_hms_route_says_where_to() -> None:
    mine = make_route(name="mine")

    class Plugin:
        @hookimpl
        def hms_route(self, exchange: Exchange) -> Any:
            return mine if exchange.path == "/verify-id" else None

    assert (await run(chain(Plugin()))).route is mine


async def test_hms_authorize_may_refuse() -> None:
    class Plugin:
        @hookimpl
        async def hms_authorize(self, exchange: Exchange) -> None:
            exchange.deny(403, "RBAC", "closed on Sundays")

    failure = (await run(chain(Plugin()))).failure
    assert failure is not None
    assert failure.detail == "closed on Sundays"


async def test_hms_prepare_changes_the_request() -> None:
    class Plugin:
        @hookimpl
        def hms_prepare(self, exchange: Exchange) -> None:
            exchange.flow.request.headers["X-Stamp"] = "1"

    assert (await run(chain(Plugin()))).flow.request.headers["X-Stamp"] == "1"


async def test_hms_forward_may_answer_itself() -> None:
    class Plugin:
        @hookimpl
        def hms_forward(self, exchange: Exchange, upstream: Any) -> Answer:
            assert exchange.permit is not None
            assert upstream == "upstream"
            return Answer(203, b"", ())

    answer = (await run(chain(Plugin()))).answer
    assert answer is not None
    assert answer.status == 203


def test_hms_pick_endpoint_chooses() -> None:
    class Plugin:
        @hookimpl
        def hms_pick_endpoint(self, candidates: Any) -> Any:
            return candidates[-1]

    assert chain(Plugin()).pick_endpoint(make_exchange(), ["a", "b"]) == "b"


async def test_hms_fallback_answers_for_a_failure() -> None:
    class Plugin:
        @hookimpl
        def hms_forward(self) -> Answer:
            raise ExchangeFailed(Failure.of(Fault.CONNECT_FAILURE, "gone"))

        @hookimpl
        def hms_fallback(self, failure: Failure) -> Answer:
            return Answer(200, b"OK", (), failure.flag.encode())

    answer = (await run(chain(Plugin()))).answer
    assert answer is not None
    assert answer.body == b"UF"


async def test_hms_respond_changes_the_answer() -> None:
    class Plugin:
        @hookimpl
        def hms_respond(self, exchange: Exchange) -> None:
            assert exchange.answer is not None
            exchange.answer.fields = (*exchange.answer.fields, (b"X-Stamp", b"1"))

    answer = (await run(chain(Plugin()))).answer
    assert answer is not None
    assert (b"X-Stamp", b"1") in answer.fields


async def test_hms_complete_observes_once() -> None:
    seen: list[Exchange] = []

    class Plugin:
        @hookimpl
        def hms_complete(self, exchange: Exchange) -> None:
            seen.append(exchange)

    exchange = await run(chain(Plugin()))
    assert seen == [exchange]


def test_hms_load_balancers_are_collected() -> None:
    class Plugin:
        @hookimpl
        def hms_load_balancers(self) -> dict[str, type]:
            return {"mine": object}

    assert manager(Plugin()).collect("hms_load_balancers") == [{"mine": object}]


def test_hms_mitmproxy_addons_are_collected() -> None:
    class Plugin:
        @hookimpl
        def hms_mitmproxy_addons(self) -> list[Any]:
            return ["addon"]

    assert manager(Plugin()).collect("hms_mitmproxy_addons") == [["addon"]]


# -- registration -------------------------------------------------------------------------------


async def test_order_is_tryfirst_then_as_registered_then_trylast() -> None:
    calls: list[str] = []

    def plugin(name: str, *, tryfirst: bool = False, trylast: bool = False) -> Any:
        class Plugin:
            @hookimpl(tryfirst=tryfirst, trylast=trylast)
            def hms_identify(self) -> None:
                calls.append(name)

        return Plugin()

    made = chain(
        plugin("late", trylast=True), plugin("a"), plugin("early", tryfirst=True), plugin("b")
    )
    await run(made)
    assert calls == ["early", "a", "b", "late"]


def test_what_cannot_be_registered_is_named() -> None:
    class Empty:
        pass

    class Unknown:
        @hookimpl
        def hms_authorise(self) -> None:
            """Misspelt."""

    class Wrapper:
        @hookimpl(wrapper=True)
        def hms_identify(self) -> Any:
            yield

    for plugin, why in (
        (Empty(), "no method"),
        (Unknown(), "hms_authorise"),
        (Wrapper(), "wrapper"),
    ):
        made = PluginManager()
        with pytest.raises(PluginError, match=f"'bad'.*{why}"):
            made.register(plugin, "bad", "test")
        assert made.names == []
    made = manager(Fine())
    with pytest.raises(PluginError, match="plugin-0"):
        made.register(Fine(), "plugin-0")


class Fine:
    """A plugin with one hook."""

    @hookimpl
    def hms_shutdown(self) -> None:
        """Nothing to do."""


def install(folder: Path, name: str, code: str) -> None:
    """A distribution with an entry point, as pip leaves one behind."""
    (folder / f"{name}_module.py").write_text(code)
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[hms_addons]\n{name} = {name}_module:Plugin\n")


GOOD = """
from hms_addons.hookspecs import hookimpl
class Plugin:
    @hookimpl
    def hms_shutdown(self): pass
"""


def test_installed_plugins_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "found", GOOD)
    monkeypatch.syspath_prepend(tmp_path)
    made = PluginManager()
    made.load_entry_points()
    assert "found" in made.names
    assert made.sources["found"] == "found 1.2"
    assert type(made.get("found")).__name__ == "Plugin"
    without = PluginManager()
    without.load_entry_points(disabled=["found"])
    assert "found" not in without.names
    sys.modules.pop("found_module")


def test_an_installed_plugin_that_cannot_be_loaded_is_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, "broken", "import no_such_module_anywhere\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"'broken' \(broken 1.2\).*no_such_module_anywhere"):
        PluginManager().load_entry_points()
